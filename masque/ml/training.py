"""From a task to a program: what is kept, what is opened, and the rounds in their order.

prepare      tables become the masked design matrix      masque.ml.preparation
epoch 1 ...  a step a mini-batch                         masque.ml.descent
             validation loss and one opened bit          masque.ml.stopping
evaluate     final weights, held-out scores, metrics     masque.ml.evaluation
"""

from __future__ import annotations

from collections.abc import Iterator

from masque.errors import RangeError, SpecError
from masque.ml import rows
from masque.ml.bounds import bounds
from masque.ml.descent import Descent
from masque.ml.evaluation import Evaluation
from masque.ml.preparation import IDENTIFIERS, Preparation
from masque.ml.stopping import Stopping
from masque.ml.task import Task
from masque.mpc.program import Call, Program, TrainingRound

MOST_CLASSES = 64


def build(task: Task) -> Program:
    """The program of a task; all its blocks are traced here.

    Errors: RangeError where a value could leave the ring, SpecError for classes or held-out rows
    that are too many; both name the field of the job to change.
    """
    if task.classes > MOST_CLASSES:
        raise SpecError(
            f"every pair of classes is compared, and {task.classes} classes are too many.",
            hint=f"Merge classes, so that there are at most {MOST_CLASSES}.",
            field="data.label",
        )
    try:
        return _Training(task).program()
    except RangeError as error:
        if "field" in error.where:
            raise
        hint = "Lower model.weight_bound or training.batch_size, or give columns smaller ranges."
        raise RangeError(error.message, hint=hint, field="model.weight_bound") from error


class _Training:
    """The parts of a task's program."""

    def __init__(self, task: Task) -> None:
        limits = bounds(task)
        rule = task.early_stop
        self.task = task
        self.preparation = Preparation(task, limits)
        self.descent = Descent(task, limits)
        self.stopping = Stopping(task, rule, limits) if rule else None
        self.evaluation = Evaluation(task, limits)

    def program(self) -> Program:
        """All of it."""
        parts = (self.preparation, self.descent, self.stopping, self.evaluation)
        first, last = list(self.preparation.rounds()), self._evaluate()
        for training_round in (*first, last):
            assert sum(1 for _ in training_round.calls()) == training_round.count
        return Program(
            name=self.task.name,
            parties=self.task.parties,
            registers={n: r for part in parts if part for n, r in part.registers().items()},
            inputs=self.preparation.inputs(),
            rounds=(*first, *self._epochs(), last),
            outputs=self.evaluation.outputs(),
            openings=(
                *((IDENTIFIERS,) if self.task.identifiers else ()),
                *(self.stopping.openings() if self.stopping else ()),
                *self.evaluation.openings(),
            ),
        )

    def _epochs(self) -> Iterator[TrainingRound]:
        """An epoch is a round, or several of `batches_per_round` each."""
        batches = rows.batch_count(self.task)
        size = min(batches, self.task.batches_per_round or batches)
        for epoch in range(len(self.task.learning_rates)):
            for start in range(0, batches, size):
                yield self._epoch(epoch, start, min(batches, start + size), batches)

    def _epoch(self, epoch: int, start: int, stop: int, batches: int) -> TrainingRound:
        """Mini-batches `start` to `stop` - 1; after the last of the epoch, whether to stop."""
        name = f"epoch {epoch + 1}"
        if stop - start < batches:
            name += f", batches {start + 1}-{stop}"
        stopping = self.stopping if stop == batches else None

        def calls() -> Iterator[Call]:
            yield from self.descent.calls(epoch, start, stop)
            if stopping:
                yield from stopping.calls(epoch)

        count = stop - start + (stopping.count if stopping else 0)
        return TrainingRound(name, calls, count, skippable=self.stopping is not None)

    def _evaluate(self) -> TrainingRound:
        name, calls = "evaluate" if self.task.metrics else "finish", list(self.evaluation.calls())
        return TrainingRound(name, lambda: calls, len(calls))
