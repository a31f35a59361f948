"""The layers of networks in float64 numpy, forward and backward, as a textbook has them.

Windows and scatters are written out as loops over places of a kernel; nothing here knows limits,
scales or rounding. `Pass` is what one pass over a layer has to know: parameters by name, what it
keeps for the way back, and what training changes besides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from masque.ml import layers as ml

Reals = NDArray[np.float64]


@dataclass
class Pass:
    """One pass over one layer; `keep`: what dropout multiplies by, None outside of training."""

    parameters: dict[str, Reals]
    training: bool = True
    keep: Reals | None = None
    kept: dict[str, Reals] = field(default_factory=dict)
    updates: dict[str, Reals] = field(default_factory=dict)


def forward(layer: ml.Layer, x: Reals, at: Pass) -> Reals:
    """What leaves a layer that x enters."""
    at.kept["x"], p = x, at.parameters
    match layer:
        case ml.Dense():
            return np.asarray(x @ p["weight"] + p.get("bias", 0.0))
        case ml.Conv2d():
            z = sum(
                np.einsum("nchw,oc->nohw", _under(x, layer, i, j), p["weight"][:, :, i, j])
                for i, j in _places(layer.kernel)
            )
            return np.asarray(z + p.get("bias", np.zeros(1)).reshape(1, -1, 1, 1))
        case ml.MaxPool():
            return np.asarray(windows(x, layer).max(axis=0))
        case ml.AveragePool():
            return np.asarray(windows(x, layer).mean(axis=0))
        case ml.BatchNorm():
            return _normalised(layer, x, at)
        case ml.Dropout():
            return x if at.keep is None else x * at.keep
        case ml.Flatten():
            return x.reshape(len(x), -1)
        case ml.Relu():
            return np.maximum(x, 0)
        case ml.Sigmoid():
            return np.asarray(1 / (1 + np.exp(-x)))
        case ml.Tanh():
            return np.tanh(x)
    raise AssertionError(layer)


def backward(layer: ml.Layer, dz: Reals, at: Pass) -> tuple[Reals, dict[str, Reals]]:
    """The gradient by what entered, and by the parameters."""
    x, p = at.kept["x"], at.parameters
    match layer:
        case ml.Dense():
            return dz @ p["weight"].T, {"weight": x.T @ dz, "bias": dz.sum(axis=0)}
        case ml.Conv2d():
            return _conv2d_gradients(layer, x, dz, p["weight"])
        case ml.MaxPool():
            return _to_winners(layer, x, dz), {}
        case ml.AveragePool():
            dx = np.zeros_like(x)
            for i, j in _places(layer.size):
                _under(dx, layer, i, j)[...] += dz / np.prod(layer.size)
            return dx, {}
        case ml.BatchNorm():
            return _normalised_gradients(layer, x, dz, p)
        case ml.Dropout():
            return (dz if at.keep is None else dz * at.keep), {}
        case ml.Flatten():
            return dz.reshape(x.shape), {}
        case ml.Relu():
            return dz * (x > 0), {}
        case ml.Sigmoid():
            return dz / (2 + np.exp(x) + np.exp(-x)), {}
        case ml.Tanh():
            return dz / np.cosh(x) ** 2, {}
    raise AssertionError(layer)


# -- windows -----------------------------------------------------------------------------------


def _places(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(size[0]) for j in range(size[1]))


def _under(x: Reals, layer: ml.Conv2d | ml.MaxPool | ml.AveragePool, i: int, j: int) -> Reals:
    """The elements under place (i, j) of the kernel, at every position; a view without padding."""
    if isinstance(layer, ml.Conv2d):
        (a, b), size = layer.padding, layer.kernel
        x = np.pad(x, ((0, 0), (0, 0), (a, a), (b, b))) if a or b else x
    else:
        size = layer.size
    down, right = layer.stride
    high, wide = ((x.shape[2 + k] - size[k]) // layer.stride[k] + 1 for k in (0, 1))
    return x[:, :, i : i + down * (high - 1) + 1 : down, j : j + right * (wide - 1) + 1 : right]


def windows(x: Reals, layer: ml.MaxPool | ml.AveragePool) -> Reals:
    """[places, rows, channels, height', width']."""
    return np.stack([_under(x, layer, i, j) for i, j in _places(layer.size)])


def _conv2d_gradients(
    layer: ml.Conv2d, x: Reals, dz: Reals, w: Reals
) -> tuple[Reals, dict[str, Reals]]:
    (a, b), dw = layer.padding, np.zeros_like(w)
    padded = np.zeros((*x.shape[:2], x.shape[2] + 2 * a, x.shape[3] + 2 * b))
    bare = ml.Conv2d(layer.channels, layer.kernel, layer.stride)
    for i, j in _places(layer.kernel):
        dw[:, :, i, j] = np.einsum("nohw,nchw->oc", dz, _under(x, layer, i, j))
        _under(padded, bare, i, j)[...] += np.einsum("nohw,oc->nchw", dz, w[:, :, i, j])
    dx = padded[:, :, a : a + x.shape[2], b : b + x.shape[3]]
    return dx, {"weight": dw, "bias": dz.sum(axis=(0, 2, 3))}


def _to_winners(layer: ml.MaxPool, x: Reals, dz: Reals) -> Reals:
    """Every gradient goes to the first of the largest of its window."""
    winner, dx = windows(x, layer).argmax(axis=0), np.zeros_like(x)
    for place, (i, j) in enumerate(_places(layer.size)):
        _under(dx, layer, i, j)[...] += dz * (winner == place)
    return dx


# -- batch normalisation -----------------------------------------------------------------------


def _over(x: Reals) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes that statistics are over, and the shape of a number a feature or channel."""
    return ((0,), (1, -1)) if x.ndim == 2 else ((0, 2, 3), (1, -1, 1, 1))


def _normalised(layer: ml.BatchNorm, x: Reals, at: Pass) -> Reals:
    axes, shape = _over(x)
    p = {name: value.reshape(shape) for name, value in at.parameters.items()}
    mean, variance = p["mean"], p["variance"]
    if at.training:
        mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
        for name, value in (("mean", mean), ("variance", variance)):
            follows = layer.momentum * p[name] + (1 - layer.momentum) * value
            at.updates[name] = follows.reshape(-1)
    unit = (x - mean) / np.sqrt(variance + layer.epsilon)
    return np.asarray(p["scale"] * unit + p["shift"])


def _normalised_gradients(
    layer: ml.BatchNorm, x: Reals, dz: Reals, p: dict[str, Reals]
) -> tuple[Reals, dict[str, Reals]]:
    """By the chain rule through mean and variance, each written out."""
    axes, shape = _over(x)
    count = x.size // x.shape[1]
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = x.var(axis=axes, keepdims=True) + layer.epsilon
    dunit = dz * p["scale"].reshape(shape)
    dvariance = (dunit * centred).sum(axis=axes, keepdims=True) * -0.5 * variance**-1.5
    dcentred = dunit / np.sqrt(variance) + dvariance * 2 * centred / count
    dx = dcentred - dcentred.mean(axis=axes, keepdims=True)
    unit = centred / np.sqrt(variance)
    return dx, {"scale": (dz * unit).sum(axis=axes), "shift": dz.sum(axis=axes)}
