"""Every layer's gradient: the float twin against finite differences, a step in `plain` against it.

A step with rate r and no momentum moves a parameter by -r times its mean gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, row_bounds
from masque.ml.layers import (
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    Relu,
    Sigmoid,
    Tanh,
)
from masque.ml.learning import Learning
from masque.ml.network import Network
from masque.ml.task import Kind, Task
from masque.mpc.public import public_array

from . import examples, networks_reference
from .examples import Reals
from .networks_reference import Parameters

ROWS = 12
CLOSE = 1e-4  # of a gradient whose largest element is about one
NUDGE = 1e-6


def flat(*layers: Layer, units: int = 3) -> Network:
    """Seven features through a dense layer, `layers`, and another dense layer."""
    return Network((7,), (Dense(6), *layers, Dense(units)))


def image(*layers: Layer, padding: int = 1) -> Network:
    """Images of two channels through a convolution, `layers`, and a dense layer."""
    first = Conv2d(3, (3, 3), padding=(padding, padding))
    return Network((2, 5, 6), (first, *layers, Flatten(), Dense(3)))


NETWORKS: dict[str, Network] = {
    "dense": Network((7,), (Dense(3),)),
    "dense without bias": Network((7,), (Dense(5, bias=False), Dense(3, bias=False))),
    "three dense": flat(Dense(4)),
    "relu": flat(Relu()),
    "relu twice": flat(Relu(), Dense(8), Relu()),
    "relu first": Network((7,), (Relu(), Dense(3))),
    "sigmoid": flat(Sigmoid()),
    "tanh": flat(Tanh()),
    "dropout": flat(Relu(), Dropout(0.5)),
    "dropout before relu": flat(Dropout(0.25), Relu()),
    "dropout of features": Network((7,), (Dropout(0.3), Dense(3))),
    "batch norm": flat(BatchNorm(), Relu()),
    "batch norm last but one": flat(Tanh(), BatchNorm()),
    "batch norm of features": Network((7,), (BatchNorm(epsilon=0.1), Dense(3))),
    "flatten": image(),
    "conv2d of conv2d": image(Relu(), Conv2d(4, (2, 3))),
    "conv2d with strides": image(Conv2d(4, (3, 2), stride=(2, 3), padding=(1, 1)), Relu()),
    "conv2d beyond": image(Conv2d(2, (2, 2), stride=(3, 3)), padding=2),
    "conv2d without bias": image(Conv2d(2, (1, 1), bias=False)),
    "conv2d of all": image(Conv2d(4, (5, 6)), Tanh()),
    "max pool": image(MaxPool((2, 2), (2, 2))),
    "max pool of odd sizes": image(MaxPool((3, 2), (3, 2)), Relu()),
    "max pool that overlaps": image(MaxPool((3, 3), (1, 2))),
    "max pool with gaps": image(MaxPool((1, 2), (2, 3))),
    "max pool of one": image(MaxPool((1, 1), (1, 1))),
    "max pool of all": image(MaxPool((5, 6), (1, 1))),
    "average pool": image(AveragePool((2, 2), (2, 2))),
    "average pool of odd sizes": image(Relu(), AveragePool((3, 2), (3, 2))),
    "average pool that overlaps": image(AveragePool((3, 3), (1, 2))),
    "average pool with gaps": image(AveragePool((1, 2), (2, 3)), Tanh()),
    "batch norm of channels": image(BatchNorm(), Relu()),
    "batch norm of pixels": Network((2, 3, 3), (BatchNorm(), Flatten(), Dense(3))),
    "dropout of channels": image(Relu(), Dropout(0.5), Conv2d(2, (2, 2))),
}


def task_of(network: Network, kind: Kind = "softmax", classes: int = 3, **changes: Any) -> Task:
    """A single step on a single batch of random rows."""
    table, fields = (
        rows_of(network, kind, classes),
        {"learning_rates": (1.0,), "batch_size": ROWS} | changes,
    )
    task = examples.task_on(table, kind, classes, network=network, **fields)
    return replace(task, intercept=False)


def rows_of(network: Network, kind: Kind, classes: int, seed: int = 3) -> Reals:
    """Random rows, labels last."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(-1, 1, (ROWS, int(np.prod(network.input_shape))))
    if kind == "linear":
        return np.hstack([x, draw.uniform(-1, 1, (ROWS, 1))])
    labels = np.arange(ROWS) % max(2, classes)
    y = examples.one_hot(labels) if classes > 1 else labels[:, None].astype(np.float64)
    return np.hstack([x, y])


def parameters_of(task: Task, scale: int) -> Parameters:
    """As the seed has them, but nothing is a plain 0 or 1: numbers with `scale` fraction bits."""
    draw = np.random.default_rng(4)
    found = {}
    for name, value in networks_reference.initial(task).items():
        spread = value + 0.25 * draw.uniform(-1, 1, value.shape)
        found[name] = np.rint(spread * 2.0**scale) / 2.0**scale
    return found


def stepped(task: Task, learning: Learning, w: Parameters, table: Reals) -> Parameters:
    """Parameters after the first step, in the clear."""
    call = next(learning.calls(0, 0, 1))
    fixed = {name: public_array(value, learning.scale) for name, value in w.items()}
    fixed["X"] = public_array(table[:, : task.features], FEATURE_SCALE)
    fixed["y"] = public_array(table[:, task.features :], DATA_SCALE)
    for name, node in call.block.inputs.items():
        fixed.setdefault(name, np.zeros(call.block.nodes[node].shape, dtype=np.uint64))
    after = examples.run_block(call.block, fixed, call.arguments)
    assert after["violations"] == 0
    return {name: after[name] / 2.0**learning.scale for name in w if name in after}


def differences(task: Task, w: Parameters, table: Reals) -> dict[str, float]:
    """Of a step in the clear and its float64 twin, the largest, by parameter."""
    learning = Learning(task, row_bounds(task))
    got = stepped(task, learning, w, table)
    x, y = table[:, : task.features], table[:, task.features :]
    keeps = networks_reference.keeps_of(task, 0, ROWS)
    found, running = networks_reference.gradients(task, w, x, y, keeps)
    after = {name: w[name] - task.learning_rates[0] * found[name] for name in found} | running
    assert after.keys() == got.keys() == w.keys()
    return {name: float(np.abs(got[name] - after[name]).max()) for name in after}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_twin_goes_down_its_loss(name: str) -> None:
    task = task_of(NETWORKS[name], l2=0.25)
    table, w = rows_of(NETWORKS[name], "softmax", 3), parameters_of(task, 20)
    x, y, keeps = table[:, :-3], table[:, -3:], networks_reference.keeps_of(task, 0, ROWS)
    found, _ = networks_reference.gradients(task, w, x, y, keeps)
    draw = np.random.default_rng(5)
    for parameter, gradient in found.items():
        for _ in range(4):
            place = tuple(draw.integers(0, gradient.shape))
            ends = []
            for nudge in (NUDGE, -NUDGE):
                moved = w[parameter].copy()
                moved[place] += nudge
                ends.append(networks_reference.loss(task, w | {parameter: moved}, x, y, keeps))
            slope = (ends[0] - ends[1]) / (2 * NUDGE)
            assert gradient[place] == pytest.approx(slope, abs=1e-7), (parameter, place)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_is_that_of_the_twin(name: str) -> None:
    task = task_of(NETWORKS[name])
    w, table = parameters_of(task, 12), rows_of(NETWORKS[name], "softmax", 3)
    found = differences(task, w, table)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(("kind", "classes"), [("linear", 1), ("logistic", 1), ("softmax", 5)])
@pytest.mark.parametrize("l2", [0.0, 0.25])
def test_losses_and_l2(kind: Kind, classes: int, l2: float) -> None:
    network = flat(Tanh(), units=classes)
    task = task_of(network, kind, classes, l2=l2)
    found = differences(task, parameters_of(task, 12), rows_of(network, kind, classes))
    assert max(found.values()) < CLOSE, found
