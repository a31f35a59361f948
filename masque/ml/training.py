"""From a task to a program: registers, blocks, and the order in which they are called.

    prepare     sums, means, spread, deviations, standardised rows (or rounded rows); chunk by chunk
    epochs      a step a mini-batch; with early stopping, the validation loss and one opened bit
    evaluate    the final weights, scores of the held-out rows, the metrics
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from masque.ml import descent, evaluation, preprocess, rows, stopping
from masque.ml.bounds import Bounds, bounds
from masque.ml.task import ALL, Table, Task
from masque.mpc.graph import Block, Kind
from masque.mpc.program import (
    Call,
    Input,
    Opening,
    Output,
    Program,
    Ref,
    Register,
    TrainingRound,
)
from masque.mpc.types import Array


def build(task: Task) -> Program:
    """The program of a task. Errors: RangeError, SpecError if it cannot be done in the ring."""
    return _Builder(task).program()


class _Builder:
    """Blocks are traced once a shape; calls are made anew whenever a round is walked through."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.limits: Bounds = bounds(task)
        self.step_block = lru_cache(maxsize=None)(
            lambda batch: descent.step_block(task, self.limits, batch)
        )
        self._prepare_block = lru_cache(maxsize=None)(self._make_prepare_block)
        self.evaluation = evaluation.Evaluation(task, self.limits)
        self.stopping = stopping.Stopping(task, self.limits) if task.early_stop else None

    def program(self) -> Program:
        """All of it."""
        task = self.task
        rounds = [*self._prepare_rounds(), *self._epoch_rounds()]
        final = list(self.evaluation.calls())
        name = "evaluate" if task.metrics else "finish"
        rounds.append(TrainingRound(name, lambda: final, len(final)))
        return Program(
            name=task.name,
            parties=task.parties,
            registers=self.registers,
            inputs=self._inputs(),
            rounds=tuple(rounds),
            outputs=self.outputs,
            openings=self._openings(),
        )

    @cached_property
    def registers(self) -> dict[str, Register]:
        """Everything that is kept between calls."""
        task, shape = self.task, (self.task.columns, self.task.classes)
        found = {
            "features": Register((task.rows, task.columns), Kind.MASKED),
            "labels": Register((task.rows, task.classes), Kind.SHARE),
            "weights": Register(shape, Kind.SHARE),
            "velocity": Register(shape, Kind.SHARE),
        }
        if task.standardize:
            for name in ("sums", "squares"):
                found[name] = Register((task.features,), Kind.SHARE)
            for name in ("mean", "inverse_deviation"):
                found[name] = Register((task.features,), Kind.MASKED)
        if self.stopping:
            found |= self.stopping.registers()
        return found | self.evaluation.registers()

    @cached_property
    def outputs(self) -> dict[str, Output]:
        """What leaves the program as shares."""
        return self.evaluation.outputs(self.registers)

    def _inputs(self) -> dict[str, Input]:
        found = {
            t.name: Input(t.name, t.rows, t.features + t.labels, preprocess.DATA_SCALE)
            for t in self.task.tables
        }
        if self.task.identifiers:
            for t in self.task.tables:
                found[f"{t.name}:identifiers"] = Input(t.name, 1, 4, 0)
        return found

    def _openings(self) -> tuple[Opening, ...]:
        found = []
        if self.task.identifiers:
            found.append(Opening("identifiers match", 1, ("parties",)))
        if self.task.early_stop:
            for epoch in range(len(self.task.learning_rates)):
                found.append(Opening(stopping.bit_name(epoch), 1, ("parties", "coordinator")))
        for name, output in self.outputs.items():
            if output.to == ALL:
                found.append(Opening(name, 64 * int(np.prod(output.shape)), ALL))
        return tuple(found)

    # -- prepare ---------------------------------------------------------------------------------

    def _prepare_rounds(self) -> Iterator[TrainingRound]:
        passes = ["sums", "spread", "standardize"] if self.task.standardize else ["plain"]
        for number, name in enumerate(passes):
            label = "prepare" if len(passes) == 1 else f"prepare: {name}"
            count = sum(1 for _ in self._pass_calls(name, number == 0))
            yield TrainingRound(label, self._pass(name, number == 0), count)

    def _pass(self, name: str, first: bool) -> Callable[[], Iterator[Call]]:
        return lambda: self._pass_calls(name, first)

    def _pass_calls(self, name: str, first: bool) -> Iterator[Call]:
        if first and self.task.identifiers:
            block = self._prepare_block("identifiers", 0, 0)
            inputs = {key: Ref(key) for key in block.inputs}
            yield Call(block, inputs)
        for group, (tables, start, count) in enumerate(self._groups()):
            for chunk in rows.chunks(count, self.task.columns):
                yield self._chunk_call(name, group, tables, start, chunk)
        if name == "sums":
            yield self._simple("mean", {"sums": "sums"}, {"mean": "mean"})
        if name == "spread":
            inputs, outputs = {"squares": "squares"}, {"inverse_deviation": "inverse_deviation"}
            yield self._simple("deviation", inputs, outputs)

    def _groups(self) -> Iterator[tuple[tuple[Table, ...], int, int]]:
        """Tables read together, their first row in the design matrix, and their rows."""
        if not self.task.stacked:
            yield self.task.tables, 0, self.task.rows
            return
        start = 0
        for table in self.task.tables:
            yield (table,), start, table.rows
            start += table.rows

    def _simple(self, name: str, inputs: dict[str, str], outputs: dict[str, str]) -> Call:
        block = self._prepare_block(name, 0, 0)
        return Call(
            block,
            {key: Ref(value) for key, value in inputs.items()},
            {},
            {key: Ref(value) for key, value in outputs.items()},
        )

    def _chunk_call(
        self, name: str, group: int, tables: Sequence[Table], start: int, chunk: slice
    ) -> Call:
        block = self._prepare_block(name, group, chunk.stop - chunk.start)
        place = slice(start + chunk.start, start + chunk.stop)
        inputs = {table.name: Ref(table.name, chunk) for table in tables}
        arguments: dict[str, Array] = {}
        outputs = {"labels": Ref("labels", place)}
        if name == "plain":
            outputs["features"] = Ref("features", place)
        elif name == "sums":
            inputs["sums"] = outputs["sums"] = Ref("sums")
        elif name == "spread":
            inputs |= {"squares": Ref("squares"), "mean": Ref("mean")}
            outputs = {"features": Ref("features", place), "squares": Ref("squares")}
        else:
            inputs = {key: Ref(key) for key in ("mean", "inverse_deviation")}
            inputs["features"] = Ref("features", place)
            outputs = {"features": Ref("features", place)}
        if name in ("sums", "spread"):
            arguments["measured"] = self._measured[place].reshape(-1, 1)
        return Call(block, inputs, arguments, outputs)

    @cached_property
    def _measured(self) -> Array:
        """1 for every row that is not held out."""
        measured = np.ones(self.task.rows, dtype=np.uint64)
        measured[rows.holdout(self.task)] = 0
        return measured

    def _make_prepare_block(self, name: str, group: int, count: int) -> Block:
        task = self.task
        tables = list(self._groups())[group][0]
        match name:
            case "plain":
                return preprocess.plain_block(task, tables, count)
            case "sums":
                return preprocess.sums_block(task, tables, count)
            case "spread":
                return preprocess.spread_block(task, tables, count)
            case "standardize":
                return preprocess.standardize_block(task, self.limits, count)
            case "mean":
                return preprocess.mean_block(task)
            case "deviation":
                return preprocess.deviation_block(task)
        assert name == "identifiers"
        return preprocess.identifiers_block(task)

    # -- epochs ----------------------------------------------------------------------------------

    def _epoch_rounds(self) -> Iterator[TrainingRound]:
        task = self.task
        batches = rows.batch_count(task)
        size = min(batches, task.batches_per_round or batches)
        for epoch in range(len(task.learning_rates)):
            for start in range(0, batches, size):
                stop = min(batches, start + size)
                yield self._epoch_round(epoch, start, stop, batches)

    def _epoch_round(self, epoch: int, start: int, stop: int, batches: int) -> TrainingRound:
        whole = start == 0 and stop == batches
        name = f"epoch {epoch + 1}" + ("" if whole else f", batches {start + 1}-{stop}")
        last = stop == batches
        count = stop - start + (self.stopping.count if self.stopping and last else 0)

        def calls() -> Iterator[Call]:
            for number, batch in enumerate(rows.batches(self.task, epoch)):
                if start <= number < stop:
                    yield self._step(epoch, batch)
            if self.stopping and last:
                yield from self.stopping.calls(epoch)

        return TrainingRound(name, calls, count, skippable=self.stopping is not None)

    def _step(self, epoch: int, batch: rows.Rows) -> Call:
        task, rate = self.task, self.task.learning_rates[epoch]
        factors = descent.rates(task, batch.size)
        arguments = {"rate": factors["rate"].value(rate / batch.size)}
        if "shrink" in factors:
            arguments["shrink"] = factors["shrink"].value(rate * task.l2)
        state = {"w": Ref("weights"), "velocity": Ref("velocity")}
        inputs = {"X": Ref("features", batch), "y": Ref("labels", batch), **state}
        return Call(self.step_block(batch.size), inputs, arguments, state)


