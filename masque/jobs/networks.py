"""Does a network fit together, and its inputs and scores the data? And what training knows of it.

What follows from the job file alone is judged by `complaints_about_network`, the rest, with the
data sets at hand, by `complaints_about_data`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from masque.data.table import LabelInfo, LabelKind
from masque.errors import SpecError
from masque.jobs.complaints import Complaint
from masque.jobs.document import Where
from masque.jobs.fit import label_in_words
from masque.jobs.layers import (
    AveragePoolSpec,
    BatchNormSpec,
    Conv2dSpec,
    DenseSpec,
    DropoutSpec,
    LayerSpec,
    MaxPoolSpec,
)
from masque.jobs.models import Loss, SequentialSpec
from masque.ml import layers as ml
from masque.ml.network import NETWORKS, Network

LOSSES: Mapping[LabelKind, Loss] = {
    "number": "squared_error",
    "binary": "binary_cross_entropy",
    "classes": "softmax_cross_entropy",
}
"""The loss of each kind of label."""

NO_SCORES = ("relu", "sigmoid", "tanh", "dropout")
"""Layers that cannot be the last: losses read plain scores, and apply their own sigmoid."""

READ_IMAGES = ("conv2d", "max_pool", "average_pool")
MOST_PARAMETERS = 2**24
MOST_VALUES = 2**20
"""Of one row, at any layer."""


_FIELDLESS: Mapping[str, ml.Layer] = {
    layer.kind: layer for layer in (ml.Relu(), ml.Sigmoid(), ml.Tanh(), ml.Flatten())
}


def layer_of(spec: LayerSpec) -> ml.Layer:
    """The layer in the terms of masque.ml."""
    if isinstance(spec, DenseSpec):
        return ml.Dense(spec.units, spec.bias)
    if isinstance(spec, Conv2dSpec):
        return ml.Conv2d(spec.channels, spec.kernel, spec.stride, spec.padding, spec.bias)
    if isinstance(spec, MaxPoolSpec):
        return ml.MaxPool(spec.size, spec.stride or spec.size)
    if isinstance(spec, AveragePoolSpec):
        return ml.AveragePool(spec.size, spec.stride or spec.size)
    if isinstance(spec, DropoutSpec):
        return ml.Dropout(spec.rate)
    if isinstance(spec, BatchNormSpec):
        return ml.BatchNorm(spec.momentum, spec.epsilon)
    return _FIELDLESS[spec.kind]


def described(layer: ml.Layer) -> dict[str, Any]:
    """A layer as a job file has it, ready for JSON: its kind, then its fields."""
    fields = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(layer).items()
    }
    return {"kind": layer.kind, **fields}


def declared_shape(model: SequentialSpec) -> tuple[int, ...] | None:
    """What a row of data enters as, as far as the job file says; None: a flat row."""
    if model.input_shape is not None or model.network is None:
        return model.input_shape
    return NETWORKS[model.network][0]


def network_of(model: SequentialSpec, features: int) -> Network:
    """The network in the terms of masque.ml, for rows of `features` columns."""
    if model.layers is not None:
        layers = tuple(layer_of(layer) for layer in model.layers)
    else:
        assert model.network is not None, "judged by complaints_about_network"
        layers = NETWORKS[model.network][1]
    return Network(
        input_shape=declared_shape(model) or (features,),
        layers=layers,
        weight_bound=model.weight_bound,
        activation_bound=model.activation_bound,
        gradient_bound=model.gradient_bound,
    )


def complaints_about_network(model: SequentialSpec) -> Iterator[Complaint]:
    """What is wrong with a network whatever the data; of flat rows as wide as they are."""
    if (model.network is None) == (model.layers is None):
        yield Complaint(
            ("model",),
            "has neither network nor layers" if model.layers is None else "has network and layers",
            "Give network: a, b, c or d, or layers: [...].",
        )
        return
    network = network_of(model, 1)
    try:
        shapes = network.shapes()
    except SpecError as error:
        yield _misfit(model, network, error)
        return
    yield from _last_layer(model, network, shapes[-1])
    if model.loss is not None and len(shapes[-1]) == 1:
        several = model.loss == "softmax_cross_entropy"
        if several != (shapes[-1][0] > 1):
            yield Complaint(
                _place(model, len(network.layers) - 1),
                f"gives {_count(shapes[-1][0])}, but {model.loss} needs"
                f" {'one a class' if several else 'one'}",
                "Change its units, or the loss.",
            )
    if declared_shape(model) is not None:
        yield from _sizes(model, network)


def complaints_about_data(
    model: SequentialSpec, features: int, label: LabelInfo | None
) -> Iterator[Complaint]:
    """What does not fit between a network and data sets with `features` columns and `label`."""
    shape = declared_shape(model)
    if shape is not None and prod(shape) != features:
        given = model.input_shape is not None
        what = f"is {list(shape)}" if given else f"{model.network!r} reads {list(shape)}"
        yield Complaint(
            ("model", "input_shape" if given else "network"),
            f"{what}: {prod(shape)} values a row, but the data sets have {features} feature"
            " columns",
            "Their product must be the number of columns."
            if given
            else f"Give the shape of a row, for example input_shape: [{features}].",
        )
        return
    network = network_of(model, features)
    if shape is None:
        yield from _sizes(model, network)
    if label is None:
        return
    due = LOSSES[label.kind]
    if model.loss not in (None, due):
        yield Complaint(
            ("model", "loss"),
            f"cannot be {model.loss}: the label {label.name!r} is {label_in_words(label)}",
            f"It can be {due}; left out, it follows from the label.",
        )
        return
    scores = network.shapes()[-1][0]
    if scores != label.columns:
        yield Complaint(
            _place(model, len(network.layers) - 1),
            f"gives {_count(scores)}, but the label {label.name!r} is {label_in_words(label)}",
            f"Give the last layer {label.columns} unit{'s' * (label.columns > 1)}."
            if model.layers
            else f"Write its layers with {label.columns} units at the end.",
        )


def _misfit(model: SequentialSpec, network: Network, error: SpecError) -> Complaint:
    """The complaint about the layer that `Network.shapes` found not to fit."""
    index = int(str(error.where["field"]).rpartition(".")[2])
    before = [layer.kind for layer in network.layers[:index]]
    kind = network.layers[index].kind
    if declared_shape(model) is None and kind in READ_IMAGES and "dense" not in before:
        return Complaint(
            ("model", "input_shape"),
            f"is missing: layer {index}, {kind}, reads [channels, height, width]",
            "Add it, for example input_shape: [1, 28, 28].",
        )
    problem = error.message.removeprefix(f"layer {index} ").removesuffix(".")
    if model.layers is None:
        problem = f"has a layer {index} that {problem}"
    return Complaint(_place(model, index), problem, error.hint)


def _last_layer(
    model: SequentialSpec, network: Network, scores: tuple[int, ...]
) -> Iterator[Complaint]:
    """Does it end with scores, and are there weights to learn?"""
    if not network.parameters():
        yield Complaint(("model", "layers"), "have no weights", "Add {kind: dense, units: 10}.")
        return
    last = len(network.layers) - 1
    kind = network.layers[last].kind
    if len(scores) != 1:
        yield Complaint(
            _place(model, last),
            f"gives {list(scores)} a row, but the last layer must give scores",
            "Put flatten and dense behind it.",
        )
    elif kind in NO_SCORES:
        yield Complaint(
            _place(model, last),
            f"cannot be the last layer: {kind} is not a score",
            "End with dense: the loss applies its own sigmoid or softmax.",
        )


def _sizes(model: SequentialSpec, network: Network) -> Iterator[Complaint]:
    """Is it small enough to be held in memory?"""
    where: Where = ("model", "layers" if model.layers is not None else "network")
    count = sum(prod(parameter.shape) for parameter in network.parameters().values())
    if count > MOST_PARAMETERS:
        yield Complaint(
            where,
            f"makes {count} parameters, which is more than {MOST_PARAMETERS}",
            "Give dense layers fewer units, or pool before them.",
        )
    largest = max(prod(shape) for shape in network.shapes())
    if largest > MOST_VALUES:
        yield Complaint(
            where,
            f"makes {largest} values of one row, which is more than {MOST_VALUES}",
            "Give layers fewer channels or units.",
        )


def _place(model: SequentialSpec, index: int) -> Where:
    return ("model", "network") if model.layers is None else ("model", "layers", index)


def _count(scores: int) -> str:
    return "1 score" if scores == 1 else f"{scores} scores"
