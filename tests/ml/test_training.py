"""Training in fixed point against the same algorithm in float64, and against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import r2_score

from masque.ml import rows
from masque.ml.task import Task

from . import examples, reference
from .examples import Reals

CLOSE = 1e-3  # the promise: weights of the design matrix

SCHEDULE = tuple(0.2 * 0.9**epoch for epoch in range(12))

CASES: list[tuple[str, dict[str, Any]]] = [
    ("diabetes", {"standardize": True, "learning_rates": (0.05,) * 20}),
    ("diabetes", {"momentum": 0.9, "learning_rates": SCHEDULE, "intercept": False}),
    ("diabetes", {"l2": 0.1, "batch_size": 7, "learning_rates": (0.1,) * 4}),
    ("breast_cancer", {"standardize": True, "momentum": 0.9, "l2": 1e-3, "metrics": ("auc",)}),
    ("breast_cancer", {"learning_rates": SCHEDULE, "momentum": 0.5}),
    ("breast_cancer", {"standardize": True, "intercept": False, "batch_size": 569}),
    ("wine", {"standardize": True, "l2": 0.01, "learning_rates": SCHEDULE}),
    ("digits", {"momentum": 0.9, "batch_size": 128, "learning_rates": (0.3, 0.3)}),
]


def difference(task: Task, table: Reals) -> float:
    """The largest difference of a weight from its float64 twin."""
    got = examples.plainly(task, table).weights()
    return float(np.abs(got - reference.fit(task, table).weights).max())


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_weights_are_those_of_float64(name: str, changes: dict[str, Any]) -> None:
    assert difference(examples.task(name, **changes), examples.dataset(name)) < CLOSE


def test_moments_are_those_of_float64() -> None:
    task, table = (
        examples.task("breast_cancer", standardize=True),
        examples.dataset("breast_cancer"),
    )
    result, twin = examples.plainly(task, table), reference.fit(task, table)
    assert np.abs(result.outputs["mean"] - twin.mean).max() < 1e-6
    assert np.abs(result.outputs["inverse_deviation"] * twin.deviation - 1).max() < 1e-5


def test_accuracy_on_breast_cancer_is_that_of_scikit_learn() -> None:
    table = examples.dataset("breast_cancer")
    task = examples.task(
        "breast_cancer",
        standardize=True,
        momentum=0.9,
        l2=1e-3,
        learning_rates=(0.1,) * 30,
        metrics=("accuracy", "auc"),
        holdout_rows=200,
    )
    result = examples.plainly(task, table)
    held_out = rows.split(task)[0]
    fitted = np.delete(table, held_out, axis=0)
    scale = fitted[:, :-1].std(axis=0)
    theirs = LogisticRegression(C=1 / (1e-3 * len(fitted)), max_iter=5000)
    theirs.fit((fitted[:, :-1] - fitted[:, :-1].mean(axis=0)) / scale, fitted[:, -1])
    features = (table[held_out, :-1] - fitted[:, :-1].mean(axis=0)) / scale
    accuracy = theirs.score(features, table[held_out, -1])
    assert abs(result.metric("accuracy")[0] - accuracy) <= 0.005 + 1e-6


def test_r2_on_diabetes_is_that_of_scikit_learn() -> None:
    table = examples.dataset("diabetes")
    task = examples.task(
        "diabetes",
        standardize=True,
        momentum=0.9,
        learning_rates=tuple(0.02 * 0.93**epoch for epoch in range(40)),
        metrics=("r2",),
    )
    held_out = rows.split(task)[0]
    fitted = np.delete(table, held_out, axis=0)
    theirs = LinearRegression().fit(fitted[:, :-1], fitted[:, -1])
    r2 = r2_score(table[held_out, -1], theirs.predict(table[held_out, :-1]))
    assert examples.plainly(task, table).metric("r2")[0] == pytest.approx(r2, abs=0.02)


def test_accuracy_on_digits_is_near_that_of_scikit_learn() -> None:
    table = examples.dataset("digits")
    task = examples.task(
        "digits", momentum=0.9, batch_size=64, learning_rates=(0.3,) * 5, metrics=("accuracy",)
    )
    held_out = rows.split(task)[0]
    fitted, labels = np.delete(table, held_out, axis=0), table[held_out, 64:].argmax(axis=1)
    theirs = LogisticRegression(max_iter=2000).fit(fitted[:, :64], fitted[:, 64:].argmax(axis=1))
    accuracy = theirs.score(table[held_out, :64], labels)
    assert examples.plainly(task, table).metric("accuracy")[0] == pytest.approx(accuracy, abs=0.03)


# -- edges -------------------------------------------------------------------------------------


def little(count: int, features: int, classes: int = 1, *, seed: int = 0) -> Reals:
    """Random encoded rows; classes by a random direction."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(-1, 1, (count, features))
    scores = x @ draw.normal(size=(features, max(2, classes)))
    chosen = scores.argmax(axis=1)
    chosen[:classes] = np.arange(classes)  # every class occurs
    y = examples.one_hot(chosen) if classes > 1 else (chosen == 1).astype(np.float64)[:, None]
    return np.hstack([x, y])


def test_a_batch_of_all_rows_and_a_last_batch_of_one() -> None:
    table = little(33, 3)
    for size in (33, 100, 32, 1):
        task = examples.task_on(table, "logistic", 1, batch_size=size, momentum=0.9)
        assert difference(task, table) < CLOSE


def test_one_feature_and_no_intercept() -> None:
    table = little(20, 1)
    task = examples.task_on(table, "logistic", 1, intercept=False, standardize=True)
    result = examples.plainly(task, table)
    assert "intercept" not in result.outputs
    assert np.abs(result.weights() - reference.fit(task, table).weights).max() < CLOSE


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_softmax_of_few_and_many_classes(classes: int) -> None:
    table = little(60, 4, classes)
    task = examples.task_on(table, "softmax", classes, learning_rates=(0.5,) * 3)
    assert difference(task, table) < CLOSE


def test_rates_that_become_tiny_or_are() -> None:
    table = little(200, 5)
    schedule = tuple(0.3 * 0.01**epoch for epoch in range(8))
    for rates in (schedule, (1e-6,) * 3, (1e-12,)):
        task = examples.task_on(table, "logistic", 1, learning_rates=rates, batch_size=100, l2=0.5)
        assert difference(task, table) < 1e-5


def test_a_constant_column_stays_finite() -> None:
    table = little(50, 3)
    table[:, 1] = 0.25
    task = examples.task_on(table, "logistic", 1, standardize=True, learning_rates=(0.3,) * 5)
    result = examples.plainly(task, table)
    assert result.outputs["inverse_deviation"][1] == pytest.approx(1024, rel=1e-3)
    assert abs(result.outputs["weights"][1, 0]) < 1e-3  # it is zero in the design matrix
    without = np.delete(table, 1, axis=1)
    twin = reference.fit(
        examples.task_on(without, "logistic", 1, standardize=True, learning_rates=(0.3,) * 5),
        without,
    )
    assert np.abs(np.delete(result.weights(), 1, axis=0) - twin.weights).max() < CLOSE


@pytest.mark.parametrize("bound", [3.0, 1000.0, 2.0**20])
def test_raw_columns_are_standardised_in_their_own_unit(bound: float) -> None:
    table = little(80, 3)
    raw = table * np.array([1, bound, bound / 7, 1])
    bounds = (1.0, bound, bound / 7)
    task = examples.task_on(
        raw, "logistic", 1, standardize=True, feature_bounds=bounds, metrics=("accuracy",)
    )
    result, twin = examples.plainly(task, raw), reference.fit(task, raw)
    assert np.abs(result.weights() - twin.weights).max() < CLOSE
    assert np.abs((result.outputs["mean"] - twin.mean) / np.array(bounds)).max() < 1e-6
    assert np.abs(result.outputs["inverse_deviation"] * twin.deviation - 1).max() < 1e-5


@pytest.mark.parametrize("bound", [3.0, 1000.0, 2.0**20])
def test_raw_columns_as_they_are(bound: float) -> None:
    table = little(80, 3)
    table[:, 1] *= bound
    rates = (0.1 / bound**2,) * 4
    task = examples.task_on(
        table, "logistic", 1, feature_bounds=(1.0, bound, 1.0), learning_rates=rates
    )
    assert difference(task, table) < CLOSE
