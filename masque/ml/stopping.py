"""Early stopping: the validation loss stays secret, one bit an epoch is opened.

After every epoch: has the mean loss fallen below the best by more than min_delta? If so it is the
new best and the count starts again, else the count goes up; once it reaches `patience`, the bit is
one. The loss after the first epoch is always the best so far.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from masque.ml import models, rows
from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, room
from masque.ml.preparation import DESIGN, LABELS
from masque.ml.scores import Scores
from masque.ml.task import EarlyStop, Task
from masque.mpc.functions import less, where
from masque.mpc.graph import Block, Kind
from masque.mpc.program import Call, Opening, Ref, Register
from masque.mpc.public import public_array
from masque.mpc.trace import Trace
from masque.mpc.types import Array


def bit_name(epoch: int) -> str:
    """Name of the bit that is opened after `epoch` (0, 1, ...)."""
    return f"stop after epoch {epoch + 1}"


class Stopping:
    """The registers, openings and calls of early stopping. Blocks are traced once a shape."""

    def __init__(self, task: Task, rule: EarlyStop, scores: Scores, feature: float) -> None:
        self.task, self.rule, self.scores, self.feature = task, rule, scores, feature
        self.bound = models.loss_bound(task.kind, scores.bound, task.classes)
        self.bound *= task.validation_rows
        largest = 4 * self.bound + rule.min_delta * task.validation_rows
        self.scale = room(largest, 0, DATA_SCALE, "a sum of losses")
        chosen = rows.split(task)[1]
        self._pieces = [chosen[piece] for piece in rows.chunks(chosen.size, scores.columns)]
        self._losses = {size: self._loss_block(size) for size in {p.size for p in self._pieces}}
        self._decision = self._decision_block()

    @property
    def count(self) -> int:
        """Calls after an epoch."""
        return len(self._pieces) + 2

    def registers(self) -> dict[str, Register]:
        """The loss after this epoch, the best so far, epochs since that, and the bit."""
        names = ("validation loss", "best loss", "epochs since best", "stop bit")
        return {name: Register((1,), Kind.SHARE) for name in names}

    def openings(self) -> tuple[Opening, ...]:
        """One bit an epoch, which tells the coordinator to stop.

        The dealer is not told, but it can see how fast the material it still sends is taken.
        """
        to = ("parties", "coordinator", "dealer")
        epochs = range(len(self.task.learning_rates))
        return tuple(Opening(bit_name(epoch), 1, to) for epoch in epochs)

    def losses(self) -> Iterator[Call]:
        """Sum the losses of the validation rows."""
        total = {"total": Ref("validation loss")}
        for number, piece in enumerate(self._pieces):
            inputs = {"X": Ref(DESIGN, piece), "y": Ref(LABELS, piece), **self.scores.inputs()}
            keep = {"keep": np.array(number > 0, dtype=np.uint64)}
            outputs = total | self.scores.outputs()
            yield Call(self._losses[piece.size], inputs | total, keep, outputs)

    def decision(self, epoch: int) -> Iterator[Call]:
        """Decide by what `losses` found, open the bit."""
        total = {"total": Ref("validation loss")}
        state = {"best": Ref("best loss"), "since": Ref("epochs since best")}
        stop = {"stop": Ref("stop bit")}
        yield Call(self._decision, state | total, self._allowance(epoch), state | stop)
        yield Call(self._opening_block(epoch), stop)

    def _loss_block(self, count: int) -> Block:
        """The losses of some rows, added to the total, which is dropped first if `keep` is 0."""
        task = self.task
        trace = Trace(f"validation of {count}", task.parties)
        X = trace.input("X", (count, task.columns), FEATURE_SCALE, self.feature, masked=True)
        y = trace.input("y", (count, task.classes), DATA_SCALE, 1.0)
        total = trace.input("total", (1,), self.scale, self.bound)
        y = y if task.kind == "linear" else models.exact(y)
        losses = models.loss(task.kind, self.scores.of(trace, X), y).sum().reshape(1).at(self.scale)
        total = total * trace.argument("keep", (), 0, 1.0) + losses
        trace.output("total", total.bounded(self.bound), self.scale)
        return trace.freeze()

    def _allowance(self, epoch: int) -> dict[str, Array]:
        """What the best is raised by, so that the loss after the first epoch beats none at all."""
        return {"allowance": public_array(0.0 if epoch else self.bound, self.scale)}

    def _decision_block(self) -> Block:
        """See the module docstring."""
        trace = Trace("early stopping", self.task.parties)
        rule, bound = self.rule, self.bound
        loss = trace.input("total", (1,), self.scale, bound)
        best = trace.input("best", (1,), self.scale, bound)
        since = trace.input("since", (1,), 0, float(rule.patience))
        best = (best + trace.argument("allowance", (), self.scale, bound)).bounded(bound)
        improved = less(loss - best + rule.min_delta * self.task.validation_rows)
        since = (~improved).times(since + 1).bounded(float(rule.patience))  # else it has stopped
        trace.output("best", where(improved, loss, best).bounded(bound), self.scale)
        trace.output("since", since, 0)
        trace.output("stop", (~less(since, float(rule.patience))).value(), 0)
        return trace.freeze()

    def _opening_block(self, epoch: int) -> Block:
        trace = Trace(bit_name(epoch), self.task.parties)
        trace.reveal(bit_name(epoch), trace.input("stop", (1,), 0, 1.0), effect="stop")
        return trace.freeze()
