"""Rows in a file without a name: what a job must keep but need not hold in memory.

For opened masked values only: uniform numbers that every party of the job has, which say nothing
without a share of their masks. The file is gone with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from masque.errors import Refused
from masque.mpc.types import Ring, Shape


class FileRows:
    """A uint64 array of `shape` in an unnamed file in `folder`, read and written by rows.

    Errors: Refused if the disk has no room for it.
    """

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.shape, self._row = shape, 8 * prod(shape[1:])
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (kept open)
        weakref.finalize(self, self._file.close)
        size = self._row * shape[0]
        try:
            os.posix_fallocate(self._file.fileno(), 0, max(1, size))
        except OSError as error:
            self._file.close()
            raise Refused(
                f"this party has no room on its disk for {size} bytes of a job: {error.strerror}.",
                hint="Free space at the party, then submit the job again.",
            ) from None

    def __repr__(self) -> str:
        return f"FileRows(shape={self.shape})"

    def __setitem__(self, rows: slice | NDArray[np.int64], values: Ring) -> None:
        """Write rows; `values` [rows, ...] in C order or any other."""
        numbers = np.arange(self.shape[0])[rows]
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        for start, stop in _runs(numbers):
            part = data[start * self._row : stop * self._row]
            place = int(numbers[start]) * self._row
            while part:
                written = os.pwrite(self._file.fileno(), part, place)
                part, place = part[written:], place + written

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Ring:
        """Rows, in a new array."""
        numbers = np.arange(self.shape[0])[rows]
        found = np.empty((numbers.size, *self.shape[1:]), dtype=np.uint64)
        if not found.size:
            return found
        data = found.reshape(-1).view(np.uint8).data
        for start, stop in _runs(numbers):
            part = data[start * self._row : stop * self._row]
            place = int(numbers[start]) * self._row
            while part:
                taken = os.preadv(self._file.fileno(), [part], place)
                assert taken, "the file has its full length from the start"
                part, place = part[taken:], place + taken
        return found


def _runs(numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stretches of consecutive numbers, as places in the array."""
    if not numbers.size:
        return []
    ends = [*(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), numbers.size]
    return list(zip([0, *ends[:-1]], ends, strict=True))
