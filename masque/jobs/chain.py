"""The lines of a ledger: each names the one before it by its hash, and is signed.

A line is canonical JSON with the keys

    number      from 0, without gaps
    previous    hash of the line before (of the first: zeros)
    entry       what is noted: `kind`, `time` (seconds since 1970), and more by its kind
    hash        SHA-256 of "masque ledger 1", a zero byte, and number, previous and entry alone
    signature   over the hash, by the certificate in the last `began` or `certificate` entry

so that a line that was changed, left out, moved or added is noticed by everybody who reads on.
Lines that are missing at the end are noticed by whoever knows a later head: number and hash of a
line.

A crash can tear the line that is being written. It stays as it is; the next line is a `repaired`
entry with the number of torn bytes and their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from masque.data.table import canonical_json
from masque.errors import InputError

FIRST = "0" * 64
"""What the first line says of the one before it."""

BEGAN, CERTIFICATE, OPENED, DELETED, ROTATED, REPAIRED = (
    "began",
    "certificate",
    "opened",
    "deleted",
    "key rotated",
    "repaired",
)
ACCEPTED, APPROVED, DENIED = "accepted", "approved", "denied"
"""An attempt that may begin, with its data sets; a person's yes to a job, or no."""

_KEYS = {"number": int, "previous": str, "entry": dict, "hash": str, "signature": str}
_HASHED = b"masque ledger 1\x00"
_SIGNED = b"masque ledger signature 1\x00"


@dataclass(frozen=True)
class Head:
    """A line, named so that no other can take its place."""

    number: int
    hash: str


@dataclass(frozen=True)
class Line:
    """One line of a ledger; `at` is where it stands in the file, from 1."""

    number: int
    previous: str
    entry: Mapping[str, Any]
    hash: str
    signature: str
    at: int = 0

    @property
    def kind(self) -> str:
        """What sort of entry it has."""
        return str(self.entry["kind"])

    @property
    def head(self) -> Head:
        """Its name."""
        return Head(self.number, self.hash)


@dataclass(frozen=True)
class Chain:
    """All good lines of a ledger, and how many bytes after the last of them are torn."""

    lines: tuple[Line, ...]
    torn: bytes = b""

    @property
    def head(self) -> Head | None:
        """The last line's name; None if there is none."""
        return self.lines[-1].head if self.lines else None


def hash_of(number: int, previous: str, entry: Mapping[str, Any]) -> str:
    """The hash of a line, hex."""
    content = canonical_json({"number": number, "previous": previous, "entry": entry})
    return hashlib.sha256(_HASHED + content).hexdigest()


def statement(line_hash: str) -> bytes:
    """What is signed of a line."""
    return _SIGNED + bytes.fromhex(line_hash)


def written(line: Line) -> bytes:
    """A line as it stands in the file, without its end."""
    return canonical_json({key: getattr(line, key) for key in _KEYS})


def read_chain(raw: bytes, where: str) -> Chain:
    """The lines of a ledger's content. Signatures are not looked at.

    Raises InputError naming `where` and the first line that is not as it should be.
    """
    lines: list[Line] = []
    torn, first_torn = b"", 0
    for at, text in enumerate(_split(raw), start=1):
        line = _parsed(text.removesuffix(b"\n"), at)
        if line is None:
            torn, first_torn = torn + text, first_torn or at
            continue
        _check_place(line, lines[-1] if lines else None, torn, first_torn, where)
        lines.append(line)
        torn, first_torn = b"", 0
    return Chain(tuple(lines), torn)


def torn_entry(torn: bytes, time: float) -> dict[str, Any]:
    """What is noted of torn bytes."""
    digest = hashlib.sha256(torn).hexdigest()
    return {"kind": REPAIRED, "time": time, "bytes": len(torn), "sha256": digest}


def broken(where: str, at: int, problem: str) -> InputError:
    """The error for a ledger's line."""
    return InputError(
        f"{where}, line {at}: {problem}.",
        hint="The ledger was changed, or its disk is damaged: compare it with a copy.",
        file=where,
        line=at,
    )


def _check_place(line: Line, before: Line | None, torn: bytes, torn_at: int, where: str) -> None:
    number, previous = (before.number + 1, before.hash) if before else (0, FIRST)
    if torn:
        noted = torn_entry(torn, 0.0)
        if any(line.entry.get(key) != noted[key] for key in ("kind", "bytes", "sha256")):
            raise broken(where, torn_at, "it cannot be read, and no repair of it is noted")
    if line.number != number:
        raise broken(where, line.at, f"it has number {line.number}, where {number} is due")
    if line.previous != previous:
        raise broken(where, line.at, "it does not follow the line before it")
    if line.hash != hash_of(line.number, line.previous, line.entry):
        raise broken(where, line.at, "its content is not what its hash says")
    if (line.kind == BEGAN) != (number == 0):
        raise broken(where, line.at, f"a ledger cannot have {line.kind!r} there")


def _parsed(text: bytes, at: int) -> Line | None:
    """The line, or None if these bytes are not one."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != _KEYS.keys():
        return None
    if any(type(found[key]) is not kind for key, kind in _KEYS.items()):
        return None
    entry = found["entry"]
    if type(entry.get("kind")) is not str or type(entry.get("time")) is not float:
        return None
    line = Line(**found, at=at)
    try:
        return line if written(line) == text else None
    except (ValueError, RecursionError):
        return None


def _split(raw: bytes) -> Iterator[bytes]:
    """Lines with their ends."""
    start = 0
    while start < len(raw):
        end = raw.find(b"\n", start) + 1 or len(raw)
        yield raw[start:end]
        start = end
