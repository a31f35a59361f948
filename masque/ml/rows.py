"""Which rows do what: the public split and the public order of mini-batches.

Both follow from the public seed and the numbers of rows alone, so that everybody finds the same.
Index arrays of the last few epochs are kept: a training round may be a part of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from masque.ml.task import Task
from masque.mpc import prg

Rows = NDArray[np.int64]

CHUNK_ELEMENTS = 1 << 17  # of a matrix that is prepared or evaluated at once: 1 MiB
CHUNK_ROWS = 2048


@lru_cache(maxsize=4)
def _split(seed: int, rows: int, holdout: int, validation: int) -> tuple[Rows, Rows, Rows]:
    order = prg.permutation(seed, "split", rows)
    stop = holdout + validation
    return np.sort(order[:holdout]), np.sort(order[holdout:stop]), np.sort(order[stop:])


def split(task: Task) -> tuple[Rows, Rows, Rows]:
    """Rows that are (only evaluated on, looked at by early stopping, trained on), ascending."""
    return _split(task.seed, task.rows, task.holdout_rows, task.validation_rows)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, rows: int) -> Rows:
    return prg.permutation(seed, f"epoch {epoch}", rows)


def batches(task: Task, epoch: int, start: int = 0, stop: int | None = None) -> Iterator[Rows]:
    """Mini-batches `start` to `stop` - 1 of `epoch`, all counted from 0.

    An epoch has every training row once; its last batch may be short.
    """
    training, size = split(task)[2], task.batch_size
    end = training.size if stop is None else min(training.size, stop * size)
    shuffled = training[_order(task.seed, epoch, training.size)[start * size : end]]
    for first in range(0, shuffled.size, size):
        yield shuffled[first : first + size]


def batch_count(task: Task) -> int:
    """Mini-batches in an epoch."""
    return -(-task.training_rows // task.batch_size)


def batch_sizes(task: Task) -> tuple[int, ...]:
    """The sizes that mini-batches have: one, or two where the last of an epoch is short."""
    whole, rest = divmod(task.training_rows, task.batch_size)
    return (task.batch_size,) * (whole > 0) + (rest,) * (rest > 0)


def chunks(rows: int, columns: int) -> Iterator[slice]:
    """Consecutive rows, so many that a matrix of so many columns stays within a chunk."""
    step = max(32, min(CHUNK_ROWS, CHUNK_ELEMENTS // max(1, columns)))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))
