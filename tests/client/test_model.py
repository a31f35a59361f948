"""The model in the owners' units, in scikit-learn, and in every kind of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.client import export
from masque.client.model import Model, in_owners_units
from masque.client.predictor import Floats
from masque.client.reading import read
from masque.client.scikit import to_sklearn
from masque.data.table import FeatureColumn, LabelInfo
from masque.errors import InputError, ProtocolError

KINDS: dict[str, LabelInfo] = {
    "linear_regression": LabelInfo(name="y", kind="number", middle=150.0, half=50.0),
    "logistic_regression": LabelInfo(name="y", kind="binary", classes=("no", "yes")),
    "softmax_regression": LabelInfo(name="y", kind="classes", classes=("0", "1", "2")),
}


def columns(random: np.random.Generator, count: int) -> list[FeatureColumn]:
    return [
        FeatureColumn(
            name=f"f{index}",
            source=f"f{index}",
            kind="number",
            middle=float(random.normal() * 100),
            half=float(random.uniform(0.01, 500)),
        )
        for index in range(count)
    ]


def trained(
    kind: Any, seed: int = 0, *, standardized: bool = True, bound: float = 64.0
) -> tuple[Model, list[FeatureColumn], dict[str, Floats]]:
    random = np.random.default_rng(seed)
    features, outputs = columns(random, 4), 3 if kind == "softmax_regression" else 1
    values = {"weights": random.normal(size=(4, outputs)), "intercept": random.normal(size=outputs)}
    if standardized:
        values["mean"] = random.uniform(-0.5, 0.5, size=4)
        values["inverse_deviation"] = random.uniform(0.5, 20, size=4)
    return in_owners_units(kind, features, KINDS[kind], values, bound), features, values


def raw_rows(features: list[FeatureColumn], rows: int = 50) -> Floats:
    random = np.random.default_rng(1)
    encoded = random.uniform(-1, 1, size=(rows, len(features)))
    return encoded * [f.half for f in features] + [f.middle for f in features]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("standardized", [True, False])
def test_scores_are_those_of_the_encoded_rows(kind: str, standardized: bool) -> None:
    model, features, values = trained(kind, standardized=standardized)
    raw = raw_rows(features)
    encoded = (raw - [f.middle for f in features]) / [f.half for f in features]
    if standardized:
        encoded = (encoded - values["mean"]) * values["inverse_deviation"]
    expected = encoded @ values["weights"] + values["intercept"]
    if kind == "linear_regression":
        expected = 150.0 + 50.0 * expected
    found = model.decision_function(raw)
    assert np.allclose(found.reshape(expected.shape), expected, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(sorted(KINDS)))
@settings(max_examples=30, deadline=None)
def test_scikit_learn_predicts_the_same(seed: int, kind: str) -> None:
    model, features, _ = trained(kind, seed)
    raw, estimator = raw_rows(features), to_sklearn(model)
    assert (estimator.predict(raw) == model.predict(raw)).all() or np.allclose(
        estimator.predict(raw), model.predict(raw)
    )
    if kind != "linear_regression":
        assert np.allclose(estimator.predict_proba(raw), model.predict_proba(raw), atol=1e-12)
        assert np.allclose(estimator.decision_function(raw), model.decision_function(raw))


def test_two_classes_of_a_softmax_are_one_row_in_scikit_learn() -> None:
    label = LabelInfo(name="y", kind="classes", classes=("b", "a"))
    random = np.random.default_rng(3)
    features = columns(random, 4)
    values = {"weights": random.normal(size=(4, 2)), "intercept": random.normal(size=2)}
    model = in_owners_units("softmax_regression", features, label, values, 64.0)
    raw, estimator = raw_rows(features), to_sklearn(model)
    assert (estimator.predict(raw) == model.predict(raw)).all()
    assert np.allclose(estimator.predict_proba(raw), model.predict_proba(raw), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_predicts_the_same(kind: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, features, _ = trained(kind)
    path = tmp_path / "model.onnx"
    assert export.write(model, path, about={"job": "j"}) == "onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    narrow = raw_rows(features).astype(np.float32)
    raw = narrow.astype(np.float64)
    outputs = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {"X": narrow}), strict=True)
    )
    if kind == "linear_regression":
        assert np.allclose(outputs["prediction"], model.predict(raw), rtol=1e-6)
        return
    assert (np.asarray(outputs["label"]) == model.predict(raw)).all()
    assert np.allclose(outputs["probabilities"], model.predict_proba(raw), atol=1e-6)
    assert np.asarray(outputs["label"]).dtype.kind == ("i" if "softmax" in kind else "O")


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_the_whole_model(kind: str, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    model, _, _ = trained(kind)
    about = {"job": "j-1", "metrics": {"accuracy": 0.5}}
    for suffix in ("npz", "json", "safetensors"):
        assert export.write(model, tmp_path / f"m.{suffix}", about=about) == suffix
    with np.load(tmp_path / "m.npz") as arrays:
        assert (arrays["coefficients"] == model.coefficients).all()
        assert (arrays["intercept"] == model.intercept).all()
        assert arrays["features"].tolist() == list(model.features)
        assert json.loads(str(arrays["about"]))["metrics"] == {"accuracy": 0.5}
    for suffix in ("npz", "json", "safetensors"):
        again = read(tmp_path / f"m.{suffix}")
        assert isinstance(again, Model)
        assert (again.coefficients == model.coefficients).all()
        assert (again.intercept == model.intercept).all()
        assert again.classes == model.classes
        assert again.kind == kind
    with safetensors.safe_open(tmp_path / "m.safetensors", "np") as file:
        assert (file.get_tensor("coefficients") == model.coefficients).all()
        assert json.loads(file.metadata()["masque"])["features"] == list(model.features)


def test_a_weight_at_the_bound_is_told() -> None:
    _, features, values = trained("logistic_regression")
    values["weights"][2, 0] = -8.0
    label = KINDS["logistic_regression"]
    warned = in_owners_units("logistic_regression", features, label, values, 8.0)
    assert warned.warnings == (
        "A weight sits at the weight bound (8): training may have diverged; lower the learning"
        " rate, or raise model.weight_bound.",
    )
    assert not in_owners_units("logistic_regression", features, label, values, 8.1).warnings


def test_outputs_of_another_shape_are_refused() -> None:
    _, features, values = trained("logistic_regression")
    label = KINDS["logistic_regression"]
    with pytest.raises(ProtocolError, match=r"intercept has the shape \(3,\), not \(1,\)"):
        in_owners_units(
            "logistic_regression", features, label, values | {"intercept": np.zeros(3)}, 64.0
        )
    del values["weights"]
    with pytest.raises(ProtocolError, match="weights is missing"):
        in_owners_units("logistic_regression", features, label, values, 64.0)


def test_a_matrix_of_other_columns_is_refused() -> None:
    model, _, _ = trained("logistic_regression")
    with pytest.raises(InputError, match="needs a matrix with 4 columns, not 2x3"):
        model.predict(np.zeros((2, 3)))
    linear, _, _ = trained("linear_regression")
    with pytest.raises(InputError, match="no probabilities"):
        linear.predict_proba(np.zeros((2, 4)))


def test_formats_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say which format") as caught:
        export.format_of("model.bin")
    assert ".onnx" in caught.value.hint
    with pytest.raises(InputError, match="no format 'onx'") as caught:
        export.format_of("model.bin", "onx")
    assert caught.value.hint == "Did you mean 'onnx'?"
    model, _, _ = trained("logistic_regression")
    with pytest.raises(InputError, match="cannot be written"):
        export.write(model, tmp_path / "no" / "model.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match="is not a model"):
        read(tmp_path / "other.json")
