"""One thing that reads bytes of others, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hostile.calling import hostile
from tests.hostile.mutation import Random, mutants

Decode = Callable[[bytes], object]


@dataclass(frozen=True)
class Decoder:
    """`decode` reads `samples`; of all inputs `share` in a hundred thousand are for it.

    `kind`: the message that the samples are, whose fields get wrong values then as well.
    """

    name: str
    decode: Decode = field(repr=False)
    samples: Sequence[bytes] = field(repr=False)
    share: int = 1000
    kind: Any = field(default=None, repr=False)

    def inputs(self, random: Random, count: int) -> Iterator[bytes]:
        """So many of them."""
        few = count // 4 if self.kind is not None else count
        yield from mutants(self.samples, random, few)
        for _ in range(count - few):
            sample = self.samples[int(random.integers(len(self.samples)))]
            yield hostile(self.kind, sample, random)


def of_file(
    name: str,
    read: Callable[[Path], object],
    path: Path,
    samples: Sequence[bytes] = (),
    share: int = 1000,
) -> Decoder:
    """What reads the file `path`; without `samples`, what it holds now is one."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def decode(raw: bytes) -> object:
        path.write_bytes(raw)
        return read(path)

    return Decoder(name, decode, samples or [path.read_bytes()], share)


def of_message(name: str, decode: Decode, sample: Any, share: int = 1000) -> Decoder:
    """What reads a message such as `sample`."""
    return Decoder(name, decode, [sample.SerializeToString()], share, sample.DESCRIPTOR)
