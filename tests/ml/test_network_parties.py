"""Networks among parties against their plain twin; early stopping, evaluation, what is opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score

from masque.errors import Refused
from masque.ml import rows
from masque.ml.layers import Dense, Dropout, MaxPool, Relu, Tanh
from masque.ml.learning import bounds_name
from masque.ml.network import Adam, Network, Sgd
from masque.ml.stopping import bit_name
from masque.ml.task import EarlyStop, Task

from . import examples, layers_reference, networks_reference
from .examples import Reals
from .networks_reference import Parameters
from .test_layers import NETWORKS, ROWS, rows_of, task_of
from .test_training import little

AGREE = 2e-4
"""A few steps at a rate of 0.1: units of 2^-14 in activations, of 2^-16 in gradients."""

MARGIN = 2.0**-11
"""Of everything that relu or max_pool decides by: parties may decide otherwise within 2^-12."""


def margin(task: Task, parameters: Parameters, step: int, x: Reals) -> float:
    """How far, at least, relu and max_pool are from deciding otherwise."""
    network, found = networks_reference.network_of(task), [np.inf]
    keeps = networks_reference.keeps_of(task, step, len(x))
    _, tapes = networks_reference.passes(network, parameters, x, keeps)
    for layer, tape in zip(network.layers, tapes, strict=True):
        entered = tape.kept["x"]
        if isinstance(layer, Relu):
            found.append(float(np.abs(entered[entered != 0]).min()))
        if isinstance(layer, MaxPool) and layer.size != (1, 1):
            first, second = -np.sort(-layers_reference.windows(entered, layer), axis=0)[:2]
            found.append(float((first - second)[first != second].min()))
    return min(found)


def decided(network: Network, task: Task) -> Reals:
    """Rows on which nothing hangs by a rounding, in both steps of a task on all of them."""
    for seed in range(1000):
        table = rows_of(network, "softmax", 3, seed)
        twin = networks_reference.fit(task, table)
        steps = enumerate((networks_reference.initial(task), twin.epochs[0]))
        x = [twin.x[next(rows.batches(task, epoch))] for epoch in (0, 1)]
        if min(margin(task, w, step, x[step]) for step, w in steps) > MARGIN:
            return table
    raise AssertionError("no rows are clear enough")


THREE = ("relu twice", "conv2d with strides", "max pool that overlaps", "batch norm of channels")


@pytest.mark.parametrize(
    ("name", "parties"), [*((name, 2) for name in NETWORKS), *((name, 3) for name in THREE)]
)
def test_parties_agree_with_the_plain_twin(name: str, parties: int) -> None:
    network = NETWORKS[name]
    fields: dict[str, Any] = {"learning_rates": (0.1, 0.1), "batch_size": ROWS}
    task = task_of(network, parties=parties, **fields)
    table = decided(network, task)
    got, _ = examples.together(task, table)
    plain = examples.plainly(task, table)
    assert got.opened.keys() == {bounds_name(0), bounds_name(1)}
    for output, value in plain.outputs.items():
        assert np.abs(got.outputs[output] - value).max() < AGREE, output


RULES: list[dict[str, Any]] = [
    {"optimizer": Sgd(0.9), "l2": 0.1},
    {"optimizer": Sgd(0.5), "gradient_clip": 0.05},
    {"optimizer": Adam(epsilon=1e-2), "learning_rates": (0.01, 0.005)},
]


@pytest.mark.parametrize("number", range(len(RULES)))
@pytest.mark.parametrize(("kind", "units"), [("linear", 1), ("logistic", 1), ("softmax", 3)])
def test_optimisers_and_losses_agree_as_well(number: int, kind: Any, units: int) -> None:
    network = Network((7,), (Dense(5), Tanh(), Dropout(0.25), Dense(units)))
    table = rows_of(network, kind, units)
    fields = {"learning_rates": (0.1, 0.05), "batch_size": 5, "parties": 2} | RULES[number]
    task = examples.task_on(table, kind, units, network=network, **fields)
    got, _ = examples.together(task, table)
    plain = examples.plainly(task, table)
    for output, value in plain.outputs.items():
        assert np.abs(got.outputs[output] - value).max() < 10 * AGREE, output


# -- evaluation --------------------------------------------------------------------------------


def binary(**changes: Any) -> Task:
    """Breast cancer by a small network, standardised."""
    network = Network((30,), (Dense(8), Relu(), Dense(1)))
    fields: dict[str, Any] = {
        "standardize": True,
        "batch_size": 100,
        "optimizer": Sgd(0.9),
        "learning_rates": (0.1, 0.05),
        "metrics": ("accuracy", "auc", "log_loss", "confusion"),
    }
    return examples.task("breast_cancer", network=network, **(fields | changes))


@pytest.mark.parametrize("parties", [2, 3])
def test_metrics_are_those_of_the_scores_of_held_out_rows(parties: int) -> None:
    task, table = binary(parties=parties), examples.dataset("breast_cancer")
    got, _ = examples.together(task, table)
    x, y = networks_reference.data(task, table)
    held, network = rows.split(task)[0], networks_reference.network_of(task)
    parameters = {name: got.outputs[name] for name in network.parameters()}
    z = networks_reference.scores(network, parameters, x[held])[:, 0]
    label, p = y[held, 0], 1 / (1 + np.exp(-z))
    assert got.metric("accuracy")[0] == pytest.approx(((z > 0) == label).mean(), abs=1e-6)
    assert got.metric("auc")[0] == pytest.approx(roc_auc_score(label, z), abs=1e-3)
    assert got.metric("log_loss")[0] == pytest.approx(log_loss(label, p), abs=1e-3)
    assert np.array_equal(got.metric("confusion"), confusion_matrix(label, z > 0))
    measured = np.delete(table[:, :30], held, axis=0)
    assert got.outputs["mean"] == pytest.approx(measured.mean(axis=0), abs=1e-6)
    assert got.outputs["inverse_deviation"] * measured.std(axis=0) == pytest.approx(1, abs=1e-5)


def test_what_is_opened_is_declared_and_nothing_else() -> None:
    fields: dict[str, Any] = {"metrics": ("accuracy",), "metrics_to": ("all",)}
    task, table = binary(**fields, model_to=("all",)), examples.dataset("breast_cancer")
    got, _ = examples.together(task, table)
    assert set(got.opened) == {opening.name for opening in got.program.openings}
    bits = {opening.name: opening.bits for opening in got.program.openings}
    for name, value in got.opened.items():
        assert bits[name] == (1 if name.endswith("within bounds") else 64 * value.size)
    assert set(got.program.outputs) == {
        *("0.weight", "0.bias", "2.weight", "2.bias"),
        *("mean", "inverse_deviation", "metric:accuracy"),
    }


@pytest.mark.parametrize("bound", [3.0, 1000.0])
def test_raw_columns_are_standardised_in_their_own_unit(bound: float) -> None:
    table = little(80, 3)
    raw = table * np.array([1, bound, bound / 7, 1])
    network = Network((3,), (Dense(4), Tanh(), Dense(1)))
    fields: dict[str, Any] = {"standardize": True, "feature_bounds": (1.0, bound, bound / 7)}
    task = examples.task_on(raw, "logistic", 1, network=network, metrics=("accuracy",), **fields)
    result, twin = examples.plainly(task, raw), networks_reference.fit(task, raw)
    for name, value in twin.epochs[-1].items():
        assert np.abs(result.outputs[name] - value).max() < 1e-3
    z = networks_reference.scores(network, twin.epochs[-1], twin.x[rows.split(task)[0]])
    label = twin.y[rows.split(task)[0]]
    assert result.metric("accuracy")[0] == pytest.approx(((z > 0) == label).mean(), abs=1e-6)


# -- early stopping ----------------------------------------------------------------------------


def stopping(**changes: Any) -> Task:
    """Stops early on a tenth of the rows."""
    rule = EarlyStop("log_loss", 2, 2e-2)
    fields = {"early_stop": rule, "validation_rows": 57, "learning_rates": (0.1,) * 12}
    return binary(**(fields | {"metrics": ("accuracy",)} | changes))


@pytest.mark.parametrize("changes", [{}, {"batches_per_round": 2}, {"metrics": ()}])
def test_it_stops_at_the_epoch_that_float64_does(changes: dict[str, Any]) -> None:
    task, table = stopping(**changes), examples.dataset("breast_cancer")
    twin = networks_reference.fit(task, table).epochs
    assert len(twin) < len(task.learning_rates), "the case should stop early"
    result = examples.plainly(task, table)
    bits = [bool(result.opened[bit_name(epoch)][0]) for epoch in range(len(twin))]
    assert bits == [False] * (len(twin) - 1) + [True]
    within = [name for name in result.opened if name.startswith("epoch")]
    assert within == [bounds_name(epoch) for epoch in range(len(twin))]
    for name, value in twin[-1].items():
        assert np.abs(result.outputs[name] - value).max() < 2e-3


def test_parties_stop_and_still_evaluate() -> None:
    task, table = stopping(), examples.dataset("breast_cancer")
    twin = networks_reference.fit(task, table)
    result, run = examples.together(task, table)
    assert all(party.stopped for party in run.parties)
    assert bit_name(len(twin.epochs) - 1) in result.opened
    assert bit_name(len(twin.epochs)) not in result.opened
    held, network = rows.split(task)[0], networks_reference.network_of(task)
    z = networks_reference.scores(network, twin.epochs[-1], twin.x[held])
    assert result.metric("accuracy")[0] == pytest.approx(((z > 0) == twin.y[held]).mean(), abs=0.01)


def test_a_loss_beyond_bounds_decides_nothing() -> None:
    task = stopping(standardize=False, feature_bounds=(100.0,) * 30, model_to=("all",))
    table = examples.dataset("breast_cancer").copy()
    table[rows.split(task)[1][0], :30] = 100.0  # a row that is only looked at after an epoch
    task = replace(task, learning_rates=(0.01, 0.01))
    with pytest.raises(Refused, match="epoch 1 within bounds"):
        examples.together(task, table)
