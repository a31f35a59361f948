"""The last training round: the final weights, held-out scores, metrics, and what is handed out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import numpy as np

from masque.ml import metrics, rows
from masque.ml.bounds import DATA_SCALE
from masque.ml.outcome import Outcome
from masque.ml.preparation import DESIGN, LABELS, MOMENTS, column_register
from masque.ml.preprocess import DEVIATION_SCALE, in_raw_units
from masque.ml.task import ALL, Task
from masque.mpc.graph import Block, Kind
from masque.mpc.program import Call, Opening, Output, Ref, Register
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace


class Evaluation:
    """Registers, outputs, openings and calls of the last round of a task."""

    def __init__(self, task: Task, outcome: Outcome, held_out: float) -> None:
        self.task, self.outcome, self.scores = task, outcome, outcome.scores
        bound = outcome.scores.bound if task.metrics else 0.0
        self._totals = metrics.totals(task, bound)
        self._score = cache(lambda n: metrics.score_block(task, n, held_out, outcome.scores))
        self._add = cache(partial(metrics.totals_block, task, score_bound=bound))
        self._pairs = cache(partial(metrics.pairs_block, task, score_bound=bound))

    def registers(self) -> dict[str, Register]:
        """The outputs; where there are metrics, held-out scores and labels, and totals."""
        task = self.task
        found = {
            output.register: Register(output.shape, Kind.SHARE)
            for output in self.outputs().values()
        }
        if task.metrics:
            held = (task.holdout_rows, task.classes)
            found |= self.outcome.registers()
            found["held-out scores"] = Register(held, Kind.MASKED)
            found["held-out labels"] = Register(held, Kind.MASKED)
            for total in self._totals.values():
                found[f"total:{total.name}"] = Register(total.shape, Kind.SHARE)
        return found

    def outputs(self) -> dict[str, Output]:
        """The model's parts to its recipients, the metrics to theirs."""
        task, columns = self.task, (self.task.features,)
        parts = self.outcome.parts()
        if task.standardize:
            parts["mean"] = (columns, DATA_SCALE)
            parts["inverse_deviation"] = (columns, DEVIATION_SCALE + max(task.units))
        found = {
            name: Output(f"model:{name}", shape, scale, task.model_to)
            for name, (shape, scale) in parts.items()
        }
        classes = max(2, task.classes)
        for metric in task.metrics:
            shape = (classes, classes) if metric == "confusion" else (1,)
            name = f"metric:{metric}"
            found[name] = Output(name, shape, metrics.METRIC_SCALE, task.metrics_to)
        return found

    def openings(self) -> tuple[Opening, ...]:
        """Outputs that are for everybody, and the checks of held-out rows."""
        checks = [name for call in self.outcome.checks() for name in opened_by(call)]
        return (
            *(Opening(name, 1, ("parties", "coordinator", "dealer")) for name in checks),
            *(
                Opening(name, 64 * int(np.prod(output.shape)), ALL)
                for name, output in self.outputs().items()
                if output.to == ALL
            ),
        )

    def _hand_out(self, trace: Trace, name: str, value: Secret) -> None:
        """Keep the shares of an output; open it as well if it is for everybody."""
        output = self.outputs()[name]
        value = value.at(output.scale)
        trace.output(output.register, value, output.scale)
        if output.to == ALL:
            trace.reveal(name, value)

    # -- calls -----------------------------------------------------------------------------------

    def calls(self) -> Iterator[Call]:
        """Everything of the last round, in order."""
        moments = MOMENTS if self.task.standardize else ()
        model = self._model_block()
        inputs = self.outcome.inputs() | {name: Ref(column_register(name)) for name in moments}
        yield Call(model, inputs, {}, {name: Ref(name) for name in model.outputs})
        if self.task.metrics:
            yield from self._metric_calls()

    def _model_block(self) -> Block:
        """Hand out the model's parts, and those of the preprocessing."""
        trace = Trace("model", self.task.parties)
        self.outcome.put_out(trace, self._hand_out)
        if self.task.standardize:
            for name, value in in_raw_units(trace, self.task).items():
                self._hand_out(trace, name, value)
        return trace.freeze()

    def _metric_calls(self) -> Iterator[Call]:
        task, held = self.task, rows.split(self.task)[0]
        for piece in rows.chunks(held.size, self.scores.columns):
            chosen = held[piece]
            inputs = {"X": Ref(DESIGN, chosen), "y": Ref(LABELS, chosen)} | self.scores.inputs()
            scored = {name: Ref(f"held-out {name}", piece) for name in ("scores", "labels")}
            yield Call(self._score(chosen.size), inputs, {}, scored | self.scores.outputs())
        yield from self.outcome.checks()
        summed = {name: Ref(f"total:{name}") for name in self._totals}
        by_row = {name: ref for name, ref in summed.items() if name != "pairs"}
        for piece in rows.chunks(held.size, max(64, task.classes**2)):
            yield Call(self._add(piece.stop - piece.start), _scored(piece) | by_row, {}, by_row)
        if "pairs" in summed:
            yield from self._pair_calls(summed["pairs"])
        block = self._metrics_block()
        yield Call(block, summed, {}, {name: Ref(name) for name in block.outputs})

    def _pair_calls(self, pairs: Ref) -> Iterator[Call]:
        """Some of the held-out rows at a time against all of them."""
        every = slice(0, self.task.holdout_rows)
        against = {f"all {name}": ref for name, ref in _scored(every).items()}
        size = max(1, metrics.AUC_PAIRS // every.stop)
        for start in range(0, every.stop, size):
            piece = slice(start, min(every.stop, start + size))
            inputs = _scored(piece) | against | {"pairs": pairs}
            yield Call(self._pairs(piece.stop - piece.start), inputs, {}, {"pairs": pairs})

    def _metrics_block(self) -> Block:
        """The metrics from the totals."""
        trace = Trace("metrics", self.task.parties)
        total = {name: total.input(trace) for name, total in self._totals.items()}
        for metric in self.task.metrics:
            self._hand_out(trace, f"metric:{metric}", metrics.of(self.task, metric, total))
        return trace.freeze()


def _scored(piece: slice) -> dict[str, Ref]:
    """Scores z and labels y of some held-out rows."""
    return {"z": Ref("held-out scores", piece), "y": Ref("held-out labels", piece)}


def opened_by(call: Call) -> list[str]:
    """Names of what a call opens to everybody."""
    return [str(node.params[0]) for node in call.block.nodes.values() if node.op == "reveal"]
