"""Networks at their recipient: predictions in the owners' units, and every kind of file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.client import export, forward
from masque.client.network_model import NetworkModel, network_model
from masque.client.predictor import Floats
from masque.client.reading import read
from masque.client.scikit import to_sklearn
from masque.data.table import FeatureColumn, LabelInfo
from masque.errors import InputError, ProtocolError
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
from masque.ml.network import NETWORKS, Network

LABELS: Mapping[str, LabelInfo] = {
    "number": LabelInfo(name="y", kind="number", middle=150.0, half=50.0),
    "binary": LabelInfo(name="y", kind="binary", classes=("no", "yes")),
    "classes": LabelInfo(name="y", kind="classes", classes=("0", "1", "2")),
}
MLP: tuple[Layer, ...] = (
    *(Dense(7), BatchNorm(), Relu(), Dropout(0.5)),
    *(Dense(5, bias=False), Tanh(), Dense(4), Sigmoid()),
)
CNN: tuple[Layer, ...] = (
    Conv2d(4, (3, 2), (1, 2), (1, 0)),
    BatchNorm(momentum=0.5, epsilon=0.01),
    Relu(),
    MaxPool((2, 2), (1, 1)),
    Conv2d(3, (2, 2), bias=False),
    Tanh(),
    AveragePool((2, 1), (2, 1)),
    *(Dropout(0.1), Flatten(), Dense(6), Sigmoid()),
)
NETWORKS_HERE: Mapping[str, tuple[tuple[int, ...], tuple[Layer, ...]]] = {
    "mlp": ((16,), MLP),
    "cnn": ((2, 8, 9), CNN),
}


def trained(name: str, target: str, *, seed: int = 0, standardized: bool = True) -> NetworkModel:
    """A network with made-up parameters."""
    random = np.random.default_rng(seed)
    shape, layers = NETWORKS_HERE[name]
    network = Network(shape, (*layers, Dense(LABELS[target].columns)))
    count = prod(shape)
    values = parameters(network, random)
    if standardized:
        values["mean"] = random.uniform(-0.5, 0.5, size=count)
        values["inverse_deviation"] = random.uniform(0.5, 3, size=count)
    return network_model(network, columns(count, random), LABELS[target], values)


def parameters(network: Network, random: np.random.Generator) -> dict[str, Floats]:
    return {
        name: random.uniform(0.5, 2, size=p.shape)
        if name.endswith("variance")
        else random.normal(size=p.shape) * 0.5
        for name, p in network.parameters().items()
    }


def columns(count: int, random: np.random.Generator) -> list[FeatureColumn]:
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


def raw_rows(model: NetworkModel, rows: int = 40) -> Floats:
    encoded = np.random.default_rng(1).uniform(-1, 1, size=(rows, len(model.features)))
    return encoded * model.preprocessing.half + model.preprocessing.middle


def slowly(model: NetworkModel, row: Floats) -> Floats:
    """Scores of one row, element by element."""
    before = model.preprocessing
    x = (row - before.middle) / before.half
    x = ((x - before.mean) * before.inverse_deviation).reshape(model.network.input_shape)
    for index, layer in enumerate(model.network.layers):
        own = {
            name.partition(".")[2]: value
            for name, value in model.parameters.items()
            if name.startswith(f"{index}.")
        }
        x = one_layer(layer, own, x)
    return x


def one_layer(layer: Layer, own: dict[str, Floats], x: Floats) -> Floats:
    if isinstance(layer, Dense):
        z = np.array(
            [sum(x[i] * own["weight"][i, j] for i in range(len(x))) for j in range(layer.units)]
        )
        return z + own.get("bias", 0.0)
    if isinstance(layer, Conv2d | MaxPool | AveragePool):
        return windowed(layer, own, x)
    if isinstance(layer, BatchNorm):
        z = np.zeros_like(x)
        for i in range(len(x)):
            deviation = (own["variance"][i] + layer.epsilon) ** 0.5
            z[i] = (x[i] - own["mean"][i]) / deviation * own["scale"][i] + own["shift"][i]
        return z
    if isinstance(layer, Flatten):
        return x.ravel()
    if isinstance(layer, Relu):
        return np.where(x > 0, x, 0.0)
    if isinstance(layer, Sigmoid):
        return np.asarray(1 / (1 + np.exp(-x)))
    return np.tanh(x) if isinstance(layer, Tanh) else x


def windowed(layer: Any, own: dict[str, Floats], x: Floats) -> Floats:
    size = layer.kernel if isinstance(layer, Conv2d) else layer.size
    z = np.zeros(layer.output_shape(x.shape))
    if isinstance(layer, Conv2d):
        x = np.pad(x, ((0, 0), *((p, p) for p in layer.padding)))
    for c, i, j in np.ndindex(*z.shape):
        top, left = i * layer.stride[0], j * layer.stride[1]
        window = x[:, top : top + size[0], left : left + size[1]]
        if isinstance(layer, Conv2d):
            z[c, i, j] = (window * own["weight"][c]).sum()
            z[c, i, j] += own["bias"][c] if layer.bias else 0.0
        else:
            z[c, i, j] = window[c].max() if isinstance(layer, MaxPool) else window[c].mean()
    return z


@pytest.mark.parametrize("standardized", [True, False])
@pytest.mark.parametrize("target", LABELS)
@pytest.mark.parametrize("name", NETWORKS_HERE)
def test_scores_are_those_of_layer_after_layer(name: str, target: str, standardized: bool) -> None:
    model = trained(name, target, standardized=standardized)
    raw = raw_rows(model, 5)
    expected = np.stack([slowly(model, row) for row in raw])
    if target == "number":
        expected = 150.0 + 50.0 * expected
    found = model.decision_function(raw)
    assert model.target == target
    assert np.allclose(found.reshape(expected.shape), expected, rtol=1e-11, atol=1e-11)
    if target == "number":
        assert (model.predict(raw) == found).all()
        return
    probabilities = model.predict_proba(raw)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (model.class_values[probabilities.argmax(axis=1)] == model.predict(raw)).all()


def test_many_rows_are_predicted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained("cnn", "classes")
    raw = raw_rows(model, 23)
    whole = model.decision_function(raw)
    monkeypatch.setattr(forward, "AT_ONCE", 1000)
    assert np.allclose(model.decision_function(raw), whole, rtol=1e-13)
    assert model.decision_function(raw[:0]).shape == (0, 3)


@pytest.mark.parametrize("target", LABELS)
@pytest.mark.parametrize("name", NETWORKS_HERE)
def test_onnxruntime_predicts_the_same(name: str, target: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = trained(name, target)
    path = tmp_path / "model.onnx"
    assert export.write(model, path, about={"job": "j"}) == "onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    narrow = raw_rows(model).astype(np.float32)
    raw = narrow.astype(np.float64)
    outputs = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {"X": narrow}), strict=True)
    )
    facts = json.loads(session.get_modelmeta().custom_metadata_map["masque"])
    assert facts["layers"][0]["kind"] == model.network.layers[0].kind
    if target == "number":
        assert np.allclose(outputs["prediction"], model.predict(raw), rtol=1e-5, atol=1e-3)
        return
    assert np.allclose(outputs["probabilities"], model.predict_proba(raw), atol=1e-5)
    assert (np.asarray(outputs["label"]) == model.predict(raw)).mean() >= 0.95
    clear = np.sort(model.predict_proba(raw), axis=1)
    certain = clear[:, -1] - clear[:, -2] > 1e-4
    assert (np.asarray(outputs["label"]) == model.predict(raw))[certain].all()
    assert certain.sum() > 30


@pytest.mark.parametrize("suffix", ["npz", "json", "safetensors"])
@pytest.mark.parametrize("target", LABELS)
@pytest.mark.parametrize("name", NETWORKS_HERE)
def test_files_hold_the_whole_model(name: str, target: str, suffix: str, tmp_path: Path) -> None:
    model = trained(name, target)
    path = tmp_path / f"m.{suffix}"
    assert export.write(model, path, about={"job": "j-1"}) == suffix
    again = read(path)
    assert isinstance(again, NetworkModel)
    assert again.network == model.network
    assert (again.features, again.label, again.classes) == (
        model.features,
        model.label,
        model.classes,
    )
    for key, array in model.arrays().items():
        assert (again.arrays()[key] == array).all()
    assert list(again.arrays()) == list(model.arrays())
    raw = raw_rows(model)
    assert (again.decision_function(raw) == model.decision_function(raw)).all()
    assert (again.predict(raw) == model.predict(raw)).all()


@given(st.integers(0, 10_000), st.sampled_from(sorted(LABELS)))
@settings(max_examples=20, deadline=None)
def test_any_network_is_read_back(tmp_path_factory: Any, seed: int, target: str) -> None:
    random = np.random.default_rng(seed)
    layers: list[Layer] = []
    for _ in range(random.integers(0, 4)):
        layers += [Dense(int(random.integers(1, 9)), bool(random.integers(2)))]
        layers += [[Relu(), Tanh(), Sigmoid(), BatchNorm(), Dropout(0.5)][random.integers(5)]]
    network = Network((3,), (*layers, Dense(LABELS[target].columns)), 4.0, 5.0, 6.0)
    values = parameters(network, random)
    model = network_model(network, columns(3, random), LABELS[target], values)
    path = tmp_path_factory.mktemp("any") / "m.npz"
    export.write(model, path)
    again = read(path)
    assert isinstance(again, NetworkModel)
    assert again.network == network
    raw = raw_rows(model, 3)
    assert (again.decision_function(raw) == model.decision_function(raw)).all()


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    model = trained("mlp", "classes")
    whole = json.loads(json.dumps(export.as_json(model, {})))
    changes: list[tuple[str, Any]] = [
        ("format", "masque model 2"),
        ("0.weight", None),
        ("0.weight", [[1.0]]),
        ("layers", [{"kind": "relu"}]),
        ("layers", [{"kind": "gru"}]),
        ("layers", whole["layers"][:-1]),
        ("input_shape", [3]),
        ("middle", [1.0]),
        ("label_half", "x"),
        ("features", None),
        ("weight_bound", -1),
    ]
    path = tmp_path / "m.json"
    for key, value in changes:
        content = whole | {key: value}
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match="is not a model that Masque wrote as json"):
            read(path)
    export.write(model, tmp_path / "m.npz")
    raw = (tmp_path / "m.npz").read_bytes()
    (tmp_path / "m.npz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match="is not a model that Masque wrote as npz"):
        read(tmp_path / "m.npz")
    (tmp_path / "m.safetensors").write_bytes(raw)
    with pytest.raises(InputError, match="is not a model that Masque wrote as safetensors"):
        read(tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read(tmp_path / "none.npz")
    with pytest.raises(InputError, match="only writes ONNX"):
        read(tmp_path / "m.onnx")


@pytest.mark.parametrize(("name", "index", "kind"), [("mlp", 4, "dense"), ("cnn", 4, "conv2d")])
def test_weights_at_the_bound_are_told(name: str, index: int, kind: str) -> None:
    model = trained(name, "classes")
    weight = model.parameters[f"{index}.weight"]
    units = weight.T if kind == "dense" else weight
    longest = float(np.sqrt((units.reshape(len(units), -1) ** 2).sum(axis=1)).max())
    others = {key: array * 1e-3 for key, array in model.parameters.items()}
    values = others | {f"{index}.weight": weight}
    features = columns(len(model.features), np.random.default_rng(0))

    def warned(bound: float) -> tuple[str, ...]:
        limited = Network(model.network.input_shape, model.network.layers, bound)
        return network_model(limited, features, LABELS["classes"], values).warnings

    assert warned(longest * 1.001) == ()
    (text,) = warned(longest * 1.00005)
    assert text.startswith(f"The weights into a unit of layer {index} ({kind}) sit at the weight")
    assert "raise model.weight_bound" in text


def test_outputs_of_another_shape_are_refused() -> None:
    model = trained("mlp", "binary")
    features = columns(16, np.random.default_rng(0))

    def made(values: dict[str, Floats]) -> NetworkModel:
        return network_model(model.network, features, LABELS["binary"], values)

    values = dict(model.parameters)
    with pytest.raises(ProtocolError, match=r"0.bias has the shape \(3,\), not \(7,\)"):
        made(values | {"0.bias": np.zeros(3)})
    with pytest.raises(ProtocolError, match=r"mean has the shape \(3,\), not \(16,\)"):
        made(values | {"mean": np.zeros(3)})
    del values["1.variance"]
    with pytest.raises(ProtocolError, match=r"1.variance is missing"):
        made(values)


def test_what_a_network_cannot_do() -> None:
    with pytest.raises(InputError, match="A model of numbers has no probabilities"):
        trained("mlp", "number").predict_proba(np.zeros((1, 16)))
    with pytest.raises(InputError, match="needs a matrix with 16 columns, not 2x3"):
        trained("mlp", "binary").predict(np.zeros((2, 3)))
    with pytest.raises(InputError, match="no estimator that predicts what this network"):
        to_sklearn(trained("mlp", "binary"))


def test_a_table_of_layers() -> None:
    shape, layers = NETWORKS["b"]
    network = Network(shape, layers)
    random = np.random.default_rng(0)
    label = LabelInfo(name="y", kind="classes", classes=tuple("0123456789"))
    model = network_model(network, columns(784, random), label, parameters(network, random))
    lines = list(model.lines())
    assert lines[0] == (0, "conv2d", "16x24x24", 416)
    assert lines[-1] == (9, "dense", "10", 1010)
    assert sum(line[3] for line in lines) == sum(a.size for a in model.parameters.values())
