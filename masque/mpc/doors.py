"""The doors through which a party's core reaches the world, injected by whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from masque.mpc.types import Ring, Shape

Buffer = bytes | memoryview

Source = Callable[[str, slice], Ring]
"""`source(input name, rows)`: this party's share rows of an input, uint64 [rows, columns]."""


class Exchange(Protocol):
    """Where openings meet: everyone contributes a payload, everyone gets everyone else's."""

    def swap(self, payload: bytes) -> Sequence[Buffer]:
        """One round: send `payload` to every other party; theirs, in party order without self.

        All payloads of a round have the length that every party computes for itself.
        Errors: whatever the implementation raises when a peer is gone ends the program.
        """


class Supply(Protocol):
    """Where this party's correction stream comes from."""

    def corrections(self, position: int, size: int) -> Buffer:
        """The `size` > 0 correction bytes of call `position`; positions only grow.

        They are asked for as late as possible, perhaps after swaps: fetch them in the background.
        """


class Storage(Protocol):
    """A uint64 array that is read and written by rows; what is read is a copy."""

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Ring:
        """Rows."""

    def __setitem__(self, rows: slice | NDArray[np.int64], values: Ring) -> None:
        """Write rows."""


Spool = Callable[[Shape], Storage]
"""`spool(shape)`: where the opened masked values of a large register are kept."""


def in_memory(shape: Shape) -> Storage:
    """A spool that is an array."""
    return np.zeros(shape, dtype=np.uint64)
