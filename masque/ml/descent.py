"""Stochastic gradient descent with momentum and L2, on Secret.

    error    = prediction(X w) - y
    change   = rate (X^T error / batch + l2 w)      (the intercept is shrunk with privacy only)
    velocity = momentum velocity - change
    w        = w + velocity

Every public factor is applied within the opening of a truncation, so the last three lines cost one
round. For the proof that everything fits the ring, `change` and `w` are limited to the weight
bound where `masque.ml.bounds` says so: `w` every so many steps, beside the forward pass, without a
round of its own; `change` only where a single step could exceed the bound, for two or three. In a
job that does not diverge neither ever acts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from masque.errors import RangeError
from masque.ml import models, rows
from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, Bounds
from masque.ml.factors import Factor
from masque.ml.preparation import DESIGN, LABELS
from masque.ml.record import Found, Record
from masque.ml.task import Task
from masque.mpc.functions import clip
from masque.mpc.graph import Block, Kind
from masque.mpc.program import Call, Ref, Register
from masque.mpc.secret import product
from masque.mpc.trace import Trace
from masque.mpc.types import Array

WEIGHTS, VELOCITY = "current weights", "current velocity"  # registers


@dataclass(frozen=True, slots=True)
class Step:
    """The block of a step, and how its factors are encoded."""

    block: Block
    rate: Factor
    shrink: Factor | None
    found: tuple[Found, ...]


def trace_step(task: Task, limits: Bounds, batch: int, *, limited: bool) -> Step:
    """A step on `batch` rows; `limited`: bring the weights back within the weight bound first.

    Rounds: 7 for logistic regression, 6 where the bound on scores is below about 2^18.
    """
    trace = Trace(f"step of {batch}" + (", limited" if limited else ""), task.parties)
    scale, bound = limits.weight_scale, task.weight_bound
    X = trace.input("X", (batch, task.columns), FEATURE_SCALE, limits.feature, masked=True)
    y = trace.input("y", (batch, task.classes), DATA_SCALE, 1.0)
    w = trace.input("w", task.shape, scale, limits.weight)

    record = Record(trace.graph)
    record.add(None, "design matrix", X)
    record.add(None, "weights", w)
    z = X @ w
    record.add(None, "scores", z)
    error = models.residual(task.kind, z, y, limits.error_scale, limited=task.privacy is not None)
    record.add(None, "residuals", error)
    gradient = product("matmul", X.T, error, limits.gradient(batch))
    record.add(None, "gradient", gradient)
    rate = Factor.of("rate", max(task.learning_rates) / batch, gradient, scale)
    change = gradient.scaled(rate.argument(trace), scale)
    shrink = None
    if task.l2:
        shape = (task.columns, 1) if task.intercept else ()
        shrink = Factor.of("shrink", max(task.learning_rates) * task.l2, w, scale, shape)
        change = change + w.scaled(shrink.argument(trace), scale)
    if change.bound > limits.change:
        if task.privacy:
            raise RangeError(
                "a step could exceed the bound on weights, and limiting steps may spread them.",
                hint="Raise model.weight_bound, or lower training.optimizer.learning_rate.",
                field="model.weight_bound",
            )
        change = clip(change, -bound, bound)
    velocity = -change
    if task.momentum:
        before = trace.input("velocity", task.shape, scale, limits.step)
        velocity = before.scaled(task.momentum, scale) - change
        trace.output("velocity", velocity, scale)
    w = (clip(w, -bound, bound) if limited else w) + velocity
    trace.output("w", w, scale)
    record.add(None, "weights after a step", w)

    assert velocity.bound <= limits.step
    assert w.bound <= (limits.weight if limited else limits.weight + limits.step)
    return Step(trace.freeze(), rate, shrink, tuple(record.found))


class Descent:
    """The registers and calls of all epochs of a task. Blocks are traced once a shape."""

    def __init__(self, task: Task, limits: Bounds) -> None:
        self.task, self.limits = task, limits
        self._steps = {
            (size, limited): trace_step(task, limits, size, limited=limited)
            for size in rows.batch_sizes(task)
            for limited in {True, limits.period == 1}
        }
        self._arguments = cache(self._encode)

    @property
    def found(self) -> tuple[Found, ...]:
        """What bounds the values of a step on the largest batch."""
        return self._steps[max(size for size, _ in self._steps), True].found

    def registers(self) -> dict[str, Register]:
        """Weights, and velocity if there is momentum; all start at zero."""
        found = {WEIGHTS: Register(self.task.shape, Kind.SHARE)}
        if self.task.momentum:
            found[VELOCITY] = Register(self.task.shape, Kind.SHARE)
        return found

    def calls(self, epoch: int, start: int, stop: int) -> Iterator[Call]:
        """The steps on mini-batches `start` to `stop` - 1 of an epoch, all counted from 0."""
        done = epoch * rows.batch_count(self.task) + start
        state = {"w": Ref(WEIGHTS)}
        if self.task.momentum:
            state["velocity"] = Ref(VELOCITY)
        for number, batch in enumerate(rows.batches(self.task, epoch, start, stop), start=done):
            step = self._steps[batch.size, number % self.limits.period == 0]
            inputs = {"X": Ref(DESIGN, batch), "y": Ref(LABELS, batch), **state}
            yield Call(step.block, inputs, self._arguments(epoch, batch.size), state)

    def factors(self, epoch: int, batch: int) -> tuple[float, float]:
        """(rate / rows, rate l2) of an epoch's steps on `batch` rows, as they are encoded."""
        step, found = self._steps[batch, True], self._arguments(epoch, batch)
        rate = float(found["rate"]) * 2.0**-step.rate.scale
        if step.shrink is None:
            return rate, 0.0
        return rate, float(found["shrink"].min()) * 2.0**-step.shrink.scale

    def _encode(self, epoch: int, batch: int) -> dict[str, Array]:
        """The factors of a step, encoded."""
        rate, step = self.task.learning_rates[epoch], self._steps[batch, True]
        rows_counted = self.task.batch_size if self.task.privacy else batch
        found = {"rate": step.rate.encoded(rate / rows_counted)}
        if step.shrink is not None:
            factor = np.full(step.shrink.shape, rate * self.task.l2)
            if self.task.intercept and not self.task.privacy:
                factor[-1] = 0.0
            found["shrink"] = step.shrink.encoded(factor)
        return found
