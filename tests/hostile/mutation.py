"""Inputs of a hostile peer: valid ones, damaged; structures with wrong values; noise."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Random = np.random.Generator
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, 2**31, 2**63, -(2**64), 10**400),
    *("", "x", "..", "../../etc/passwd", "\x00", "\ud800", "\U0001f600", "é" * 300, "a,b", "NaN"),
    *([], {}, [[]], [0] * 500, {"": 0}, [None], ["x", "x"], {"kind": "sequential"}),
    *(float("nan"), float("inf"), "1" * 5000),
)
"""What a field of JSON may be instead."""


def mutants(samples: Sequence[bytes], random: Random, count: int) -> Iterator[bytes]:
    """`count` inputs; most are samples with one to four changes, some are noise."""
    documents = [_loaded(sample) for sample in samples]
    for _ in range(count):
        choice = int(random.integers(len(samples)))
        document = documents[choice]
        kind = random.random()
        if kind < 0.04:
            yield random.bytes(int(random.integers(0, 200)))
        elif document is not None and kind < 0.6:
            yield _rewritten(document, random)
        else:
            found = samples[choice]
            for _ in range(int(random.integers(1, 5))):
                found = _damaged(found, samples, random)
            yield found


def claims(sample: bytes, most: int = 400) -> Iterator[bytes]:
    """`sample` with a huge number, of 2 to 8 bytes and either order, at every place in turn."""
    for start in range(min(len(sample), most)):
        for width in (2, 4, 8):
            for huge in (2 ** (8 * width) - 1, 2 ** (8 * width - 2)):
                for order in ("little", "big"):
                    number = huge.to_bytes(width, "big")
                    number = number if order == "big" else number[::-1]
                    yield sample[:start] + number + sample[start + width :]


def _damaged(content: bytes, samples: Sequence[bytes], random: Random) -> bytes:
    size = len(content)
    at = int(random.integers(0, size + 1))
    to = min(size, at + int(random.integers(0, 33)))
    match int(random.integers(8)):
        case 0:  # a flipped bit
            to = min(size, at + 1)
            return (
                content[:at]
                + bytes(b ^ 1 << int(random.integers(8)) for b in content[at:to])
                + content[to:]
            )
        case 1:  # cut off
            return content[:at]
        case 2:  # something missing
            return content[:at] + content[to:]
        case 3:  # something twice
            return content[:to] + content[at:]
        case 4:  # something added
            return content[:at] + random.bytes(to - at) + content[at:]
        case 5:  # an extreme number
            width = int(random.choice((1, 2, 4, 8)))
            number = EXTREMES[int(random.integers(len(EXTREMES)))] % (1 << 8 * width)
            order = "little" if random.random() < 0.5 else "big"
            raw = number.to_bytes(width, "little")
            return content[:at] + (raw if order == "little" else raw[::-1]) + content[at + width :]
        case 6:  # a part of another
            other = samples[int(random.integers(len(samples)))]
            start = int(random.integers(0, len(other) + 1))
            return content[:at] + other[start : start + 64] + content[to:]
        case _:  # other bytes
            return content[:at] + random.bytes(to - at) + content[to:]


def _loaded(sample: bytes) -> Any:
    try:
        found = json.loads(sample)
    except (ValueError, RecursionError):  # of our own making, in a chain of changes
        return None
    return found if isinstance(found, dict | list) else None


def _rewritten(document: Any, random: Random) -> bytes:
    """JSON with up to three values replaced, removed, added or doubled."""
    changed = copy.deepcopy(document)
    for _ in range(int(random.integers(1, 4))):
        _change(changed, random)
    ascii_only = random.random() < 0.7
    text = json.dumps(
        changed,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=ascii_only,
        check_circular=False,
    )
    if random.random() < 0.02:
        text = text.replace("[", "[" * 2000, 1)
    return text.encode("utf-8", "surrogatepass")


def _change(document: Any, random: Random) -> None:
    places = list(_places(document))
    if not places:
        return
    holder, key = places[int(random.integers(len(places)))]
    value = copy.deepcopy(VALUES[int(random.integers(len(VALUES)))])
    match int(random.integers(5)):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(value)[:100]] = value
        case 1 | 0:
            holder.append(copy.deepcopy(holder[key]))
        case 2:
            other, where = places[int(random.integers(len(places)))]
            holder[key] = copy.deepcopy(other[where])
        case _:
            holder[key] = value


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    keys: Any = ()
    if isinstance(document, dict):
        keys = list(document)
    elif isinstance(document, list):
        keys = range(len(document))
    for key in keys:
        yield document, key
        yield from _places(document[key])
