"""Masks of large registers, expanded from the seeds anew whenever rows of them are read.

A mask is a function of a seed and of its place in that seed's stream, so what a data set's mask
takes in memory is where every row of it lies: 16 bytes a row, whatever its length. Reading a row
again is not using its mask again: it stays the mask of that one value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from masque.mpc.doors import Storage
from masque.mpc.prg import Stream
from masque.mpc.program import Rows
from masque.mpc.types import Ring, Shape

LARGE = 32 << 20
"""Bytes from which a register's masks are not kept."""


class Regenerated:
    """Sums of what `streams` hold at the places of a register's rows; zeros before any is put.

    Reads like an array by rows. Rows whose mask has no single place are kept as they are.
    """

    def __init__(self, shape: Shape, streams: Sequence[Stream]) -> None:
        self.shape, self._streams = shape, streams
        self._width = 8 * prod(shape[1:])
        self._position = np.full(shape[0], -1, dtype=np.int64)
        self._offset = np.zeros(shape[0], dtype=np.int64)
        self._kept: Ring | None = None

    def __repr__(self) -> str:
        return f"Regenerated(shape={self.shape})"

    def put(self, rows: Rows, values: Ring, position: int, drawn_at: int | None) -> None:
        """Rows get masks: `values`, which lie at byte `drawn_at` of `position`, if anywhere."""
        chosen = slice(None) if rows is None else rows
        if drawn_at is not None and isinstance(chosen, slice):
            count = len(range(*chosen.indices(self.shape[0])))
            self._position[chosen] = position
            self._offset[chosen] = drawn_at + self._width * np.arange(count)
            return
        if self._kept is None:
            self._kept = np.zeros(self.shape, dtype=np.uint64)
        self._kept[chosen] = values
        self._position[chosen] = -1

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Ring:
        """Rows, in a new array."""
        numbers = np.arange(self.shape[0])[rows]
        found = np.zeros((numbers.size, *self.shape[1:]), dtype=np.uint64)
        flat, start = found.reshape(numbers.size, self._width // 8), 0
        positions, offsets = self._position[numbers].tolist(), self._offset[numbers].tolist()
        while start < numbers.size:
            stop = self._end(positions, offsets, start)
            into = flat[start:stop].reshape(-1)
            if positions[start] >= 0:
                for stream in self._streams:
                    drawn = stream.expand_from(positions[start], offsets[start], into.nbytes)
                    into += drawn.view(np.uint64)
            elif self._kept is not None:
                into[:] = self._kept[numbers[start:stop]].reshape(-1)
            start = stop
        return found

    def _end(self, positions: list[int], offsets: list[int], start: int) -> int:
        """Where rows that lie one after the other end."""
        stop, width = start + 1, self._width
        while (
            stop < len(positions)
            and positions[stop] == positions[start]
            and (positions[start] < 0 or offsets[stop] == offsets[stop - 1] + width)
        ):
            stop += 1
        return stop


@dataclass(frozen=True, slots=True, repr=False)
class Held:
    """A large register of a party: d = x - a, opened; and where its share of a lies."""

    d: Storage
    a: Regenerated
