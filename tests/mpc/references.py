"""Bilinear products as their definitions say, element by element, in Python's whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from masque.mpc.convolution import Pair, positions
from masque.mpc.types import Array

WORD = 1 << 64


def _padded(x: Array, padding: Pair) -> Array:
    (ph, pw), (n, c, height, width) = padding, x.shape
    image = np.zeros((n, c, height + 2 * ph, width + 2 * pw), dtype=object)
    image[:, :, ph : ph + height, pw : pw + width] = x
    return image


def _windows(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Iterator[tuple[int, ...]]:
    """(position, row and column in the padded image) of every place of the kernel."""
    high, wide = map(positions, size, kernel, stride, padding)
    for y in range(high):
        for x in range(wide):
            yield y, x, y * stride[0], x * stride[1]


def _conv2d(x: Array, w: Array, stride: Pair, padding: Pair) -> Array:
    (kh, kw), size = w.shape[2:], x.shape[2:]
    z = np.zeros((len(x), len(w), *map(positions, size, (kh, kw), stride, padding)), dtype=object)
    image = _padded(x, padding)
    for y, column, top, left in _windows(size, (kh, kw), stride, padding):
        for n in range(len(x)):
            for o in range(len(w)):
                window = image[n, :, top : top + kh, left : left + kw]
                z[n, o, y, column] = (window * w[o]).sum()
    return z


def _conv2d_input(dz: Array, w: Array, stride: Pair, padding: Pair, size: Pair) -> Array:
    (kh, kw), (ph, pw) = w.shape[2:], padding
    image = np.zeros((len(dz), w.shape[1], size[0] + 2 * ph, size[1] + 2 * pw), dtype=object)
    for y, column, top, left in _windows(size, (kh, kw), stride, padding):
        for n in range(len(dz)):
            for o in range(len(w)):
                image[n, :, top : top + kh, left : left + kw] += dz[n, o, y, column] * w[o]
    return image[:, :, ph : ph + size[0], pw : pw + size[1]]


def _conv2d_weights(x: Array, dz: Array, stride: Pair, padding: Pair, kernel: Pair) -> Array:
    dw = np.zeros((dz.shape[1], x.shape[1], *kernel), dtype=object)
    image = _padded(x, padding)
    for y, column, top, left in _windows(x.shape[2:], kernel, stride, padding):
        for n in range(len(x)):
            window = image[n, :, top : top + kernel[0], left : left + kernel[1]]
            for o in range(len(dw)):
                dw[o] += dz[n, o, y, column] * window
    return dw


REFERENCES: dict[str, Callable[..., Any]] = {
    "mul": lambda x, y: x * y,
    "matmul": lambda x, y: x @ y,
    "column_dot": lambda x, y: (x * y).sum(axis=0),
    "row_dot": lambda x, y: (x * y).sum(axis=1),
    "conv2d": _conv2d,
    "conv2d_input": _conv2d_input,
    "conv2d_weights": _conv2d_weights,
}


def exact(params: tuple[Any, ...], x: Array, y: Array) -> Array:
    """What a product node's parameters name, of two arrays of whole numbers, modulo 2^64."""
    kind, *parameters = params
    found = REFERENCES[kind](x.astype(object), y.astype(object), *parameters)
    return np.asarray(found % WORD).astype(np.uint64)
