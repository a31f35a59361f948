"""The last training round: final weights, held-out scores, metrics, and what is handed out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache

from masque.ml import metrics, rows
from masque.ml.bounds import FEATURE_SCALE, Bounds, room
from masque.ml.task import ALL, Task
from masque.mpc.functions import clip
from masque.mpc.graph import Block, Kind
from masque.mpc.program import Call, Output, Ref, Register
from masque.mpc.trace import Trace


class Evaluation:
    """Registers, calls and outputs of the last round of a task."""

    def __init__(self, task: Task, limits: Bounds) -> None:
        self.task, self.limits = task, limits
        self._score_block = lru_cache(maxsize=None)(
            lambda count: metrics.score_block(
                task, count, limits.any_feature, self.weight_scale, task.weight_bound
            )
        )
        self._sums_block = lru_cache(maxsize=None)(
            lambda count: metrics.sums_block(task, count, self.score_bound)
        )
        self._pairs_block = lru_cache(maxsize=None)(
            lambda count: metrics.pairs_block(task, count, self.score_bound)
        )

    @cached_property
    def score_bound(self) -> float:
        """The largest score of a held-out row."""
        return self.task.columns * self.limits.any_feature * self.task.weight_bound

    @cached_property
    def weight_scale(self) -> int:
        """Fraction bits of the weights that held-out rows are scored with."""
        return room(self.score_bound, FEATURE_SCALE, self.limits.weight_scale)

    @cached_property
    def _sums(self) -> list[metrics.Sums]:
        return metrics.registers(self.task, self.score_bound)

    def registers(self) -> dict[str, Register]:
        """Final weights, held-out scores and labels, sums, metrics."""
        task = self.task
        shape = (task.columns, task.classes)
        found = {"final weights": Register(shape, Kind.SHARE)}
        if task.metrics:
            held = (task.holdout_rows, task.classes)
            found["held-out weights"] = Register(shape, Kind.MASKED)
            found["held-out scores"] = Register(held, Kind.MASKED)
            found["held-out labels"] = Register(held, Kind.MASKED)
            for sums in self._sums:
                found[f"sum:{sums.name}"] = Register(sums.shape, Kind.SHARE)
        for metric in task.metrics:
            found[f"metric:{metric}"] = Register(self._metric_shape(metric), Kind.SHARE)
        for name, part in self._model_parts().items():
            found[name] = part
        return found

    def _model_parts(self) -> dict[str, Register]:
        """The pieces of the model, cut out of the final weights."""
        task = self.task
        found = {"model weights": Register((task.features, task.classes), Kind.SHARE)}
        if task.intercept:
            found["model intercept"] = Register((task.classes,), Kind.SHARE)
        return found

    def _metric_shape(self, metric: str) -> tuple[int, ...]:
        classes = max(2, self.task.classes)
        return (classes, classes) if metric == "confusion" else (1,)

    def outputs(self, registers: dict[str, Register]) -> dict[str, Output]:
        """The model's parts to its recipients, the metrics to theirs."""
        from masque.ml.bounds import DATA_SCALE
        from masque.ml.preprocess import DEVIATION_SCALE

        task, scale = self.task, self.limits.weight_scale
        parts = {"weights": ("model weights", scale)}
        if task.intercept:
            parts["intercept"] = ("model intercept", scale)
        if task.standardize:
            parts["mean"] = ("mean", DATA_SCALE)
            parts["inverse_deviation"] = ("inverse_deviation", DEVIATION_SCALE)
        found = {
            name: Output(register, registers[register].shape, bits, task.model_to)
            for name, (register, bits) in parts.items()
        }
        for metric in task.metrics:
            name = f"metric:{metric}"
            shape = registers[name].shape
            found[name] = Output(name, shape, metrics.METRIC_SCALE, task.metrics_to)
        return found

    # -- calls -----------------------------------------------------------------------------------

    def calls(self) -> Iterator[Call]:
        """Everything of the last round, in order."""
        task = self.task
        outputs = {name: Ref(name) for name in ("final weights", *self._model_parts())}
        if task.metrics:
            outputs["held-out weights"] = Ref("held-out weights")
        yield Call(self._final_block(), {"w": Ref("weights")}, {}, outputs)
        if task.metrics:
            yield from self._metric_calls()
        yield from self._opening_calls()

    def _final_block(self) -> Block:
        """Limit the weights for good; cut out the model's parts."""
        task, limits = self.task, self.limits
        trace = Trace("final weights", task.parties)
        shape = (task.columns, task.classes)
        w = trace.input("w", shape, limits.weight_scale, limits.weight)
        final = clip(w, -task.weight_bound, task.weight_bound)
        trace.output("final weights", final, limits.weight_scale)
        trace.output("model weights", final[: task.features], limits.weight_scale)
        if task.intercept:
            trace.output("model intercept", final[task.features], limits.weight_scale)
        if task.metrics:
            trace.output("held-out weights", final, self.weight_scale, masked=True)
        return trace.freeze()

    def _metric_calls(self) -> Iterator[Call]:
        task = self.task
        held = rows.holdout(task)
        for piece in rows.chunks(held.size, task.columns):
            chosen = held[piece]
            inputs = {"X": Ref("features", chosen), "y": Ref("labels", chosen)}
            inputs["w"] = Ref("held-out weights")
            outputs = {"scores": Ref("held-out scores", piece)}
            outputs["labels"] = Ref("held-out labels", piece)
            yield Call(self._score_block(chosen.size), inputs, {}, outputs)
        sums = {s.name: Ref(f"sum:{s.name}") for s in self._sums}
        chunked = {name: ref for name, ref in sums.items() if name != "pairs"}
        if chunked:
            for piece in rows.chunks(held.size, max(task.columns, 64)):
                inputs = {"z": Ref("held-out scores", piece), "y": Ref("held-out labels", piece)}
                block = self._sums_block(piece.stop - piece.start)
                yield Call(block, inputs | chunked, {}, chunked)
        if "pairs" in sums:
            yield from self._pair_calls(sums["pairs"])
        block = metrics.finish_block(task, self.score_bound)
        yield Call(block, sums, {}, {name: Ref(name) for name in block.outputs})

    def _pair_calls(self, total: Ref) -> Iterator[Call]:
        every = self.task.holdout_rows
        size = max(1, metrics.AUC_BLOCK // every)
        for start in range(0, every, size):
            piece = slice(start, min(every, start + size))
            inputs = {
                "z": Ref("held-out scores", piece),
                "y": Ref("held-out labels", piece),
                "all z": Ref("held-out scores"),
                "all y": Ref("held-out labels"),
                "pairs": total,
            }
            yield Call(self._pairs_block(piece.stop - piece.start), inputs, {}, {"pairs": total})

    def _opening_calls(self) -> Iterator[Call]:
        """Open to all what was promised to all."""
        opened = {n: o for n, o in self.outputs(self.registers_all()).items() if o.to == ALL}
        if opened:
            trace = Trace("open", self.task.parties)
            for name, output in opened.items():
                masked = output.register in ("mean", "inverse_deviation")
                value = trace.input(name, output.shape, output.scale, 2.0**20, masked=masked)
                trace.reveal(name, value)
            yield Call(trace.freeze(), {n: Ref(o.register) for n, o in opened.items()})

    def registers_all(self) -> dict[str, Register]:
        """The registers outputs may refer to, those of standardisation included."""
        found = self.registers()
        if self.task.standardize:
            for name in ("mean", "inverse_deviation"):
                found[name] = Register((self.task.features,), Kind.MASKED)
        return found
