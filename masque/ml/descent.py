"""One step of stochastic gradient descent with momentum and L2, on Secret.

    error    = prediction(X w) - y
    gradient = X^T error / batch + l2 w          (the intercept is not shrunk)
    velocity = momentum velocity - rate gradient
    w        = limit(w) + velocity

Every factor is applied in the opening of a truncation, so the last line costs nothing. `limit`
keeps weights within the bound that makes the whole job fit the ring; it acts only on a job that
diverges. Its comparison runs beside the forward pass and costs no round.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from masque.ml import models
from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, Bounds
from masque.ml.task import Task
from masque.mpc.functions import clip
from masque.mpc.graph import Block
from masque.mpc.secret import Public, Secret, constant, public_array
from masque.mpc.trace import Trace
from masque.mpc.types import Array

RATE_BITS = 24


@dataclass(frozen=True, slots=True)
class Rate:
    """A public factor that changes between calls: its scale is fixed by its largest value."""

    largest: float

    @property
    def scale(self) -> int:
        """Fraction bits."""
        return min(50, RATE_BITS - 1 - ceil(log2(self.largest)))

    def argument(self, trace: Trace, name: str) -> Public:
        """The factor inside a block."""
        return trace.argument(name, (), self.scale, self.largest * 1.001)

    def value(self, factor: float) -> Array:
        """The factor of one call."""
        return public_array(factor, self.scale)


def rates(task: Task, batch: int) -> dict[str, Rate]:
    """The arguments of a step: rate / batch, and rate * l2 where there is L2."""
    largest = max(task.learning_rates)
    found = {"rate": Rate(largest / batch)}
    if task.l2:
        found["shrink"] = Rate(largest * task.l2)
    return found


def step_block(task: Task, limits: Bounds, batch: int) -> Block:
    """The block of one step on a batch of `batch` rows."""
    trace = Trace(f"step of {batch}", task.parties)
    X = trace.input(  # noqa: N806
        "X", (batch, task.columns), FEATURE_SCALE, limits.feature, masked=True
    )
    y = trace.input("y", (batch, task.classes), DATA_SCALE, 1.0)
    shape = (task.columns, task.classes)
    w = trace.input("w", shape, limits.weight_scale, limits.weight)
    velocity = trace.input("velocity", shape, limits.weight_scale, limits.step)
    factors = {name: rate.argument(trace, name) for name, rate in rates(task, batch).items()}

    error = models.error(task.kind, models.scores(X, w), y, limits.error_scale)
    change = (X.T @ error).scaled(factors["rate"], limits.weight_scale)
    if "shrink" in factors:
        change = change + shrunk(task, w).scaled(factors["shrink"], limits.weight_scale)
    if limits.limited:
        change = clip(change, -task.weight_bound, task.weight_bound)
    new_velocity = -change
    if task.momentum:
        new_velocity = velocity.scaled(task.momentum, limits.weight_scale) - change
    new_w = clip(w, -task.weight_bound, task.weight_bound) + new_velocity

    trace.output("w", new_w, limits.weight_scale)
    trace.output("velocity", new_velocity, limits.weight_scale)
    return trace.freeze()


def shrunk(task: Task, w: Secret) -> Secret:
    """The weights that L2 acts on: all but the intercept, which is the last row."""
    if not task.intercept:
        return w
    keep = np.ones((task.columns, 1))
    keep[-1] = 0.0
    return w * constant(w.graph, keep, 0)
