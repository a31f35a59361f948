"""From a task to a program: what is kept, what is opened, and the rounds in their order.

prepare      tables become the masked design matrix      masque.ml.preparation
start        parameters of a network are set             masque.ml.learning
epoch 1 ...  a step a mini-batch                         masque.ml.descent, .learning
             validation loss                             masque.ml.stopping
             whether a network kept within its bounds    masque.ml.learning
             one opened bit, whether to stop             masque.ml.stopping
evaluate     final weights, held-out scores, metrics     masque.ml.evaluation
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from masque.errors import RangeError, SpecError
from masque.ml import rows
from masque.ml.bounds import Bounds, RowBounds, bounds, row_bounds
from masque.ml.descent import WEIGHTS, Descent
from masque.ml.evaluation import Evaluation
from masque.ml.learning import CHECKS, Learning, NetworkScores, bounds_name
from masque.ml.outcome import LinearOutcome, NetworkOutcome, Outcome
from masque.ml.preparation import IDENTIFIERS, Preparation
from masque.ml.privacy import check_rates, release
from masque.ml.scores import LinearScores, Scores
from masque.ml.stopping import Stopping
from masque.ml.task import Task
from masque.mpc.program import Call, Program, Release, TrainingRound

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
    if task.privacy:
        refuse_unprivate(task)
        check_rates(task)
    if task.network:
        task = replace(task, intercept=False)  # a layer has its own
    try:
        return _Training(task).program()
    except RangeError as error:
        if "field" in error.where:
            raise
        hint = "Lower model.weight_bound or training.batch_size, or give columns smaller ranges."
        raise RangeError(error.message, hint=hint, field="model.weight_bound") from error


def refuse_unprivate(task: Task) -> None:
    """SpecError for what would tell of rows without noise; `masque.jobs.rules` says it nicer."""
    for field, told in (
        ("model.kind", task.network is not None),
        ("data.standardize", task.standardize),
        ("reveal.metrics", bool(task.metrics)),
        ("training.early_stop", task.early_stop is not None),
        ("training.optimizer.momentum", task.momentum > 0),
        ("data.columns", task.identifiers),
    ):
        if told:
            raise SpecError(
                f"{field} does not go with privacy.", hint="See docs/privacy.md.", field=field
            )


class _Training:
    """The parts of a task's program."""

    def __init__(self, task: Task) -> None:
        self.task = task
        within = row_bounds(task) if task.network else bounds(task)
        self.preparation = Preparation(task, within)
        self.learning = Learning(task, within) if task.network else None
        self.release: Release | None = None
        scores, outcome = self._descent(within)
        rule = task.early_stop
        self.stopping = Stopping(task, rule, scores, within.feature) if rule else None
        self.evaluation = Evaluation(task, outcome, within.held_out)

    def _descent(self, within: RowBounds) -> tuple[Scores, Outcome]:
        """What trains, how rows that are not held out are scored, and what comes of it."""
        if self.learning:
            self.descent: Learning | Descent = self.learning
            held_out = NetworkOutcome(self.learning, within.held_out)
            return NetworkScores(self.learning, within.feature), held_out
        assert isinstance(within, Bounds)
        self.descent = Descent(self.task, within)
        if self.task.privacy:
            self.release = release(self.task, within, self.descent.factors)
        columns, classes = self.task.shape
        scale, weight = within.weight_scale, within.weight
        return (
            LinearScores(columns, classes, WEIGHTS, scale, weight, within.feature),
            LinearOutcome(self.task, within, self.release),
        )

    def program(self) -> Program:
        """All of it."""
        parts = (self.preparation, self.descent, self.stopping, self.evaluation)
        first, last = [*self.preparation.rounds(), *self._start()], self._evaluate()
        for training_round in (*first, last):
            assert sum(1 for _ in training_round.calls()) == training_round.count
        return Program(
            name=self.task.name,
            parties=self.task.parties,
            registers={n: r for part in parts if part for n, r in part.registers().items()},
            inputs=self.preparation.inputs() | (self.learning.inputs() if self.learning else {}),
            rounds=(*first, *self._epochs(), last),
            outputs=self.evaluation.outputs(),
            openings=(
                *((IDENTIFIERS,) if self.task.identifiers else ()),
                *(self.learning.openings() if self.learning else ()),
                *(self.stopping.openings() if self.stopping else ()),
                *self.evaluation.openings(),
            ),
            release=self.release,
        )

    def _start(self) -> Iterator[TrainingRound]:
        """The parameters of a network are set."""
        if self.learning:
            calls = [self.learning.start()]
            yield TrainingRound("start", lambda: calls, len(calls))

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
        learning = self.learning if stop == batches else None

        def calls() -> Iterator[Call]:
            yield from self.descent.calls(epoch, start, stop)
            if stopping:
                yield from stopping.losses()
            if learning:  # before anything that follows from a step or a loss is opened
                yield from learning.checks(bounds_name(epoch))
            if stopping:
                yield from stopping.decision(epoch)

        count = stop - start + (stopping.count if stopping else 0) + (CHECKS if learning else 0)
        return TrainingRound(name, calls, count, skippable=self.stopping is not None)

    def _evaluate(self) -> TrainingRound:
        name, calls = "evaluate" if self.task.metrics else "finish", list(self.evaluation.calls())
        return TrainingRound(name, lambda: calls, len(calls))
