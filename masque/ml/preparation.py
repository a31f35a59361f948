"""The first training rounds: every table is read, once or twice, and becomes the design matrix.

    prepare                as it is, rounded; or, to standardise it:
    prepare: sums          means of the columns
    prepare: spread        deviations of the columns; the rows are masked
    prepare: standardize   rows scaled

If the tables are joined by columns and have identifiers, the very first call compares these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np

from masque.ml import preprocess, rows
from masque.ml.bounds import DATA_SCALE, RowBounds
from masque.ml.task import Table, Task
from masque.mpc.graph import Kind
from masque.mpc.program import Call, Input, Opening, Ref, Register, TrainingRound
from masque.mpc.types import Array

IDENTIFIERS = Opening("identifiers match", 1, ("parties", "coordinator", "dealer"))
MOMENTS = ("mean", "inverse_deviation")
DESIGN, LABELS = "design matrix", "all labels"
"""Registers. All have a space or a colon in their names, which no data set has."""


def column_register(measure: str) -> str:
    """The register of a measure of every column."""
    return f"column {measure}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are read at once: `rows` of each of `tables`, `place` in the design matrix."""

    tables: tuple[Table, ...]
    rows: slice
    place: slice

    @property
    def count(self) -> int:
        """How many rows."""
        return int(self.rows.stop - self.rows.start)


class Preparation:
    """Registers, inputs and training rounds of the preparation of a task."""

    def __init__(self, task: Task, limits: RowBounds) -> None:
        self.task = task
        self._plain = cache(partial(preprocess.plain_block, task, limits))
        self._sums = cache(partial(preprocess.sums_block, task))
        self._spread = cache(partial(preprocess.spread_block, task))
        self._standardize = cache(partial(preprocess.standardize_block, task, limits))
        self._mean = cache(partial(preprocess.mean_block, task))
        self._deviation = cache(partial(preprocess.deviation_block, task))
        self._identifiers = cache(partial(preprocess.identifiers_block, task))

    def registers(self) -> dict[str, Register]:
        """The design matrix, masked, and the labels; what standardisation measures."""
        task, columns = self.task, (self.task.features,)
        found = {
            DESIGN: Register((task.rows, task.columns), Kind.MASKED),
            LABELS: Register((task.rows, task.classes), Kind.SHARE),
        }
        if task.standardize:
            found |= {
                column_register(name): Register(columns, Kind.SHARE) for name in ("sums", "squares")
            }
            found |= {column_register(name): Register(columns, Kind.MASKED) for name in MOMENTS}
        return found

    def inputs(self) -> dict[str, Input]:
        """The tables, and their digests of identifiers where these are to be compared."""
        found = {
            table.name: Input(table.name, table.rows, table.features + table.labels, DATA_SCALE)
            for table in self.task.tables
        }
        if self.task.identifiers:
            for table in self.task.tables:
                found[f"{table.name}:identifiers"] = Input(table.name, 1, 4, 0)
        return found

    def rounds(self) -> Iterator[TrainingRound]:
        """One, or three to standardise."""
        chunks, first = len(self._chunks), int(self.task.identifiers)
        if not self.task.standardize:
            yield _round("prepare", self._once(self._plain_calls), chunks + first)
            return
        yield _round("prepare: sums", self._once(self._sum_calls), chunks + 1 + first)
        yield _round("prepare: spread", self._spread_calls, chunks + 1)
        yield _round("prepare: standardize", self._standardize_calls, chunks)

    # -- calls -----------------------------------------------------------------------------------

    def _once(self, calls: Callable[[], Iterator[Call]]) -> Callable[[], Iterator[Call]]:
        """The calls of the first round, after the identifiers are compared if they have to be."""

        def first() -> Iterator[Call]:
            if self.task.identifiers:
                block = self._identifiers()
                yield Call(block, {name: Ref(name) for name in block.inputs})
            yield from calls()

        return first

    def _plain_calls(self) -> Iterator[Call]:
        for chunk in self._chunks:
            block = self._plain(chunk.tables, chunk.count)
            outputs = {"features": Ref(DESIGN, chunk.place), "labels": Ref(LABELS, chunk.place)}
            yield Call(block, self._read(chunk), {}, outputs)

    def _sum_calls(self) -> Iterator[Call]:
        sums = {"sums": Ref(column_register("sums"))}
        for chunk in self._chunks:
            block = self._sums(chunk.tables, chunk.count)
            outputs = sums | {"labels": Ref(LABELS, chunk.place)}
            yield Call(block, self._read(chunk) | sums, self._measure(chunk), outputs)
        yield Call(self._mean(), sums, {}, {"mean": Ref(column_register("mean"))})

    def _spread_calls(self) -> Iterator[Call]:
        squares, mean = (
            {"squares": Ref(column_register("squares"))},
            {"mean": Ref(column_register("mean"))},
        )
        for chunk in self._chunks:
            block = self._spread(chunk.tables, chunk.count)
            inputs = self._read(chunk) | squares | mean
            outputs = squares | {"features": Ref(DESIGN, chunk.place)}
            yield Call(block, inputs, self._measure(chunk), outputs)
        outputs = {"inverse_deviation": Ref(column_register("inverse_deviation"))}
        yield Call(self._deviation(), squares, {}, outputs)

    def _standardize_calls(self) -> Iterator[Call]:
        moments = {name: Ref(column_register(name)) for name in MOMENTS}
        for chunk in self._chunks:
            features = {"features": Ref(DESIGN, chunk.place)}
            yield Call(self._standardize(chunk.count), features | moments, {}, features)

    @cached_property
    def _chunks(self) -> list[Chunk]:
        """Stacked tables one after the other, joined ones side by side."""
        task = self.task
        groups = [(table,) for table in task.tables] if task.stacked else [task.tables]
        found, start = [], 0
        for tables in groups:
            for part in rows.chunks(tables[0].rows, task.columns):
                place = slice(start + part.start, start + part.stop)
                found.append(Chunk(tables, part, place))
            start += tables[0].rows
        return found

    @staticmethod
    def _read(chunk: Chunk) -> dict[str, Ref]:
        return {preprocess.rows_of(t): Ref(t.name, chunk.rows) for t in chunk.tables}

    def _measure(self, chunk: Chunk) -> dict[str, Array]:
        return {"measured": self._measured[chunk.place].reshape(-1, 1)}

    @cached_property
    def _measured(self) -> Array:
        """1 for every row that is not held out."""
        measured = np.ones(self.task.rows, dtype=np.uint64)
        measured[rows.split(self.task)[0]] = 0
        return measured


def _round(name: str, calls: Callable[[], Iterator[Call]], count: int) -> TrainingRound:
    return TrainingRound(name, calls, count, prepares=True)
