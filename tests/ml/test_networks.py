"""Training of networks in fixed point against their float64 twins: accuracy and loss curve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from masque.ml import rows
from masque.ml.bounds import row_bounds
from masque.ml.layers import BatchNorm, Conv2d, Dense, Dropout, Flatten, MaxPool, Relu, Tanh
from masque.ml.learning import Learning
from masque.ml.network import Adam, Network, Sgd
from masque.ml.passes import register
from masque.ml.task import Task
from masque.ml.training import build
from masque.mpc.plain import Plain

from . import examples, networks_reference
from .examples import Reals
from .networks_reference import Parameters, Twin, network_of

POINT = 0.01  # of accuracy
CLOSE = 0.02  # relative, of losses
DIGITS = (64,)
MOMENTUM: dict[str, Any] = {"optimizer": Sgd(0.9), "learning_rates": (0.1, 0.1, 0.05, 0.02)}
ADAM: dict[str, Any] = {"optimizer": Adam(), "learning_rates": (0.01,) * 4}

MLP = Network(DIGITS, (Dense(32), Relu(), Dense(10)))
NORMALISED = Network(DIGITS, (Dense(32), BatchNorm(), Relu(), Dropout(0.2), Dense(10)))
CNN = Network((1, 8, 8), (Conv2d(8, (3, 3)), Relu(), MaxPool((2, 2), (2, 2)), Flatten(), Dense(10)))
CASES: list[tuple[str, Network, dict[str, Any]]] = [
    ("digits", MLP, {"learning_rates": (0.3,) * 4}),
    ("digits", MLP, MOMENTUM | {"l2": 1e-3, "gradient_clip": 0.02}),
    ("digits", MLP, ADAM | {"l2": 1e-3}),
    ("digits", Network(DIGITS, (Dense(32), Relu(), Dropout(0.2), Dense(10))), MOMENTUM),
    ("digits", NORMALISED, MOMENTUM),
    ("digits", CNN, MOMENTUM),
    ("digits", CNN, ADAM | {"learning_rates": (0.01, 0.005), "standardize": True}),
    ("digits", Network((1, 8, 8), (*CNN.layers[:1], BatchNorm(), *CNN.layers[1:])), MOMENTUM),
    ("wine", Network((13,), (Dense(8), Tanh(), Dense(3))), MOMENTUM | {"standardize": True}),
    ("breast_cancer", Network((30,), (Dense(8), Relu(), Dense(1))), ADAM | {"standardize": True}),
]


@dataclass(frozen=True)
class Trained:
    """A run in the clear, and its twin."""

    task: Task
    epochs: list[Parameters]
    metrics: dict[str, float]
    twin: Twin

    def losses(self, part: int) -> list[float]:
        """As `Twin.losses`, of the parameters in fixed point."""
        return replace(self.twin, epochs=self.epochs).losses(self.task, part)

    def held_out(self) -> tuple[Reals, Reals]:
        """Scores by the twin of held-out rows, and their labels."""
        chosen = rows.split(self.task)[0]
        x, y = self.twin.x[chosen], self.twin.y[chosen]
        return networks_reference.scores(network_of(self.task), self.twin.epochs[-1], x), y


def trained(name: str, network: Network, **changes: Any) -> Trained:
    """A network on a data set, with parameters after every epoch."""
    fields = {"batch_size": 64, "metrics": ("accuracy", "log_loss")} | changes
    task, table = examples.task(name, network=network, **fields), examples.dataset(name)
    program, clear = build(task), examples.encoded(task, table)
    scale = Learning(replace(task, intercept=False), row_bounds(task)).scale
    plain, epochs = Plain(program, lambda dataset, chosen: clear[dataset][chosen]), []
    for training_round in program.rounds:
        for call in training_round.calls():
            plain.run(call)
        if training_round.name.startswith("epoch"):
            held = {name: plain.registers[register(name)] for name in network.parameters()}
            epochs.append({n: value.view(np.int64) / 2.0**scale for n, value in held.items()})
    assert all(value == 1 for name, value in plain.opened.items() if name.endswith("bounds"))
    real = {n: examples.real(program, n, plain.output(n)) for n in program.outputs}
    metrics = {n.removeprefix("metric:"): float(v[0]) for n, v in real.items() if "metric" in n}
    return Trained(task, epochs, metrics, networks_reference.fit(task, table))


@pytest.mark.parametrize(("name", "network", "changes"), CASES)
def test_accuracy_and_losses_are_those_of_float64(
    name: str, network: Network, changes: dict[str, Any]
) -> None:
    found = trained(name, network, **changes)
    z, y = found.held_out()
    right = (z > 0) == (y > 0.5) if y.shape[1] == 1 else z.argmax(axis=1) == y.argmax(axis=1)
    assert found.metrics["accuracy"] == pytest.approx(right.mean(), abs=POINT)
    assert found.losses(2) == pytest.approx(found.twin.losses(found.task, 2), rel=CLOSE)
    theirs = found.twin.losses(found.task, 0)
    assert found.losses(0) == pytest.approx(theirs, rel=CLOSE)
    assert found.metrics["log_loss"] == pytest.approx(theirs[-1], rel=CLOSE)
    first, last = theirs[0], theirs[-1]
    assert last < first  # and it learns


def test_a_regression_on_diabetes() -> None:
    network = Network((10,), (Dense(16), Relu(), Dense(8), Tanh(), Dense(1)))
    rates = tuple(0.05 * 0.9**epoch for epoch in range(20))
    fields: dict[str, Any] = {"metrics": ("r2",), "standardize": True, "batch_size": 32}
    found = trained(
        *("diabetes", network), optimizer=Sgd(0.9), learning_rates=rates, l2=1e-3, **fields
    )
    z, y = found.held_out()
    r2 = 1 - ((z - y) ** 2).mean() / y.var()
    assert r2 > 0.35
    assert found.metrics["r2"] == pytest.approx(r2, abs=0.02)
    assert found.losses(2) == pytest.approx(found.twin.losses(found.task, 2), rel=CLOSE)


@pytest.mark.parametrize(("network", "parties"), [(MLP, 3), (CNN, 2)])
def test_parties_reach_what_float64_does(network: Network, parties: int) -> None:
    fields: dict[str, Any] = {"optimizer": Sgd(0.9), "learning_rates": (0.1,), "batch_size": 128}
    fields |= {"metrics": ("accuracy",), "parties": parties}
    task, table = examples.task("digits", network=network, **fields), examples.dataset("digits")
    twin, held = networks_reference.fit(task, table), rows.split(task)[0]
    z = networks_reference.scores(network, twin.epochs[-1], twin.x[held])
    accuracy = (z.argmax(axis=1) == twin.y[held].argmax(axis=1)).mean()
    got, _ = examples.together(task, table)
    assert got.metric("accuracy")[0] == pytest.approx(accuracy, abs=POINT)
