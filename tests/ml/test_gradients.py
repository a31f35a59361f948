"""A step goes down the gradient of the loss: held against finite differences of the loss."""

from __future__ import annotations

import numpy as np
import pytest

from masque.ml import models
from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, bounds
from masque.ml.descent import Descent, trace_step
from masque.ml.task import Kind, Task
from masque.mpc.graph import Block
from masque.mpc.public import public_array
from masque.mpc.trace import Trace

from . import examples
from .examples import Reals, run_block

ROWS, WEIGHT_SCALE = 40, 24
DISTANCE = 2.0**-5


def loss_block(task: Task) -> Block:
    """The mean loss at given weights."""
    trace = Trace("loss", 2)
    X = trace.input("X", (ROWS, task.columns), FEATURE_SCALE, 1.1, masked=True)
    y = trace.input("y", (ROWS, task.classes), DATA_SCALE, 1.0)
    y = y if task.kind == "linear" else models.exact(y)
    w = trace.input("w", task.shape, WEIGHT_SCALE, 8.0)
    trace.output("loss", models.loss(task.kind, X @ w, y).sum().reshape(1), 16)
    return trace.freeze()


@pytest.mark.parametrize(("kind", "classes"), [("linear", 1), ("logistic", 1), ("softmax", 4)])
def test_a_step_follows_the_gradient(kind: Kind, classes: int) -> None:
    draw = np.random.default_rng(1)
    x = np.hstack([draw.uniform(-1, 1, (ROWS, 3)), np.ones((ROWS, 1))])
    labels = draw.integers(0, max(2, classes), ROWS)
    y = examples.one_hot(labels) if classes > 1 else labels[:, None].astype(np.float64)
    w = draw.normal(size=(4, classes))
    table = np.hstack([x[:, :3], y])
    task = examples.task_on(
        table, kind, classes, batch_size=ROWS, l2=0.25, learning_rates=(1.0,), weight_bound=8.0
    )
    limits = bounds(task)
    assert limits.weight_scale == WEIGHT_SCALE
    fixed = {"X": public_array(x, FEATURE_SCALE), "y": public_array(y, DATA_SCALE)}
    step = trace_step(task, limits, ROWS, limited=False)
    call = next(Descent(task, limits).calls(0, 0, 1))
    after = run_block(step.block, fixed | {"w": public_array(w, WEIGHT_SCALE)}, call.arguments)["w"]
    gradient = w - after / 2.0**WEIGHT_SCALE

    block = loss_block(task)

    def loss(weights: Reals) -> float:
        values = fixed | {"w": public_array(weights, WEIGHT_SCALE)}
        mean = float(run_block(block, values)["loss"][0]) / 2**16 / ROWS
        return mean / (2 if kind == "linear" else 1) + 0.125 * float((weights[:3] ** 2).sum())

    for index in np.ndindex(4, classes):
        shift = np.zeros((4, classes))
        shift[index] = DISTANCE
        slope = (loss(w + shift) - loss(w - shift)) / (2 * DISTANCE)
        assert gradient[index] == pytest.approx(slope, abs=2e-3)
