"""Metrics of given scores against scikit-learn's on the same scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from masque.errors import SpecError
from masque.ml import metrics
from masque.ml.bounds import DATA_SCALE
from masque.ml.task import Kind
from masque.ml.training import build
from masque.mpc.public import public_array
from masque.mpc.trace import Trace

from . import examples
from .examples import Reals, run_block

SCORES = 40.0  # bound


def measured(kind: Kind, names: tuple[str, ...], z: Reals, y: Reals) -> dict[str, Reals]:
    """The metrics `names` of scores z and labels y [rows, classes], through the real blocks."""
    table = np.hstack([np.zeros((len(z), 1)), y])
    task = examples.task_on(
        table, kind, y.shape[1], metrics=names, holdout_rows=len(z), training_rows=1
    )
    label_scale = metrics.label_scale(task)
    values = {
        "z": public_array(z, metrics.SCORE_SCALE),
        "y": public_array(y, label_scale),
    }
    values |= {"all z": values["z"], "all y": values["y"]}
    totals = metrics.totals(task, SCORES)
    values |= {t.name: np.zeros(t.shape, dtype=np.uint64) for t in totals.values()}
    added = run_block(metrics.totals_block(task, len(z), SCORES), values)
    if "auc" in names:
        added |= run_block(metrics.pairs_block(task, len(z), SCORES), values)
    trace = Trace("metrics", 2)
    summed = {name: total.input(trace) for name, total in totals.items()}
    for name in names:
        trace.output(name, metrics.of(task, name, summed), metrics.METRIC_SCALE)
    found = run_block(trace.freeze(), {n: v.view(np.uint64) for n, v in added.items()})
    return {name: value / 2.0**metrics.METRIC_SCALE for name, value in found.items()}


def binary(seed: int, rows: int = 90) -> tuple[Reals, Reals]:
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, rows).astype(np.float64)
    return np.round(draw.normal(size=rows) + y, 1)[:, None], y[:, None]  # with ties


@pytest.mark.parametrize("seed", [0, 1])
def test_binary_metrics(seed: int) -> None:
    z, y = binary(seed)
    got = measured("logistic", ("accuracy", "confusion", "auc", "log_loss"), z, y)
    assert got["accuracy"][0] == pytest.approx(np.mean((z > 0) == y), abs=1e-6)
    confusion = sklearn_metrics.confusion_matrix(y.ravel(), z.ravel() > 0)
    assert np.array_equal(got["confusion"], confusion)
    rounded = np.rint(z * 2**16)  # scores have 16 fraction bits
    auc = sklearn_metrics.roc_auc_score(y.ravel(), rounded.ravel())
    assert got["auc"][0] == pytest.approx(auc, abs=2e-5)
    log_loss = sklearn_metrics.log_loss(y.ravel(), 1 / (1 + np.exp(-z.ravel())))
    assert got["log_loss"][0] == pytest.approx(log_loss, abs=2e-4)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=24))
def test_auc_of_integers_with_ties(pairs: list[tuple[int, bool]]) -> None:
    z, y = (np.array(column, dtype=np.float64)[:, None] for column in zip(*pairs, strict=True))
    got = measured("logistic", ("auc",), z, y)["auc"][0]
    if 0 < y.sum() < len(y):
        expected = sklearn_metrics.roc_auc_score(y.ravel(), z.ravel())
        assert got == pytest.approx(expected, abs=2e-5)
    else:
        assert got == 0.0  # one class only: defined as 0


def test_a_score_of_zero_predicts_the_first_class_as_scikit_learn_does() -> None:
    y = np.array([[1.0], [0.0]])
    got = measured("logistic", ("confusion",), np.zeros((2, 1)), y)["confusion"]
    assert np.array_equal(got, [[1, 0], [1, 0]])


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_metrics_of_several_classes(classes: int) -> None:
    draw = np.random.default_rng(classes)
    labels = np.concatenate([np.arange(classes), draw.integers(0, classes, 40)])
    z = np.round(draw.normal(size=(len(labels), classes)) * 3, 1)
    y = examples.one_hot(labels)
    got = measured("softmax", ("accuracy", "confusion", "log_loss"), z, y)
    predicted = z.argmax(axis=1)  # ties go to the first, as ours do
    assert got["accuracy"][0] == pytest.approx(np.mean(predicted == labels), abs=1e-6)
    assert np.array_equal(got["confusion"], sklearn_metrics.confusion_matrix(labels, predicted))
    powers = np.exp(z)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    expected = sklearn_metrics.log_loss(labels, probabilities)
    assert got["log_loss"][0] == pytest.approx(expected, abs=2e-4)


def test_log_loss_of_hopeless_scores_is_large_and_right() -> None:
    y = np.array([[1.0, 0.0], [0.0, 1.0]])
    z = np.array([[-20.0, 20.0], [39.0, -39.0]])
    got = measured("softmax", ("log_loss",), z, y)["log_loss"][0]
    assert got == pytest.approx((40 + 78) / 2, abs=1e-3)


def test_r2() -> None:
    draw = np.random.default_rng(5)
    for noise, offset in ((0.1, 0.0), (0.5, 0.4), (2.0, -0.5)):
        y = np.clip(draw.normal(size=(70, 1)) * 0.3 + offset, -1, 1)
        z = y + draw.normal(size=y.shape) * noise
        got = measured("linear", ("r2",), z, y)["r2"][0]
        assert got == pytest.approx(sklearn_metrics.r2_score(y, z), abs=1e-3, rel=1e-3)


def test_r2_of_few_rows() -> None:
    y, z = np.array([[0.5], [-0.5]]), np.array([[0.25], [-0.5]])
    got = measured("linear", ("r2",), z, y)["r2"][0]
    assert got == pytest.approx(sklearn_metrics.r2_score(y, z), abs=1e-3)


def test_r2_of_constant_labels_is_as_if_they_had_the_least_variance() -> None:
    y, z = np.full((16, 1), 0.5), np.full((16, 1), 0.25)
    got = measured("linear", ("r2",), z, y)["r2"][0]
    assert got == pytest.approx(1 - 0.25**2 / metrics.LEAST_LABEL_VARIANCE, rel=1e-3)


def test_r2_of_predictions_far_away_saturates_and_never_wraps() -> None:
    y = np.array([[1.0], [-1.0]] * 4)
    got = measured("linear", ("r2",), np.full((8, 1), SCORES), y)["r2"][0]
    assert got == pytest.approx(sklearn_metrics.r2_score(y, np.full((8, 1), SCORES)), rel=1e-3)


def test_one_class_only_gives_defined_values() -> None:
    z = np.array([[1.0], [-2.0], [3.0]])
    got = measured("logistic", ("accuracy", "auc", "confusion", "log_loss"), z, np.zeros((3, 1)))
    assert got["accuracy"][0] == pytest.approx(1 / 3, abs=1e-6)
    assert got["auc"][0] == 0
    assert np.array_equal(got["confusion"], [[1, 2], [0, 0]])
    assert got["log_loss"][0] == pytest.approx(np.mean(np.log1p(np.exp(z))), abs=2e-4)


def test_auc_of_too_many_rows_is_refused_by_name() -> None:
    table = np.zeros((5200, 2))
    task = examples.task_on(table, "logistic", 1, metrics=("auc",), holdout_rows=4097)
    with pytest.raises(SpecError, match="log_loss") as caught:
        build(task)
    assert caught.value.where["field"] == "reveal.metrics"


def test_label_scale_of_numbers_is_that_of_data() -> None:
    table = examples.dataset("diabetes")
    assert metrics.label_scale(examples.task_on(table, "linear", 1)) == DATA_SCALE
