"""Which rows do what: the public split and the public order of mini-batches."""

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
def _order(seed: int, rows: int) -> Rows:
    return prg.permutation(seed, "split", rows)


def holdout(task: Task) -> Rows:
    """Rows that are only evaluated on, ascending."""
    return np.sort(_order(task.seed, task.rows)[: task.holdout_rows])


def validation(task: Task) -> Rows:
    """Rows that early stopping looks at, ascending."""
    start = task.holdout_rows
    return np.sort(_order(task.seed, task.rows)[start : start + task.validation_rows])


def training(task: Task) -> Rows:
    """Rows that are trained on, ascending."""
    return np.sort(_order(task.seed, task.rows)[task.holdout_rows + task.validation_rows :])


def batches(task: Task, epoch: int) -> Iterator[Rows]:
    """Mini-batches of `epoch` (0, 1, ...): every training row once, the last batch may be short."""
    rows = training(task)
    shuffled = rows[prg.permutation(task.seed, f"epoch {epoch}", rows.size)]
    for start in range(0, rows.size, task.batch_size):
        yield shuffled[start : start + task.batch_size]


def batch_count(task: Task) -> int:
    """Mini-batches in an epoch."""
    return -(-task.training_rows // task.batch_size)


def chunk_rows(columns: int) -> int:
    """Rows of a chunk of a matrix with so many columns."""
    return max(32, min(CHUNK_ROWS, CHUNK_ELEMENTS // max(1, columns)))


def chunks(rows: int, columns: int) -> Iterator[slice]:
    """Consecutive rows of at most a chunk."""
    step = chunk_rows(columns)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def cut(rows: Rows, columns: int) -> Iterator[Rows]:
    """An index array in pieces of at most a chunk."""
    for piece in chunks(rows.size, columns):
        yield rows[piece]
