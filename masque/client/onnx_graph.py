"""The ONNX graph of a model.

Input `X` float32 [rows, features] in the owners' units; outputs `prediction` float32 [rows] for
numbers, or `label` [rows] and `probabilities` float32 [rows, classes]. Linear models, and what is
done to columns before a network, are computed in double precision; a network's layers in single,
for which runtimes have all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper

from masque.client.model import Model
from masque.client.network_model import NetworkModel
from masque.client.predictor import Predictor
from masque.ml.layers import AveragePool, BatchNorm, Conv2d, Dense, MaxPool
from masque.version import __version__

OPSET = 17
IR_VERSION = 8
SINGLE, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE


@dataclass
class _Graph:
    """Nodes and constants as they are added; `x` is the name of the value that flows."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    x: str = "X"

    def constant(self, name: str, kind: int, values: Any) -> str:
        """Adds a tensor; returns its name."""
        array = np.asarray(values)
        text = array.dtype.kind == "U"
        flat = [str(value).encode() for value in array] if text else array.ravel()
        self.constants.append(helper.make_tensor(name, kind, list(array.shape), flat))
        return name

    def step(self, operator: str, named: str, /, *more: str, **attributes: Any) -> None:
        """x <- operator(x, *more), as `named`."""
        self.nodes.append(helper.make_node(operator, [self.x, *more], [named], **attributes))
        self.x = named


def model_bytes(model: Predictor, facts: Mapping[str, Any]) -> bytes:
    """A checked ONNX model with `facts` in its metadata."""
    graph = _Graph()
    graph.step("Cast", "wide", to=DOUBLE)
    if isinstance(model, NetworkModel):
        _network(graph, model)
    else:
        assert isinstance(model, Model)
        graph.step("MatMul", "products", graph.constant("coefficients", DOUBLE, model.coefficients))
        graph.step("Add", "scores", graph.constant("intercept", DOUBLE, model.intercept))
    outputs = _number(graph) if model.target == "number" else _classes(graph, model)
    columns = ["rows", len(model.features)]
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "masque",
            [helper.make_tensor_value_info("X", SINGLE, columns)],
            outputs,
            graph.constants,
        ),
        producer_name="masque",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(made, {"masque": json.dumps(facts)})
    checker.check_model(made)
    return bytes(made.SerializeToString())


def _number(graph: _Graph) -> list[Any]:
    graph.step("Squeeze", "flat", graph.constant("last", TensorProto.INT64, [1]))
    graph.step("Cast", "prediction", to=SINGLE)
    return [helper.make_tensor_value_info("prediction", SINGLE, ["rows"])]


def _classes(graph: _Graph, model: Predictor) -> list[Any]:
    if model.target == "binary":
        graph.step("Sigmoid", "positive")
        one = graph.constant("one", DOUBLE, [1.0])
        graph.nodes += [
            helper.make_node("Sub", [one, "positive"], ["negative"]),
            helper.make_node("Concat", ["negative", "positive"], ["exact"], axis=1),
        ]
    else:
        graph.step("Softmax", "exact", axis=1)
    values = model.class_values
    kind = TensorProto.INT64 if values.dtype.kind == "i" else TensorProto.STRING
    classes = graph.constant("classes", kind, values)
    graph.nodes += [
        helper.make_node("ArgMax", ["exact"], ["place"], axis=1, keepdims=0),
        helper.make_node("Gather", [classes, "place"], ["label"], axis=0),
        helper.make_node("Cast", ["exact"], ["probabilities"], to=SINGLE),
    ]
    return [
        helper.make_tensor_value_info("label", kind, ["rows"]),
        helper.make_tensor_value_info("probabilities", SINGLE, ["rows", len(model.classes)]),
    ]


# -- networks ------------------------------------------------------------------------------------


def _network(graph: _Graph, model: NetworkModel) -> None:
    """From `wide` to `scores`, both in double precision."""
    steps = zip(("Sub", "Div", "Sub", "Mul"), vars(model.preprocessing).items(), strict=True)
    for operator, (name, values) in steps:
        graph.step(operator, f"after {name}", graph.constant(name, DOUBLE, values))
    graph.step("Cast", "narrow", to=SINGLE)
    shape = graph.constant("input_shape", TensorProto.INT64, [-1, *model.network.input_shape])
    graph.step("Reshape", "row", shape)
    for index, layer in enumerate(model.network.layers):
        if layer.kind in _PLAIN:
            graph.step(_PLAIN[layer.kind], f"{index}")
        elif layer.kind in _LAYERS:
            head = f"{index}."
            own = {
                name.removeprefix(head): graph.constant(name, SINGLE, values)
                for name, values in model.parameters.items()
                if name.startswith(head)
            }
            _LAYERS[layer.kind](graph, f"{index}", layer, own)
    graph.step("Cast", "scores", to=DOUBLE)
    if model.target == "number":
        graph.step("Mul", "spread", graph.constant("label_half", DOUBLE, [model.label_half]))
        graph.step("Add", "number", graph.constant("label_middle", DOUBLE, [model.label_middle]))


_PLAIN = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "flatten": "Flatten"}


def _dense(graph: _Graph, to: str, layer: Dense, own: Mapping[str, str]) -> None:
    graph.step("MatMul", f"{to} products", own["weight"])
    if layer.bias:
        graph.step("Add", to, own["bias"])


def _conv2d(graph: _Graph, to: str, layer: Conv2d, own: Mapping[str, str]) -> None:
    pads, sizes = [*layer.padding, *layer.padding], list(layer.kernel)
    strides = list(layer.stride)
    graph.step("Conv", to, *own.values(), kernel_shape=sizes, strides=strides, pads=pads)


def _pool(graph: _Graph, to: str, layer: MaxPool | AveragePool, _: Mapping[str, str]) -> None:
    operator = "MaxPool" if isinstance(layer, MaxPool) else "AveragePool"
    graph.step(operator, to, kernel_shape=list(layer.size), strides=list(layer.stride))


def _batch_norm(graph: _Graph, to: str, layer: BatchNorm, own: Mapping[str, str]) -> None:
    inputs = [own[name] for name in ("scale", "shift", "mean", "variance")]
    graph.step("BatchNormalization", to, *inputs, epsilon=layer.epsilon)


_LAYERS: Mapping[str, Callable[[_Graph, str, Any, Mapping[str, str]], None]] = {
    "dense": _dense,
    "conv2d": _conv2d,
    "max_pool": _pool,
    "average_pool": _pool,
    "batch_norm": _batch_norm,
}
"""Dropout is not there: it does nothing once a network is trained."""
