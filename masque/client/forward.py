"""The forward pass of a trained network in float64: what `plain` and the parties compute too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from masque.client.predictor import Floats
from masque.ml.layers import AveragePool, BatchNorm, Conv2d, Dense, Layer, MaxPool
from masque.ml.network import Network

AT_ONCE = 2**22
"""Values of one layer that are held at once."""


def forward(network: Network, parameters: Mapping[str, Floats], X: Floats) -> Floats:
    """Scores [rows, outputs] of encoded, standardised rows X [rows, features]."""
    shapes = network.shapes()
    rows = max(1, AT_ONCE // max(prod(shape) for shape in shapes))
    parts = [X[start : start + rows] for start in range(0, max(1, len(X)), rows)]
    return np.concatenate([_part(network, parameters, part) for part in parts])


def _part(network: Network, parameters: Mapping[str, Floats], X: Floats) -> Floats:
    x = X.reshape(len(X), *network.input_shape)
    for index, layer in enumerate(network.layers):
        step = _STEPS.get(layer.kind)
        if step is not None:
            head = f"{index}."
            own = {n.removeprefix(head): p for n, p in parameters.items() if n.startswith(head)}
            x = step(layer, own, x)
    return x


def _dense(layer: Dense, own: Mapping[str, Floats], x: Floats) -> Floats:
    z: Floats = x @ own["weight"]
    return z + own["bias"] if layer.bias else z


def _conv2d(layer: Conv2d, own: Mapping[str, Floats], x: Floats) -> Floats:
    (down, across), sides = layer.padding, ((0, 0), (0, 0))
    padded = np.pad(x, (*sides, (down, down), (across, across)))
    windows = _windows(padded, layer.kernel, layer.stride)
    z: Floats = np.einsum("nchwij,ocij->nohw", windows, own["weight"], optimize=True)
    return z + own["bias"].reshape(1, -1, 1, 1) if layer.bias else z


def _max_pool(layer: MaxPool, _: Mapping[str, Floats], x: Floats) -> Floats:
    return np.asarray(_windows(x, layer.size, layer.stride).max(axis=(4, 5)))


def _average_pool(layer: AveragePool, _: Mapping[str, Floats], x: Floats) -> Floats:
    return np.asarray(_windows(x, layer.size, layer.stride).mean(axis=(4, 5)))


def _windows(x: Floats, size: tuple[int, int], stride: tuple[int, int]) -> Floats:
    """[rows, channels, height', width', *size]: a view."""
    found: Floats = sliding_window_view(x, size, axis=(2, 3))
    return found[:, :, :: stride[0], :: stride[1]]


def _batch_norm(layer: BatchNorm, own: Mapping[str, Floats], x: Floats) -> Floats:
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    inverse = 1.0 / np.sqrt(own["variance"] + layer.epsilon)
    unit = (x - own["mean"].reshape(shape)) * inverse.reshape(shape)
    found: Floats = unit * own["scale"].reshape(shape) + own["shift"].reshape(shape)
    return found


def _flatten(_: Layer, __: Mapping[str, Floats], x: Floats) -> Floats:
    return x.reshape(len(x), prod(x.shape[1:]))


def _relu(_: Layer, __: Mapping[str, Floats], x: Floats) -> Floats:
    return np.maximum(x, 0.0)


def _sigmoid(_: Layer, __: Mapping[str, Floats], x: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def _tanh(_: Layer, __: Mapping[str, Floats], x: Floats) -> Floats:
    return np.tanh(x)


_STEPS: Mapping[str, Callable[[Any, Mapping[str, Floats], Floats], Floats]] = {
    "dense": _dense,
    "conv2d": _conv2d,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "batch_norm": _batch_norm,
    "flatten": _flatten,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "dropout": lambda _, __, x: x,
}
