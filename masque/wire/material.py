"""How corrections travel: several in one message, or one in several; packed here, unpacked here.

Both ends follow the program's positions, so a message needs no more than positions and sizes. Its
corrections are at most `MESSAGE` bytes; one that does not fit continues in the next message, which
then begins with the same position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from masque.errors import ProtocolError
from masque.mpc.doors import Buffer
from masque.mpc.prg import SEED_SIZE
from masque.v1.dealer_pb2 import Material

MESSAGE = 1 << 20
"""Bytes of corrections in one message, at most."""

Item = tuple[int, Buffer]
"""A position of the program, and the corrections of that call for one party."""


def seed_message(seed: bytes) -> Material:
    """The first message of a stream."""
    return Material(seed=seed)


def pack(items: Iterable[Item], limit: int = MESSAGE) -> Iterator[Material]:
    """Whole corrections in order, as few messages of at most `limit` bytes as hold them."""
    positions: list[int] = []
    parts: list[Buffer] = []
    room = limit
    for position, part in items:
        rest = memoryview(part)
        while len(rest) > room:
            if room:
                positions.append(position)
                parts.append(rest[:room])
                rest = rest[room:]
            yield _message(positions, parts, unfinished=bool(parts) and positions[-1] == position)
            positions, parts, room = [], [], limit
        positions.append(position)
        parts.append(rest)
        room -= len(rest)
    if positions:
        yield _message(positions, parts, unfinished=False)


def _message(positions: list[int], parts: list[Buffer], *, unfinished: bool) -> Material:
    return Material(
        positions=positions,
        sizes=[len(part) for part in parts],
        corrections=b"".join(parts),
        unfinished=unfinished,
    )


class Unpacker:
    """The other end of `pack`: messages of `dealer` in, whole corrections out; checks them all."""

    def __init__(self, dealer: str) -> None:
        self._dealer = dealer
        self._seeded = False
        self._last = -1
        self._begun: list[memoryview] = []

    def seed(self, message: Material) -> bytes:
        """The 32-byte seed, which is the first message and nothing else."""
        if self._seeded or len(message.seed) != SEED_SIZE or message.positions:
            raise self._wrong("its first message is not a seed")
        self._seeded = True
        return message.seed

    def items(self, message: Material) -> list[Item]:
        """The corrections that this message completes, as views of it where they are whole."""
        corrections = memoryview(message.corrections)
        sizes = message.sizes
        if not self._seeded or message.seed or len(message.positions) != len(sizes) or not sizes:
            raise self._wrong("a message is malformed")
        if sum(sizes) != len(corrections) or len(corrections) > MESSAGE:
            raise self._wrong("the sizes of a message do not add up")
        found: list[Item] = []
        start, last = 0, len(sizes) - 1
        for number, (position, size) in enumerate(zip(message.positions, sizes, strict=True)):
            part = corrections[start : start + size]
            start += size
            self._check(position)
            if message.unfinished and number == last:
                self._begun.append(part)
            elif self._begun:
                found.append((position, b"".join((*self._begun, part))))
                self._begun = []
            else:
                found.append((position, part))
        return found

    @property
    def begun(self) -> int:
        """Bytes of the correction that continues in the next message."""
        return sum(map(len, self._begun))

    def finish(self) -> None:
        """The stream has ended: ProtocolError if it ended in the middle of something."""
        if not self._seeded or self._begun:
            raise self._wrong("it ended in the middle of a correction")

    def _check(self, position: int) -> None:
        if self._begun and position != self._last:
            raise self._wrong(f"position {position} follows the unfinished {self._last}")
        if not self._begun and position <= self._last:
            raise self._wrong(f"position {position} comes after {self._last}")
        self._last = position

    def _wrong(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"the stream of {self._dealer} cannot be read: {what}.",
            hint="Check that all services run the same version of Masque.",
            service=self._dealer,
        )
