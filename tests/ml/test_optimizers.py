"""Optimisers, schedules, clipping and L2 in the clear against their float64 twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from masque.ml.layers import Dense, Relu, Tanh
from masque.ml.network import Adam, Network, Sgd
from masque.ml.task import Task

from . import examples, networks_reference
from .examples import Reals
from .test_training import little

CLOSE = 1e-4
NETWORK = Network((4,), (Dense(5), Tanh(), Dense(3)))
SCHEDULE = tuple(0.5 * 0.5**epoch for epoch in range(5))
STEADY = (0.1,) * 4


def difference(task: Task, table: Reals) -> float:
    """The largest of a parameter, after training, from its float64 twin."""
    got = examples.plainly(task, table)
    assert all(value == 1 for value in got.opened.values())
    twin = networks_reference.fit(task, table).epochs[-1]
    return max(float(np.abs(got.outputs[name] - twin[name]).max()) for name in twin)


SGD: list[dict[str, Any]] = [
    {"learning_rates": SCHEDULE},
    {"optimizer": Sgd(0.9), "learning_rates": STEADY},
    {"optimizer": Sgd(0.99), "learning_rates": (0.01,) * 6, "l2": 0.5},
    {"optimizer": Sgd(0.5), "learning_rates": SCHEDULE, "gradient_clip": 0.01},
    {"learning_rates": STEADY, "gradient_clip": 2.0**-10, "l2": 0.1},
    {"learning_rates": (1e-6,) * 2},
    {"learning_rates": tuple(0.3 * 0.01**epoch for epoch in range(6)), "l2": 0.5},
    {"learning_rates": (2.0, 0.0001), "batch_size": 60},
    {"optimizer": Sgd(0.9), "learning_rates": (0.02,), "batch_size": 1},
    {"learning_rates": STEADY, "gradient_clip": 60000.0},
]


@pytest.mark.parametrize("changes", SGD)
def test_sgd(changes: dict[str, Any]) -> None:
    table = little(60, 4, 3)
    task = examples.task_on(table, "softmax", 3, network=NETWORK, **({"batch_size": 16} | changes))
    assert difference(task, table) < CLOSE


ADAMS: list[tuple[Adam, dict[str, Any]]] = [
    (Adam(), {}),
    (Adam(epsilon=1e-2), {"learning_rates": SCHEDULE}),
    (Adam(0.0, 0.999), {}),
    (Adam(0.0, 0.5), {}),
    (Adam(0.9, 0.9), {}),
    (Adam(0.9, 0.9999, 1e-3), {"l2": 0.1}),
    (Adam(0.99, 0.99), {}),
    (Adam(), {"gradient_clip": 0.01}),
    (Adam(epsilon=1e-2), {"gradient_clip": 300.0}),
    (Adam(), {"learning_rates": (1e-4, 1e-6)}),
]


@pytest.mark.parametrize(("rule", "changes"), ADAMS)
def test_adam(rule: Adam, changes: dict[str, Any]) -> None:
    table = little(60, 4, 3)
    fields = {"learning_rates": (0.02,) * 4, "batch_size": 16} | changes
    task = examples.task_on(table, "softmax", 3, network=NETWORK, optimizer=rule, **fields)
    assert difference(task, table) < 10 * CLOSE


@pytest.mark.parametrize("rule", [Adam(0.9, 0.81), Adam(0.999, 0.5, 1.0), Adam(0.99, 0.98)])
def test_adam_with_means_longer_than_squares(rule: Adam) -> None:
    """Nothing but epsilon limits what such a step can be; small rates leave room for it."""
    table = little(60, 4, 3)
    task = examples.task_on(
        *(table, "softmax", 3), network=NETWORK, optimizer=rule, learning_rates=(1e-3,) * 3
    )
    assert difference(task, table) < CLOSE


def test_features_that_say_nothing_move_nothing() -> None:
    table = little(40, 3)
    table[:, 1] = 0.0
    network = Network((3,), (Dense(4), Relu(), Dense(1)))
    for rule in (Sgd(0.9), Adam()):
        task = examples.task_on(table, "logistic", 1, network=network, optimizer=rule)
        start = networks_reference.initial(task)["0.weight"][1]
        end = examples.plainly(task, table).outputs["0.weight"][1]
        assert np.abs(end - start).max() < 2.0**-18
