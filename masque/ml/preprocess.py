"""From shares of tables to the masked design matrix: the blocks, each for a chunk of rows.

Standardisation (docs/protocol.md, protocol 9): the means need no opening but one of the sums; the
rows are then masked once, and centred, squared and summed on the same masks; the deviations come
from one inverse square root; each row is scaled, rounded and masked anew. Only the rows that are
not held out are measured. Columns of raw numbers beyond +-1 are first taken in units of a power of
two, so that every column is within +-1.

What roundings add. Means are within 2^-22 and variances within 2^-30 of the truth; the least
deviation is 2^-10; so a standardised value is (x - mean) / deviation within 0.1 %, relative to the
column's largest, and 2^-16: `bounds.MARGIN` allows 2 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import sqrt

import numpy as np

from masque.ml.bounds import (
    DATA_SCALE,
    ENCODED,
    FEATURE_SCALE,
    LEAST_VARIANCE,
    MARGIN,
    RowBounds,
    room,
)
from masque.ml.task import Table, Task
from masque.mpc.functions import equals, every, inverse_sqrt
from masque.mpc.graph import Block
from masque.mpc.public import constant
from masque.mpc.secret import Secret, concatenate
from masque.mpc.trace import Trace

DEVIATION_SCALE = 20  # of 1 / deviation
SPREAD_SCALE = 36  # of sums of squares, at most
UNLIKE = (
    "identifiers match: no.",
    "The data sets do not belong together; check them and share them again.",
)
LARGEST_DEVIATION = 1.01 / sqrt(LEAST_VARIANCE)  # of 1 / deviation


def rows_of(table: Table) -> str:
    """The name of a block's input: rows of a table. No other input has a colon in its name."""
    return f"rows:{table.name}"


class Reading:
    """The same rows of the tables that are read together, as inputs of a block."""

    def __init__(self, trace: Trace, task: Task, tables: Sequence[Table], rows: int) -> None:
        self.task, self.tables = task, tables
        bound = max(1.0, *task.feature_bounds) * ENCODED
        self.parts = [
            trace.input(rows_of(table), (rows, table.features + table.labels), DATA_SCALE, bound)
            for table in tables
        ]

    def features(self) -> Secret:
        """[rows, features] as encoded."""
        pairs = zip(self.tables, self.parts, strict=True)
        return _joined([part[:, : table.features] for table, part in pairs if table.features])

    def in_units(self) -> Secret:
        """[rows, features], every column in its unit: within +-1. One opening if there are any."""
        x, units = self.features(), self.task.units
        if not any(units):
            return x
        parts, start = [], 0
        for unit, group in groupby(units):
            stop = start + len(list(group))
            parts.append(x[:, start:stop].bounded(ENCODED * 2.0**unit).halved(unit))
            start = stop
        return _joined(parts).at(DATA_SCALE)

    def labels(self) -> Secret:
        """[rows, classes]."""
        pairs = zip(self.tables, self.parts, strict=True)
        return next(part[:, table.features :] for table, part in pairs if table.labels)


def _joined(parts: Sequence[Secret]) -> Secret:
    return parts[0] if len(parts) == 1 else concatenate(parts, axis=1)


def _with_ones(task: Task, x: Secret) -> Secret:
    """The design matrix: the features and, for the intercept, a column of ones."""
    if not task.intercept:
        return x
    ones = x[:, :1].times(0.0) + 1.0
    return concatenate([x, ones], axis=1)


def plain_block(task: Task, limits: RowBounds, tables: Sequence[Table], rows: int) -> Block:
    """Without standardisation: round to the design matrix's scale, and mask. Two rounds."""
    trace = Trace(f"features of {rows}", task.parties)
    read = Reading(trace, task, tables, rows)
    x = _with_ones(task, read.features().at(FEATURE_SCALE))
    assert x.bound <= limits.feature
    trace.output("features", x, FEATURE_SCALE, masked=True)
    trace.output("labels", read.labels(), DATA_SCALE)
    return trace.freeze()


def sums_block(task: Task, tables: Sequence[Table], rows: int) -> Block:
    """Sums of the columns over the rows that are measured; the labels are put aside."""
    trace = Trace(f"sums of {rows}", task.parties)
    read = Reading(trace, task, tables, rows)
    measured = trace.argument("measured", (rows, 1), 0, 1.0)
    so_far = _sums(trace, task)
    sums = so_far + (read.in_units() * measured).sum(axis=0)
    trace.output("sums", sums.bounded(so_far.bound), DATA_SCALE)
    trace.output("labels", read.labels(), DATA_SCALE)
    return trace.freeze()


def _sums(trace: Trace, task: Task) -> Secret:
    bound = MARGIN * task.measured_rows
    return trace.input("sums", (task.features,), DATA_SCALE, bound)


def mean_block(task: Task) -> Block:
    """Means from sums, masked. Two rounds."""
    trace = Trace("means", task.parties)
    mean = _sums(trace, task).scaled(1.0 / task.measured_rows, DATA_SCALE)
    trace.output("mean", mean, DATA_SCALE, masked=True)
    return trace.freeze()


def _mean(trace: Trace, task: Task) -> Secret:
    return trace.input("mean", (task.features,), DATA_SCALE, MARGIN * 1.001, masked=True)


def _squares(trace: Trace, task: Task) -> Secret:
    """Sums of squared distances from the mean: no variance within +-1 is above 1 (Popoviciu)."""
    bound = MARGIN * task.measured_rows
    return trace.input("squares", (task.features,), room(bound, 0, SPREAD_SCALE, "a spread"), bound)


def spread_block(task: Task, tables: Sequence[Table], rows: int) -> Block:
    """Mask the rows; sum the squares of their distances from the mean. Two rounds."""
    trace = Trace(f"spread of {rows}", task.parties)
    read = Reading(trace, task, tables, rows)
    measured = trace.argument("measured", (rows, 1), 0, 1.0)
    mean, so_far = _mean(trace, task), _squares(trace, task)
    x = read.in_units()
    x.masked()
    centred = (x - mean) * measured
    squares = so_far + centred.column_dot(centred).at(so_far.scale)
    trace.output("features", _with_ones(task, x), DATA_SCALE, masked=True)
    trace.output("squares", squares.bounded(so_far.bound), so_far.scale)
    return trace.freeze()


def deviation_block(task: Task) -> Block:
    """1 / standard deviation of every column, masked."""
    trace = Trace("deviations", task.parties)
    variance = _squares(trace, task).scaled(1.0 / task.measured_rows, 32)
    inverse = inverse_sqrt(variance, LEAST_VARIANCE)
    trace.output("inverse_deviation", inverse, DEVIATION_SCALE, masked=True)
    return trace.freeze()


def _inverse_deviation(trace: Trace, task: Task) -> Secret:
    shape, scale = (task.features,), DEVIATION_SCALE
    return trace.input("inverse_deviation", shape, scale, LARGEST_DEVIATION, masked=True)


def standardize_block(task: Task, limits: RowBounds, rows: int) -> Block:
    """(x - mean) / deviation, rounded to the design matrix's scale and masked anew. Two rounds."""
    trace = Trace(f"standardize {rows}", task.parties)
    shape = (rows, task.columns)
    x = trace.input("features", shape, DATA_SCALE, MARGIN, masked=True)
    centred = x[:, : task.features] - _mean(trace, task)
    scaled = (centred * _inverse_deviation(trace, task)).at(FEATURE_SCALE)
    x = _with_ones(task, scaled.bounded(limits.held_out))
    trace.output("features", x, FEATURE_SCALE, masked=True)
    return trace.freeze()


def in_raw_units(trace: Trace, task: Task) -> dict[str, Secret]:
    """Mean and 1 / deviation of the encoded columns, whatever their unit: parts of the model."""
    units, largest = np.array(task.units, dtype=np.float64), max(task.units)
    mean, inverse = _mean(trace, task), _inverse_deviation(trace, task)
    if largest:
        mean = mean * constant(trace.graph, 2.0**units, 0)
        inverse = (inverse * constant(trace.graph, 2.0 ** (largest - units), 0)).halved(largest)
    return {"mean": mean, "inverse_deviation": inverse}


def identifiers_block(task: Task) -> Block:
    """Open one bit: whether all tables have the same column of identifiers (4 words a digest)."""
    trace = Trace("identifiers", task.parties)
    digests = [trace.words(f"{table.name}:identifiers", (1, 4)) for table in task.tables]
    same = concatenate([digest - digests[0] for digest in digests[1:]], axis=1)
    match = every(equals(same)).value()
    trace.reveal("identifiers match", match, effect="require", refusal=UNLIKE)
    return trace.freeze()
