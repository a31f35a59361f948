"""From shares of tables to the masked design matrix, a chunk of rows at a time.

Standardisation (docs/protocol.md, protocol 9): the means need no opening but one of the sums; the
rows are then masked once, and centred, squared and summed on the same masks; the deviations come
from one inverse square root; each row is scaled, rounded and masked anew. Only the rows that are
not held out are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2, sqrt

from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, LEAST_VARIANCE, SPREAD_SCALE, Bounds
from masque.ml.task import Table, Task
from masque.mpc.functions import equals, every, inverse_sqrt
from masque.mpc.graph import Block
from masque.mpc.secret import Secret, concatenate
from masque.mpc.trace import Trace

DEVIATION_SCALE = 20


def table_inputs(trace: Trace, tables: Sequence[Table], rows: int, bound: float) -> list[Secret]:
    """The same rows of each table: [rows, features + labels]."""
    return [
        trace.input(table.name, (rows, table.features + table.labels), DATA_SCALE, bound)
        for table in tables
    ]


def _features(tables: Sequence[Table], parts: Sequence[Secret]) -> Secret:
    columns = [part[:, : t.features] for t, part in zip(tables, parts, strict=True) if t.features]
    return columns[0] if len(columns) == 1 else concatenate(columns, axis=1)


def _labels(tables: Sequence[Table], parts: Sequence[Secret]) -> Secret:
    return next(part[:, t.features :] for t, part in zip(tables, parts, strict=True) if t.labels)


def _with_ones(task: Task, x: Secret) -> Secret:
    """The design matrix: the features and, for the intercept, a column of ones."""
    if not task.intercept:
        return x
    ones = x[:, :1].times(0.0) + 1.0
    return concatenate([x, ones], axis=1)


def plain_block(task: Task, tables: Sequence[Table], rows: int) -> Block:
    """Without standardisation: round to the design matrix's scale, and mask."""
    trace = Trace(f"features of {rows}", task.parties)
    bound = max(1.0, task.feature_bound)
    parts = table_inputs(trace, tables, rows, bound)
    x = _with_ones(task, _features(tables, parts).at(FEATURE_SCALE))
    trace.output("features", x, FEATURE_SCALE, masked=True)
    trace.output("labels", _labels(tables, parts), DATA_SCALE)
    return trace.freeze()


def sums_block(task: Task, tables: Sequence[Table], rows: int) -> Block:
    """Sums of the columns over the rows that are measured; the labels are put aside."""
    trace = Trace(f"sums of {rows}", task.parties)
    bound = max(1.0, task.feature_bound)
    parts = table_inputs(trace, tables, rows, bound)
    measured = trace.argument("measured", (rows, 1), 0, 1.0)
    so_far = trace.input("sums", (task.features,), DATA_SCALE, bound * task.rows)
    sums = (_features(tables, parts) * measured).sum(axis=0) + so_far
    trace.output("sums", sums, DATA_SCALE)
    trace.output("labels", _labels(tables, parts), DATA_SCALE)
    return trace.freeze()


def mean_block(task: Task) -> Block:
    """Means from sums, masked."""
    trace = Trace("means", task.parties)
    bound = max(1.0, task.feature_bound)
    sums = trace.input("sums", (task.features,), DATA_SCALE, bound * task.rows)
    mean = sums.scaled(1.0 / (task.rows - task.holdout_rows), DATA_SCALE)
    trace.output("mean", mean, DATA_SCALE, masked=True)
    return trace.freeze()


def spread_scale(task: Task) -> int:
    """Fraction bits of the sums of squares: as many as their bound leaves."""
    largest = 4 * max(1.0, task.feature_bound) ** 2 * task.rows
    return min(SPREAD_SCALE, 60 - ceil(log2(largest)))


def spread_block(task: Task, tables: Sequence[Table], rows: int) -> Block:
    """Mask the rows; sum the squares of their distances from the mean."""
    trace = Trace(f"spread of {rows}", task.parties)
    bound = max(1.0, task.feature_bound)
    parts = table_inputs(trace, tables, rows, bound)
    mean = trace.input("mean", (task.features,), DATA_SCALE, bound * 1.01, masked=True)
    measured = trace.argument("measured", (rows, 1), 0, 1.0)
    scale = spread_scale(task)
    limit = 4 * bound**2 * 1.05 * task.rows
    so_far = trace.input("squares", (task.features,), scale, limit)
    x = _features(tables, parts)
    x.masked()
    centred = (x - mean) * measured
    squares = centred.column_dot(centred).at(scale) + so_far
    trace.output("features", _with_ones(task, x), DATA_SCALE, masked=True)
    trace.output("squares", squares.bounded(limit), scale)
    return trace.freeze()


def deviation_block(task: Task) -> Block:
    """1 / standard deviation of every column, masked."""
    trace = Trace("deviations", task.parties)
    scale, bound = spread_scale(task), max(1.0, task.feature_bound)
    limit = 4 * bound**2 * 1.05 * task.rows
    squares = trace.input("squares", (task.features,), scale, limit)
    variance = squares.scaled(1.0 / (task.rows - task.holdout_rows), 32)
    inverse = inverse_sqrt(variance.bounded(4.3 * bound**2), LEAST_VARIANCE)
    trace.output("inverse_deviation", inverse, DEVIATION_SCALE, masked=True)
    return trace.freeze()


def standardize_block(task: Task, limits: Bounds, rows: int) -> Block:
    """(x - mean) / deviation, rounded to the design matrix's scale and masked anew."""
    trace = Trace(f"standardize {rows}", task.parties)
    bound = max(1.0, task.feature_bound)
    shape = (rows, task.columns)
    x = trace.input("features", shape, DATA_SCALE, bound, masked=True)
    mean = trace.input("mean", (task.features,), DATA_SCALE, bound * 1.01, masked=True)
    inverse = trace.input(
        "inverse_deviation",
        (task.features,),
        DEVIATION_SCALE,
        1.01 / sqrt(LEAST_VARIANCE),
        masked=True,
    )
    centred = x[:, : task.features] - mean
    scaled = (centred * inverse).at(FEATURE_SCALE).bounded(limits.any_feature)
    trace.output("features", _with_ones(task, scaled), FEATURE_SCALE, masked=True)
    return trace.freeze()


def identifiers_block(task: Task) -> Block:
    """Open one bit: whether all tables have the same column of identifiers (4 words a digest)."""
    trace = Trace("identifiers", task.parties)
    digests = [trace.words(f"{table.name}:identifiers", (1, 4)) for table in task.tables]
    same = concatenate([digest - digests[0] for digest in digests[1:]], axis=1)
    match = every(equals(same)).value()
    trace.reveal("identifiers match", match, effect="require")
    return trace.freeze()
