"""The last training round: the final weights, held-out scores, metrics, and what is handed out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import numpy as np

from masque.ml import metrics, rows
from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, Bounds, room
from masque.ml.descent import WEIGHTS
from masque.ml.preparation import DESIGN, LABELS, MOMENTS, column_register
from masque.ml.preprocess import DEVIATION_SCALE, in_raw_units
from masque.ml.task import ALL, Task
from masque.mpc.functions import clip
from masque.mpc.graph import Block, Kind
from masque.mpc.program import Call, Opening, Output, Ref, Register
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from masque.mpc.types import Shape


class Evaluation:
    """Registers, outputs, openings and calls of the last round of a task."""

    def __init__(self, task: Task, limits: Bounds) -> None:
        self.task, self.limits = task, limits
        self.score_bound = task.columns * limits.held_out * task.weight_bound
        self.weight_scale = room(self.score_bound, FEATURE_SCALE, limits.weight_scale, "a score")
        self._totals = metrics.totals(task, self.score_bound)
        weights = (self.weight_scale, task.weight_bound)
        self._score = cache(lambda n: metrics.score_block(task, n, limits.held_out, weights))
        self._add = cache(partial(metrics.totals_block, task, score_bound=self.score_bound))
        self._pairs = cache(partial(metrics.pairs_block, task, score_bound=self.score_bound))

    def registers(self) -> dict[str, Register]:
        """The outputs; where there are metrics, held-out scores and labels, and totals."""
        task = self.task
        found = {
            output.register: Register(output.shape, Kind.SHARE)
            for output in self.outputs().values()
        }
        if task.metrics:
            held = (task.holdout_rows, task.classes)
            found["held-out weights"] = Register(task.shape, Kind.MASKED)
            found["held-out scores"] = Register(held, Kind.MASKED)
            found["held-out labels"] = Register(held, Kind.MASKED)
            for total in self._totals.values():
                found[f"total:{total.name}"] = Register(total.shape, Kind.SHARE)
        return found

    def outputs(self) -> dict[str, Output]:
        """The model's parts to its recipients, the metrics to theirs."""
        task, columns = self.task, (self.task.features,)
        parts: dict[str, tuple[Shape, int]] = {
            "weights": ((task.features, task.classes), self.limits.weight_scale)
        }
        if task.intercept:
            parts["intercept"] = ((task.classes,), self.limits.weight_scale)
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
        """Outputs that are for everybody."""
        return tuple(
            Opening(name, 64 * int(np.prod(output.shape)), ALL)
            for name, output in self.outputs().items()
            if output.to == ALL
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
        inputs = {"weights": Ref(WEIGHTS)} | {name: Ref(column_register(name)) for name in moments}
        yield Call(model, inputs, {}, {name: Ref(name) for name in model.outputs})
        if self.task.metrics:
            yield from self._metric_calls()

    def _model_block(self) -> Block:
        """Limit the weights for good, and hand out the model's parts."""
        task, limits = self.task, self.limits
        trace = Trace("model", task.parties)
        w = trace.input("weights", task.shape, limits.weight_scale, limits.weight)
        final = clip(w, -task.weight_bound, task.weight_bound)
        self._hand_out(trace, "weights", final[: task.features])
        if task.intercept:
            self._hand_out(trace, "intercept", final[task.features])
        if task.standardize:
            for name, value in in_raw_units(trace, task).items():
                self._hand_out(trace, name, value)
        if task.metrics:
            trace.output("held-out weights", final, self.weight_scale, masked=True)
        return trace.freeze()

    def _metric_calls(self) -> Iterator[Call]:
        task, held = self.task, rows.split(self.task)[0]
        for piece in rows.chunks(held.size, task.columns):
            chosen = held[piece]
            inputs = {"X": Ref(DESIGN, chosen), "y": Ref(LABELS, chosen)}
            scored = {name: Ref(f"held-out {name}", piece) for name in ("scores", "labels")}
            weights = {"w": Ref("held-out weights")}
            yield Call(self._score(chosen.size), inputs | weights, {}, scored)
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
