"""Networks in job files: what is accepted, what is refused and how, and what training gets."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import deepcopy
from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.data.table import LabelInfo
from masque.errors import Refused, SpecError
from masque.jobs import policy
from masque.jobs.bound import BoundJob, read_bound
from masque.jobs.compile import task_of
from masque.jobs.limits import Case
from masque.jobs.models import SequentialSpec
from masque.jobs.networks import complaints_about_network, described, network_of
from masque.jobs.spec import JobSpec, from_values, parse
from masque.ml.layers import (
    AveragePool,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    Relu,
    Sigmoid,
    Tanh,
)
from masque.ml.network import NETWORKS, Adam, Sgd
from tests.jobs import examples
from tests.jobs.test_spec import TREES, only

DIGITS = LabelInfo(name="malignant", kind="classes", classes=tuple("0123456789"))
PRICE = LabelInfo(name="malignant", kind="number", middle=50.0, half=50.0)
CONVOLUTION = [
    {"kind": "conv2d", "channels": 4, "kernel": 3, "padding": [1, 0]},
    "batch_norm",
    "relu",
    {"kind": "max_pool", "size": 2},
    {"kind": "average_pool", "size": [1, 2], "stride": 1},
    "flatten",
    {"kind": "dropout", "rate": 0.25},
    {"kind": "dense", "units": 6, "bias": False},
    "tanh",
    "sigmoid",
    {"kind": "dense", "units": 10},
]
IMAGE = [1, 8, 8]


def values(**changes: Any) -> dict[str, Any]:
    """A job with a small network of dense layers and no metrics; changes as in the examples."""
    layers = [{"kind": "dense", "units": 3}, "relu", {"kind": "dense", "units": 1}]
    start = {"model": {"kind": "sequential", "layers": layers}, "reveal": ...}
    return examples.values(**(start | changes))


def image(**changes: Any) -> dict[str, Any]:
    """A job with every kind of layer on images."""
    return values(**{"model__layers": CONVOLUTION, "model__input_shape": IMAGE} | changes)


def tables(label: LabelInfo, features: int = 64) -> list[Any]:
    names = [f"pixel-{index}" for index in range(features)]
    return [examples.table(f"hospital-{x}", 100, *names, label=label) for x in "ab"]


def bound(label: LabelInfo = examples.LABEL, features: int = 2, **changes: Any) -> BoundJob:
    return examples.bound(from_values(values(**changes)), tables(label, features))


def model_of(spec: JobSpec) -> SequentialSpec:
    assert isinstance(spec.model, SequentialSpec)
    return spec.model


def refused(label: LabelInfo, features: int = 2, **changes: Any) -> str:
    with pytest.raises(SpecError) as caught:
        bound(label, features, **changes)
    return str(caught.value)


def test_every_layer_becomes_one_of_training() -> None:
    network = network_of(model_of(from_values(image())), 64)
    assert network.layers == (
        Conv2d(4, (3, 3), (1, 1), (1, 0)),
        BatchNorm(),
        Relu(),
        MaxPool((2, 2), (2, 2)),
        AveragePool((1, 2), (1, 1)),
        Flatten(),
        Dropout(0.25),
        Dense(6, bias=False),
        Tanh(),
        Sigmoid(),
        Dense(10),
    )
    assert network.input_shape == (1, 8, 8)
    assert network.shapes()[-1] == (10,)
    limits = network.weight_bound, network.activation_bound, network.gradient_bound
    assert limits == (8.0, 16.0, 64.0)


def test_layers_are_described_as_a_job_file_has_them() -> None:
    spec = model_of(from_values(image()))
    network = network_of(spec, 64)
    written = [described(layer) for layer in network.layers]
    again = model_of(from_values(image(model__layers=json.loads(json.dumps(written)))))
    assert network_of(again, 64) == network


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_of_the_field(name: str) -> None:
    changes: dict[str, Any] = {"model": {"kind": "sequential", "network": name}}
    job = bound(DIGITS, 784, **changes)
    network = task_of(job).network
    assert network is not None
    assert (network.input_shape, network.layers) == NETWORKS[name]
    assert "model.network" in refused(DIGITS, 783, **changes)
    assert "784 values a row, but the data sets have 783" in refused(DIGITS, 783, **changes)
    assert "Write its layers with 1 units at the end" in refused(PRICE, 784, **changes)


def test_a_named_network_on_other_rows() -> None:
    small = {"kind": "sequential", "network": "a", "input_shape": [64]}
    network = task_of(bound(DIGITS, 64, model=small)).network
    assert network is not None
    assert network.shapes()[0] == (64,)
    where, text = only(values(model=small | {"network": "b", "input_shape": [1, 6, 6]}))
    assert where == "model.network"
    assert "has a layer 1 that does not fit: a window of (2, 2) is larger" not in text
    assert "has a layer 3 that does not fit: a kernel of (5, 5) is larger" in text


def test_what_training_gets() -> None:
    adam = {"kind": "adam", "learning_rate": 0.01, "beta1": 0.8, "epsilon": 0.001}
    job = bound(
        examples.LABEL,
        2,
        training__optimizer=adam,
        training__gradient_clip=0.5,
        training__epochs=2,
        model__l2=0.25,
        model__weight_bound=4,
        reveal={"metrics": ["accuracy", "auc", "log_loss", "confusion"], "to": "all"},
        training__early_stop={"metric": "log_loss"},
    )
    task = task_of(job)
    assert task.kind == "logistic"
    assert task.optimizer == Adam(0.8, 0.999, 0.001)
    assert (task.gradient_clip, task.l2, task.learning_rates) == (0.5, 0.25, (0.01, 0.01))
    assert (task.intercept, task.momentum, task.weight_bound) == (False, 0.0, 4.0)
    assert task.network is not None
    assert task.network.weight_bound == 4.0
    assert task.network.input_shape == (2,)
    assert task_of(bound(PRICE)).kind == "linear"
    assert task_of(bound(PRICE)).optimizer == Sgd(0.9)
    linear = task_of(examples.bound())
    assert (linear.network, linear.optimizer, linear.gradient_clip) == (None, None, None)


def test_a_bound_network_is_read_back() -> None:
    spec = from_values(image())
    job = examples.bound(spec, tables(DIGITS))
    assert read_bound(job.canonical(), "coordinator") == job
    task = task_of(read_bound(job.canonical(), "coordinator"))
    assert task == task_of(job)
    hash(task)


@pytest.mark.parametrize(
    "change",
    [
        {"model__layers": [*CONVOLUTION[:-1], {"kind": "dense", "units": 10, "bias": False}]},
        {"model__layers": [*CONVOLUTION[:6], {"kind": "dropout", "rate": 0.3}, *CONVOLUTION[7:]]},
        {"model__input_shape": [1, 4, 16]},
        {"model__loss": "softmax_cross_entropy"},
        {"model__l2": 0.5},
        {"model__weight_bound": 9},
        {"model__activation_bound": 9},
        {"model__gradient_bound": 9},
        {"training__gradient_clip": 1.0},
        {"training__optimizer": {"kind": "adam", "learning_rate": 0.1}},
    ],
    ids=str,
)
def test_everything_changes_the_digest(change: dict[str, Any]) -> None:
    one = examples.bound(from_values(image()), tables(DIGITS))
    other = examples.bound(from_values(image(**change)), tables(DIGITS))
    assert one.digest() != other.digest()


def test_spellings_do_not_change_the_digest() -> None:
    long = [{"kind": layer} if isinstance(layer, str) else layer for layer in CONVOLUTION]
    long[0] = long[0] | {"kernel": [3, 3], "stride": 1, "bias": True}  # type: ignore[operator]
    one = examples.bound(from_values(image()), tables(DIGITS))
    assert examples.bound(from_values(image(model__layers=long)), tables(DIGITS)) == one


def test_data_that_do_not_fit() -> None:
    shape = refused(DIGITS, 63, **image_model())
    assert "model.input_shape is [1, 8, 8]: 64 values a row, but the data sets have 63" in shape
    classes = refused(PRICE, 64, **image_model())
    assert "model.layers[10] gives 10 scores, but the label 'malignant' is a number" in classes
    assert "Give the last layer 1 unit." in classes
    assert "Give the last layer 10 units." in refused(DIGITS)
    loss = refused(examples.LABEL, 2, model__loss="squared_error")
    assert "model.loss cannot be squared_error: the label 'malignant' is binary" in loss
    assert "It can be binary_cross_entropy; left out, it follows from the label." in loss
    assert bound(PRICE, 2, model__loss="squared_error").label == PRICE
    metrics = refused(PRICE, 2, reveal={"metrics": ["auc"], "to": "all"})
    assert "reveal.metrics[0] cannot be 'auc' for a network with squared_error" in metrics
    stop = refused(PRICE, 2, training__early_stop={"metric": "log_loss"})
    assert "training.early_stop.metric cannot be 'log_loss'" in stop


def image_model() -> dict[str, Any]:
    return {"model__layers": CONVOLUTION, "model__input_shape": IMAGE}


def test_a_policy_names_networks() -> None:
    job = bound()
    policy.parse("models: [sequential]").check(Case(job, []), "party-0")
    with pytest.raises(Refused, match="does not allow 'sequential'"):
        policy.parse("models: [logistic_regression]").check(Case(job, []), "party-0")


SIZES = st.integers(-1, 70) | st.lists(st.integers(0, 6), min_size=1, max_size=3)
WORDS = st.sampled_from(["relu", "sigmoid", "tanh", "flatten", "batch_norm", "dense", "x"])
LAYERS = st.one_of(
    WORDS,
    st.fixed_dictionaries({"kind": st.just("dense"), "units": st.integers(-1, 20)}),
    st.fixed_dictionaries(
        {"kind": st.just("conv2d"), "channels": st.integers(0, 5), "kernel": SIZES},
        optional={"stride": SIZES, "padding": SIZES, "bias": st.booleans()},
    ),
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["max_pool", "average_pool"]), "size": SIZES},
        optional={"stride": SIZES},
    ),
    st.fixed_dictionaries({"kind": st.just("dropout"), "rate": st.floats(-1, 2)}),
    TREES,
)


@given(st.lists(LAYERS, max_size=6), st.sampled_from([None, [64], [1, 8, 8], [4, 4, 4]]) | TREES)
def test_whatever_is_accepted_fits_together(layers: list[Any], shape: Any) -> None:
    changed = values(model__layers=layers, model__input_shape=... if shape is None else shape)
    try:
        spec = from_values(changed)
    except SpecError:
        with suppress(TypeError, ValueError), pytest.raises(SpecError):
            parse(json.dumps(changed))
        return
    assert parse(json.dumps(changed)) == spec
    model = model_of(spec)
    shapes = network_of(model, 64).shapes()
    assert len(shapes[-1]) == 1
    assert prod(shapes[0]) >= 1
    assert not list(complaints_about_network(model))
    for label in (DIGITS, PRICE, examples.LABEL):
        with suppress(SpecError):
            job = examples.bound(spec, tables(label))
            assert task_of(read_bound(job.canonical(), "x")).network == network_of(model, 64)
            assert shapes[-1] == (label.columns,)


@given(st.data())
def test_no_change_raises_anything_but_spec_error(data: st.DataObject) -> None:
    changed = deepcopy(image(training__optimizer={"kind": "adam", "learning_rate": 0.1}))
    section: Any = changed
    while isinstance(section, dict | list) and section:
        keys = sorted(section) if isinstance(section, dict) else range(len(section))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(section[key], dict | list) or data.draw(st.booleans()):
            section[key] = data.draw(TREES)
            break
        section = section[key]
    text = json.dumps(changed)
    try:
        assert parse(text) == from_values(changed)
    except SpecError:
        with pytest.raises(SpecError):
            from_values(changed)
