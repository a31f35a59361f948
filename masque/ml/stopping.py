"""Early stopping: the validation loss stays secret, one bit an epoch is opened.

After every epoch: has the mean loss fallen below the best by min_delta? If so it is the new best
and the count starts again, else the count goes up; once it reaches `patience`, the bit is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache

from masque.ml import models, rows
from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, Bounds, room
from masque.ml.task import Task
from masque.mpc.functions import less, where
from masque.mpc.graph import Block, Kind
from masque.mpc.program import Call, Ref, Register
from masque.mpc.secret import constant
from masque.mpc.trace import Trace


def bit_name(epoch: int) -> str:
    """Name of the bit that is opened after `epoch` (0, 1, ...)."""
    return f"stop after epoch {epoch + 1}"


class Stopping:
    """The calls after each epoch of a task with early stopping."""

    def __init__(self, task: Task, limits: Bounds) -> None:
        self.task, self.limits = task, limits
        self._pieces = list(rows.cut(rows.validation(task), task.columns))
        self.count = len(self._pieces) + 1
        self._loss_block = lru_cache(maxsize=None)(self._make_loss_block)

    @cached_property
    def row_bound(self) -> float:
        """The largest loss of one row."""
        task, limits = self.task, self.limits
        score = task.columns * limits.feature * limits.weight
        assert task.early_stop is not None
        if task.early_stop.metric == "squared_error":
            return (score + 1.01) ** 2
        return 2 * (score + 1) if task.kind == "logistic" else 16.0

    @cached_property
    def bound(self) -> float:
        """The largest sum of losses."""
        return self.row_bound * self.task.validation_rows

    @cached_property
    def scale(self) -> int:
        """Fraction bits of a sum of losses."""
        return room(2 * self.bound, 0, 24)

    def registers(self) -> dict[str, Register]:
        """The sum of this epoch, the best so far, and epochs since."""
        names = ("validation loss", "best loss", "epochs since best")
        return {name: Register((1,), Kind.SHARE) for name in names}

    def calls(self, epoch: int) -> Iterator[Call]:
        """Sum the losses of the validation rows, then decide."""
        total = Ref("validation loss")
        for number, piece in enumerate(self._pieces):
            inputs = {"X": Ref("features", piece), "y": Ref("labels", piece), "w": Ref("weights")}
            if number:
                inputs["total"] = total
            yield Call(self._loss_block(piece.size, number == 0), inputs, {}, {"total": total})
        state = {"best": Ref("best loss"), "since": Ref("epochs since best")}
        yield Call(self._decision(epoch), {"loss": total, **state}, {}, state)

    def _make_loss_block(self, count: int, first: bool) -> Block:
        task, limits = self.task, self.limits
        trace = Trace(f"validation of {count}", task.parties)
        x = trace.input("X", (count, task.columns), FEATURE_SCALE, limits.feature, masked=True)
        y = trace.input("y", (count, task.classes), DATA_SCALE, 1.0)
        w = trace.input("w", (task.columns, task.classes), limits.weight_scale, limits.weight)
        assert task.early_stop is not None
        losses = models.loss(task.kind, task.early_stop.metric, models.scores(x, w), y)
        total = losses.sum().reshape(1).at(self.scale).bounded(self.bound)
        if not first:
            total = (total + trace.input("total", (1,), self.scale, self.bound)).bounded(self.bound)
        trace.output("total", total, self.scale)
        return trace.freeze()

    def _decision(self, epoch: int) -> Block:
        """The block that opens the bit; at the first epoch any loss is the best."""
        task = self.task
        stop = task.early_stop
        assert stop is not None
        trace = Trace(bit_name(epoch), task.parties)
        loss = trace.input("loss", (1,), self.scale, self.bound)
        best = trace.input("best", (1,), self.scale, self.bound)
        since = trace.input("since", (1,), 0, 1.0 + epoch)
        if epoch == 0:
            best = best + constant(trace.graph, self.bound, self.scale)
        improved = less(loss - best + stop.min_delta * task.validation_rows)
        since = (~improved).times(since + 1).bounded(2.0 + epoch)
        best = where(improved, loss, best).bounded(self.bound)
        trace.reveal(bit_name(epoch), (~less(since, float(stop.patience))).value(), effect="stop")
        trace.output("best", best, self.scale)
        trace.output("since", since, 0)
        return trace.freeze()
