"""What one row can change never exceeds the bound; the noise is what the definition asks for."""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, exp, sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from masque.errors import MasqueError
from masque.ml import privacy
from masque.ml.layers import Dense
from masque.ml.network import Network
from masque.ml.task import ALL, EarlyStop, Kind, Privacy, Task
from masque.ml.training import build
from masque.mpc.plain import Plain
from masque.mpc.program import Program
from tests.ml.examples import encoded, real, task_on, together

Reals = NDArray[np.float64]
KINDS: list[tuple[Kind, int]] = [("linear", 1), ("logistic", 1), ("softmax", 3)]


def labels(kind: Kind, classes: int, rng: np.random.Generator, rows: int) -> Reals:
    if kind == "linear":
        return rng.uniform(-1, 1, (rows, 1))
    if kind == "logistic":
        return rng.integers(0, 2, (rows, 1)).astype(np.float64)
    return np.asarray(np.eye(classes)[rng.integers(0, classes, rows)])


def drawn(kind: Kind, classes: int, rows: int, features: int, seed: int) -> Reals:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (rows, features))
    return np.hstack([x, labels(kind, classes, rng, rows)])


def private(table: Reals, kind: Kind, classes: int, **changes: Any) -> Task:
    features = table.shape[1] - classes
    given = {"privacy": Privacy(1.0, 1e-6, sqrt(features)), "l2": 0.05} | changes
    return task_on(table, kind, classes, **given)


def weights(program: Program, task: Task, table: Reals) -> Reals:
    """What is handed out, without noise."""
    clear = encoded(task, table)
    plain = Plain(program, lambda name, rows: clear[name][rows])
    plain.run_program()
    return np.concatenate(
        [real(program, name, plain.output(name)).ravel() for name in program.outputs]
    )


def extremes(kind: Kind, classes: int, features: int) -> list[Reals]:
    """Rows in the corners of their ranges, with every label."""
    ends: list[Reals] = [np.array([y]) for y in ((-1.0, 1.0) if kind == "linear" else (0.0, 1.0))]
    if kind == "softmax":
        ends = list(np.eye(classes))
    signs = [np.ones(features), -np.ones(features), np.resize([1.0, -1.0], features)]
    return [np.concatenate([sign, y]) for sign in signs for y in ends]


@pytest.mark.parametrize(("kind", "classes"), KINDS)
@pytest.mark.parametrize("l2", [0.0, 0.05, 0.5])
def test_no_row_changes_more_than_the_bound(kind: Kind, classes: int, l2: float) -> None:
    """Every pair of extreme rows, among rows that hold still, pull along, or are any."""
    rows, features = 48, 3
    rng, furthest = np.random.default_rng(1), 0.0
    table = drawn(kind, classes, rows, features, 5)
    task = private(table, kind, classes, batch_size=20, l2=l2, learning_rates=(0.19, 0.15, 0.1))
    program = build(task)
    assert program.release
    corners = extremes(kind, classes, features)
    still = table.copy()
    still[:, :features] = 0.0
    for others in (table, still, np.tile(corners[0], (rows, 1))):
        for place in (0, int(rng.integers(rows))):
            ends = []
            for corner in corners:
                changed = others.copy()
                changed[place] = corner
                ends.append(weights(program, task, changed))
            furthest = max(furthest, *(float(np.linalg.norm(a - b)) for a in ends for b in ends))
    assert furthest <= program.release.sensitivity
    assert furthest >= 0.25 * program.release.sensitivity, "a bound that nothing comes near"


def test_the_worst_row_of_linear_regression_comes_near_the_bound() -> None:
    """Rows of nothing but the one that changes: its residual sits at the limit of Huber's loss."""
    table = np.zeros((64, 3))
    task = private(
        table, "linear", 1, batch_size=64, l2=0.01, intercept=False, learning_rates=(0.3,)
    )
    program = build(task)
    ends = []
    for label in (-1.0, 1.0):
        table[5] = [1.0, 1.0, label]
        ends.append(weights(program, task, table))
    assert program.release
    assert 0.99 < np.linalg.norm(ends[0] - ends[1]) / program.release.sensitivity <= 1.0


def test_weights_at_their_bound_keep_to_the_bound_on_what_a_row_changes() -> None:
    """Weights that are limited at almost every step, by a bound as small as is accepted."""
    rng = np.random.default_rng(3)
    table = drawn("logistic", 1, 60, 2, 8)
    table[:, 2] = table[:, 0] > 0
    options = {"batch_size": 15, "l2": 0.0, "learning_rates": (0.5,) * 40, "weight_bound": 1.0}
    task = private(table, "logistic", 1, **options)
    program = build(task)
    base = weights(program, task, table)
    assert np.abs(base).max() == 1.0, "the limit acts"
    for place in rng.integers(0, 60, 6):
        for corner in extremes("logistic", 1, 2):
            changed = table.copy()
            changed[place] = corner
            moved = np.linalg.norm(weights(program, task, changed) - base)
            assert program.release and moved <= program.release.sensitivity


def test_the_bound_is_the_textbook_one_for_one_batch_and_many_epochs() -> None:
    """2 L / (l2 rows) of output perturbation (Chaudhuri et al., 2011), with what roundings add."""
    table = drawn("logistic", 1, 200, 4, 1)
    task = private(table, "logistic", 1, batch_size=200, l2=0.5, learning_rates=(0.3,) * 200)
    found = build(task).release
    textbook = 2 * privacy.row_gradient(task) / (task.l2 * 200)
    assert found and textbook < found.sensitivity < 1.05 * textbook


def test_without_l2_the_bound_grows_with_the_epochs() -> None:
    """2 L rate / batch an epoch (Wu et al., 2017)."""
    table = drawn("logistic", 1, 64, 4, 1)
    for epochs in (1, 7):
        task = private(table, "logistic", 1, l2=0.0, learning_rates=(0.1,) * epochs)
        found = build(task).release
        textbook = epochs * 2 * privacy.row_gradient(task) * 0.1 / 32
        assert found and textbook <= found.sensitivity < 1.01 * textbook


def gaussian(epsilon: float, multiplier: float) -> float:
    """Delta of continuous Gaussian noise, exactly (Balle and Wang, 2018): none does better."""
    tail: Callable[[float], float] = lambda x: erfc(x / sqrt(2)) / 2  # noqa: E731
    half = 1 / (2 * multiplier)
    return tail(epsilon * multiplier - half) - exp(epsilon) * tail(epsilon * multiplier + half)


def discrete(epsilon: float, sigma: int, sensitivity: int) -> float:
    """Delta of discrete Gaussian noise on one whole number, summed up from the definition."""
    reach = 40 * sigma + sensitivity
    k = np.arange(-reach, reach + 1, dtype=np.float64)
    here, there = (np.exp(-((k - shift) ** 2) / (2.0 * sigma**2)) for shift in (0, sensitivity))
    here, there = here / here.sum(), there / there.sum()
    return float(np.maximum(here - exp(epsilon) * there, 0).sum())


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("delta", [1e-4, 1e-6, 1e-10])
def test_noise_is_enough_and_hardly_more(epsilon: float, delta: float) -> None:
    multiplier = privacy.noise_multiplier(epsilon, delta)
    assert privacy.spent(epsilon, multiplier) <= delta
    assert privacy.spent(epsilon, multiplier - 1 / privacy.FINEST) > delta
    assert gaussian(epsilon, multiplier) <= delta < gaussian(epsilon, multiplier * 0.85)
    assert discrete(epsilon, int(np.ceil(multiplier * 25)), 25) <= delta


def test_the_bound_on_attacks() -> None:
    assert privacy.advantage_bound(1e-6, 0.0) == pytest.approx(5e-7)
    assert privacy.advantage_bound(1.0, 1e-6) == pytest.approx(
        (exp(1) - 1) / (exp(1) + 1), abs=1e-6
    )


def test_two_parties_hand_out_weights_with_the_noise_that_is_told() -> None:
    table = drawn("logistic", 1, 40, 4, 2)
    task = private(table, "logistic", 1, batch_size=20, learning_rates=(0.1,))
    program = build(task)
    release, clean = program.release, weights(program, task, table)
    assert release and release.values == clean.size == 5
    noise = []
    for _ in range(40):
        result, _run = together(task, table)
        noise.append(np.concatenate([v.ravel() for v in result.outputs.values()]) - clean)
    spread = np.std(noise) / release.sigma
    assert 0.7 < spread / sqrt(2) < 1.35, "200 samples of the noise of both"
    assert len({tuple(row) for row in np.round(noise, 9)}) == 40, "fresh every time"


def test_what_is_opened_to_all_is_what_has_noise() -> None:
    table = drawn("softmax", 3, 40, 4, 2)
    task = private(table, "softmax", 3, batch_size=20, learning_rates=(0.1,), model_to=ALL)
    clean, (result, _run) = weights(build(task), task, table), together(task, table)
    assert set(result.opened) == set(result.outputs) == {"weights", "intercept"}
    for name, value in result.outputs.items():
        np.testing.assert_array_equal(real(result.program, name, result.opened[name]), value)
    told = np.concatenate([result.outputs[name].ravel() for name in ("weights", "intercept")])
    assert np.abs(told - clean).min() > 1e-4, "noise is on every weight"


REFUSED: dict[str, dict[str, Any]] = {
    "data.standardize": {"standardize": True},
    "reveal.metrics": {"metrics": ("accuracy",)},
    "training.early_stop": {"early_stop": EarlyStop("log_loss", 1, 0.0), "validation_rows": 8},
    "training.optimizer.momentum": {"momentum": 0.5},
    "data.columns": {"identifiers": True},
    "model.kind": {"network": Network((4,), (Dense(1),)), "batch_size": 8},
    "training.optimizer.learning_rate": {"learning_rates": (5.0,)},
    "model.weight_bound": {"weight_bound": 0.125, "learning_rates": (0.6,)},
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_is_not_private_is_refused(field: str) -> None:
    table = drawn("logistic", 1, 40, 4, 2)
    with pytest.raises(MasqueError) as refused:
        build(private(table, "logistic", 1, **REFUSED[field]))
    assert refused.value.where["field"] == field
    assert refused.value.hint


def test_the_largest_learning_rate_is_accepted_and_a_larger_one_is_not() -> None:
    table = drawn("softmax", 3, 40, 4, 2)
    task = private(table, "softmax", 3, learning_rates=(1e-3,))
    most = privacy.largest_rate(task)
    build(private(table, "softmax", 3, learning_rates=(most,)))
    build(private(table, "softmax", 3, l2=0.0, learning_rates=(most,)))
    with pytest.raises(MasqueError, match="without end"):
        build(private(table, "softmax", 3, learning_rates=(1.0001 * most,)))
