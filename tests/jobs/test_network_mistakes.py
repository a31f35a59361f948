"""What the author of a job file is told about a network that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from tests.jobs import examples
from tests.jobs.test_networks import IMAGE, image, refused, values
from tests.jobs.test_spec import mistakes, only

D1 = {"kind": "dense", "units": 1}


@pytest.mark.parametrize(
    ("changes", "field", "part"),
    [
        ({"model__layers": ["relo", D1]}, "model.layers[0]", "be 'relo'. Did you mean 'relu'?"),
        ({"model__layers": ["dense", D1]}, "model.layers[0]", "Write {kind: dense, units: 128}."),
        ({"model__layers": ["gru", D1]}, "model.layers[0]", "Known: dense, conv2d, max_pool, av"),
        ({"model__layers": [3, D1]}, "model.layers[0]", "must be a group of `key: value` lines"),
        ({"model__layers": [{"units": 3}]}, "model.layers[0]", "has no kind. Known kinds: dense"),
        ({"model__layers": [{"kind": "Dense"}]}, "model.layers[0].kind", "mean 'dense'?"),
        ({"model__layers": [{"knd": "relu"}]}, "model.layers[0].knd", "Did you mean 'kind'?"),
        ({"model__layers": [{"kind": "dense"}]}, "model.layers[0].units", "units: 128"),
        ({"model__layers": [D1 | {"unit": 3}]}, "model.layers[0].unit", "mean 'units'?"),
        ({"model__layers": [D1 | {"rate": 3}]}, "model.layers[0].rate", "It is one of dropout."),
        ({"model__layers": [D1 | {"units": 0}]}, "model.layers[0].units", "at least 1, not 0"),
        ({"model__layers": [D1 | {"bias": 0}]}, "model.layers[0].bias", "true or false, not 0"),
        ({"model__layers": "relu"}, "model.layers", "must be a list, not 'relu'. Write [relu]."),
        ({"model__layers": []}, "model.layers", "has fewer than 1 entries"),
        ({"model__layers": [D1] * 65}, "model.layers", "has more than 64 entries"),
        ({"model__layers": ["conv2d"]}, "model.layers[0]", "{kind: conv2d, channels: 16, kernel"),
        ({"model__layers": ...}, "model", "has neither network nor layers"),
        ({"model__network": "a"}, "model", "has network and layers"),
        ({"model__network": "e"}, "model.network", "cannot be 'e'. Known: a, b, c, d."),
        ({"model__layers": [D1, "relu"]}, "model.layers[1]", "relu is not a score"),
        ({"model__layers": ["relu", "flatten"]}, "model.layers", "have no weights"),
        ({"model__layer": [D1]}, "model.layer", "Did you mean 'layers'?"),
        ({"model__fit_intercept": True}, "model.fit_intercept", "is no key of 'sequential'"),
        ({"model__loss": "mse"}, "model.loss", "cannot be 'mse'. Known: squared_error, bin"),
        ({"model__loss": "hinge"}, "model.loss", "Known: squared_error"),
        (
            {"model__loss": "softmax_cross_entropy"},
            "model.layers[2]",
            "gives 1 score, but softmax_cross_entropy needs one a class",
        ),
        (
            {"model__loss": "squared_error", "model__layers": [D1 | {"units": 2}]},
            "model.layers[0]",
            "gives 2 scores, but squared_error needs one. Change its units",
        ),
        ({"model__input_shape": 64}, "model.input_shape", "[channels, height, width]"),
        ({"model__input_shape": [8, 8]}, "model.input_shape", "one or three whole numbers"),
        ({"model__input_shape": [0]}, "model.input_shape", "one or three whole numbers"),
        ({"model__input_shape": [True]}, "model.input_shape", "one or three whole numbers"),
        ({"model__input_shape": IMAGE}, "model.layers[0]", "put flatten before it"),
        ({"model__weight_bound": 2048}, "model.weight_bound", "at most 1024, not 2048"),
        ({"training__gradient_clip": 0}, "training.gradient_clip", "more than 0, not 0"),
        ({"gradient_clip": 1}, "gradient_clip", "It belongs in training."),
        (
            {"training__optimizer": {"kind": "adam", "learning_rate": 0.1, "epsilon": 1e-8}},
            "training.optimizer.epsilon",
            "at least 1e-05, not 1e-08",
        ),
        (
            {"training__optimizer": {"kind": "adam", "learning_rate": 0.1, "beta_1": 0.9}},
            "training.optimizer.beta_1",
            "Did you mean 'beta1'?",
        ),
        (
            {"training__optimizer": {"kind": "adam", "learning_rate": 0.1, "momentum": 0.9}},
            "training.optimizer.momentum",
            "is no key of 'adam'. It is one of sgd.",
        ),
        (
            {"model__loss": "squared_error", "reveal": {"metrics": ["auc"], "to": "all"}},
            "reveal.metrics[0]",
            "cannot be 'auc' for a network with squared_error. It can be r2.",
        ),
        (
            {
                "model__loss": "binary_cross_entropy",
                "training__early_stop": {"metric": "squared_error"},
            },
            "training.early_stop.metric",
            "It can be log_loss",
        ),
    ],
)
def test_a_mistake_names_its_field_and_its_cure(
    changes: dict[str, Any], field: str, part: str
) -> None:
    where, text = only(values(**changes))
    assert where == field
    assert part in text


CONV = {"kind": "conv2d", "channels": 2, "kernel": 3}


@pytest.mark.parametrize(
    ("layers", "field", "part"),
    [
        ([{"kind": "conv2d", "kernel": 3}], "model.layers[0].channels", "channels: 16"),
        ([CONV | {"kernel": 0}], "model.layers[0].kernel", "two whole numbers of 1 to 64, not 0"),
        ([CONV | {"kernel": [3, 3, 3]}], "model.layers[0].kernel", "Write 5, or [5, 3]"),
        ([CONV | {"kernel": [3, 2.0]}], "model.layers[0].kernel", "not [3, 2.0]"),
        ([CONV | {"stride": True}], "model.layers[0].stride", "not True"),
        ([CONV | {"padding": -1}], "model.layers[0].padding", "of 0 to 64, not -1"),
        ([CONV | {"padding": 3}, "flatten", D1], "model.layers[0]", "not below the kernel"),
        ([CONV | {"kernel": 9}, "flatten", D1], "model.layers[0]", "kernel of (9, 9) is larger"),
        ([CONV], "model.layers[0]", "gives [2, 6, 6] a row, but the last layer must give scores"),
        ([CONV, D1], "model.layers[1]", "reads flat rows, not (2, 6, 6): put flatten before it"),
        (["flatten", CONV, D1], "model.layers[1]", "reads [channels, height, width], not (64,)"),
        ([{"kind": "max_pool"}, "flatten", D1], "model.layers[0].size", "size: 2"),
        ([{"kind": "max_pool", "size": 9}, "flatten", D1], "model.layers[0]", "larger than rows"),
        ([{"kind": "dropout", "rate": 1}, "flatten", D1], "model.layers[0].rate", "at most 0.9"),
    ],
)
def test_mistakes_in_networks_on_images(layers: list[Any], field: str, part: str) -> None:
    where, text = only(image(model__layers=layers))
    assert where == field
    assert part in text


def test_images_need_a_shape() -> None:
    where, text = only(image(model__input_shape=...))
    assert where == "model.input_shape"
    assert "layer 0, conv2d, reads [channels, height, width]. Add it" in text
    where, text = only(image(model__input_shape=..., model__layers=[D1, CONV]))
    assert (where, "(1,)" in text) == ("model.layers[1]", True)


def test_networks_that_are_too_large() -> None:
    wide = [{"kind": "dense", "units": 65_536}, {"kind": "dense", "units": 1}]
    assert (
        "makes 67239937 parameters"
        in only(values(model__layers=wide, model__input_shape=[1024]))[1]
    )
    assert "makes 67239937 parameters" in refused(examples.LABEL, 1024, model__layers=wide)
    deep = [CONV | {"channels": 4096, "padding": 1}, "flatten", D1]
    found = mistakes(values(model__layers=deep, model__input_shape=[1, 64, 64]))
    assert [mistake["problem"][:30] for mistake in found] == [
        "makes 16818177 parameters, whi",
        "makes 16777216 values of one r",
    ]


def test_all_mistakes_are_told_with_their_lines() -> None:
    text = """\
name: net
data: {rows: [a], label: y}
model:
  kind: sequential
  layers:
    - {kind: dense, unts: 3}
    - relo
    - conv2d
    - {kind: max_pool, size: x}
training: {epochs: 1, batch_size: 2, optimizer: {kind: adam}}
model_output: {sealed_to: [analyst]}
"""
    found = [(m["line"], m["field"]) for m in mistakes(text)]
    assert found == [
        (6, "model.layers[0].unts"),
        (7, "model.layers[1]"),
        (8, "model.layers[2]"),
        (9, "model.layers[3].size"),
        (10, "training.optimizer.learning_rate"),
    ]


@pytest.mark.parametrize("kind", ["linear_regression", "logistic_regression"])
def test_linear_models_are_not_networks(kind: str) -> None:
    adam = {"kind": "adam", "learning_rate": 0.1}
    changes: dict[str, Any] = {"model": {"kind": kind}, "training__gradient_clip": 1.0}
    found = mistakes(values(**changes, training__optimizer=adam))
    assert [m["field"] for m in found] == ["training.optimizer.kind", "training.gradient_clip"]
    where, text = only(values(model={"kind": kind, "layers": []}))
    assert where == "model.layers"
    assert f"is no key of '{kind}'. It is one of sequential." in text
