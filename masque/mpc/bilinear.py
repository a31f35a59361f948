"""The bilinear products: one table for shapes, bounds and every interpreter's arithmetic.

A `product` node's parameters are its kind and those of that kind: ("mul",), ("matmul",),
("column_dot",), ("row_dot",), and of convolutions (cross-correlations, as in every framework)

    ("conv2d", stride, padding)                   x [n, c, h, w], w [o, c, kh, kw] -> [n, o, h', w']
    ("conv2d_input", stride, padding, (h, w))     dz [n, o, h', w'], w [o, c, kh, kw] -> like x
    ("conv2d_weights", stride, padding, kernel)   x [n, c, h, w], dz [n, o, h', w'] -> like w

with stride, padding and kernel (rows, columns). The last two are the gradients of the first:
<conv2d(x, w), dz> = <x, conv2d_input(dz, w)> = <w, conv2d_weights(x, dz)>.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from masque.mpc import convolution, ring
from masque.mpc.convolution import Pair, positions
from masque.mpc.types import Array, Ring, Shape

Params = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Bilinear:
    """A product: what it is of two operands (or of their shapes) and its parameters.

    `function`: on ring elements; `shape`: of the result; `terms`: the most that an element sums;
    `work`: ring multiplications of one evaluation. `adds`: whether the function adds to an array
    that is given as its argument `out`.
    """

    function: Callable[..., Ring]
    shape: Callable[..., Shape]
    terms: Callable[..., int]
    work: Callable[..., int]
    adds: bool = False


def multiply(params: Params, x: Ring, y: Ring) -> Ring:
    """The product that a node's parameters name, of two arrays of ring elements."""
    kind, *parameters = params
    return BILINEAR[str(kind)].function(x, y, *parameters)


def multiply_add(params: Params, x: Ring, y: Ring, total: Ring) -> Ring:
    """`total` plus the product, in the memory of `total`: writable, in C order."""
    kind, *parameters = params
    table = BILINEAR[str(kind)]
    if table.adds:
        return table.function(x, y, *parameters, out=total)
    total += table.function(x, y, *parameters)
    return total


def multiplications(params: Params, x: Shape, y: Shape) -> int:
    """Ring multiplications that one evaluation takes."""
    kind, *parameters = params
    return BILINEAR[str(kind)].work(x, y, *parameters)


def _multiply(x: Ring, y: Ring) -> Ring:
    return np.asarray(np.multiply(x, y))  # of numbers without axes an array as well


def _mul_work(x: Shape, y: Shape) -> int:
    return prod(np.broadcast_shapes(x, y))


def _matmul_shape(x: Shape, y: Shape) -> Shape:
    assert len(x) == len(y) == 2 and x[1] == y[0], f"cannot multiply {x} by {y}"
    return (x[0], y[1])


def _column_shape(x: Shape, y: Shape) -> Shape:
    assert len(x) == 2 and x == y, f"cannot take the dot products of columns of {x} and {y}"
    return (x[1],)


def _row_shape(x: Shape, y: Shape) -> Shape:
    assert len(x) == 2 and x == y, f"cannot take the dot products of rows of {x} and {y}"
    return (x[0],)


# -- convolutions ------------------------------------------------------------------------------


def _hits(size: int, taps: int, outputs: int, stride: int, padding: int) -> tuple[int, int, int]:
    """Along one axis, the most: taps at a position, positions at an element, positions at a tap.

    Of those on an element, not on the padding.
    """
    places = np.arange(outputs)[:, None] * stride + np.arange(taps) - padding
    real = (places >= 0) & (places < size)
    elements: Array = np.bincount(places[real], minlength=1)
    at_tap = real.sum(axis=0).max(initial=0)
    return int(real.sum(axis=1).max(initial=0)), int(elements.max()), int(at_tap)


def _check(x: Shape, w: Shape, dz: Shape, stride: Pair, padding: Pair) -> None:
    """Refuse images x, weights w and results dz that do not belong together."""
    assert len(x) == len(w) == len(dz) == 4, f"a convolution of {x} by {w} to {dz} has four axes"
    assert x[1] == w[1], f"images {x} and weights {w} have different channels in"
    assert x[0] == dz[0] and w[0] == dz[1], f"a convolution of {x} by {w} cannot be {dz}"
    for axis in (0, 1):
        found = positions(x[axis + 2], w[axis + 2], stride[axis], padding[axis])
        assert w[axis + 2] >= 1, f"an empty kernel: {w}"
        assert found >= 1, f"a kernel of {w} is larger than {x} with a padding of {padding}"
        assert found == dz[axis + 2], f"{x} by {w} at {stride}, {padding} cannot be {dz}"


def _forward_shape(x: Shape, w: Shape, stride: Pair, padding: Pair) -> Shape:
    assert len(x) == len(w) == 4, f"a convolution of {x} by {w} needs four axes each"
    sizes = zip(x[2:], w[2:], stride, padding, strict=True)
    dz = (x[0], w[0], *(positions(*size) for size in sizes))
    _check(x, w, dz, stride, padding)
    return dz


def _input_shape(dz: Shape, w: Shape, stride: Pair, padding: Pair, size: Pair) -> Shape:
    assert len(dz) == len(w) == 4, f"a convolution of {dz} by {w} needs four axes each"
    x = (dz[0], w[1], *size)
    _check(x, w, dz, stride, padding)
    return x


def _weights_shape(x: Shape, dz: Shape, stride: Pair, padding: Pair, kernel: Pair) -> Shape:
    assert len(x) == len(dz) == 4, f"a convolution of {x} to {dz} needs four axes each"
    w = (dz[1], x[1], *kernel)
    _check(x, w, dz, stride, padding)
    return w


def _most(which: int, x: Shape, w: Shape, dz: Shape, stride: Pair, padding: Pair) -> int:
    axes = zip(x[2:], w[2:], dz[2:], stride, padding, strict=True)
    return prod(_hits(*axis)[which] for axis in axes)


def _forward_terms(x: Shape, w: Shape, stride: Pair, padding: Pair) -> int:
    dz = _forward_shape(x, w, stride, padding)
    return x[1] * _most(0, x, w, dz, stride, padding)


def _input_terms(dz: Shape, w: Shape, stride: Pair, padding: Pair, size: Pair) -> int:
    x = _input_shape(dz, w, stride, padding, size)
    return w[0] * _most(1, x, w, dz, stride, padding)


def _weights_terms(x: Shape, dz: Shape, stride: Pair, padding: Pair, kernel: Pair) -> int:
    w = _weights_shape(x, dz, stride, padding, kernel)
    return x[0] * _most(2, x, w, dz, stride, padding)


def _convolution_work(dz: Shape, w: Shape) -> int:
    return prod(dz) * prod(w[1:])


BILINEAR: dict[str, Bilinear] = {
    "mul": Bilinear(_multiply, np.broadcast_shapes, lambda x, y: 1, _mul_work),
    "matmul": Bilinear(ring.matmul, _matmul_shape, lambda x, y: x[1], lambda x, y: prod(x) * y[1]),
    "column_dot": Bilinear(ring.column_dot, _column_shape, lambda x, y: x[0], lambda x, y: prod(x)),
    "row_dot": Bilinear(ring.row_dot, _row_shape, lambda x, y: x[1], lambda x, y: prod(x)),
    "conv2d": Bilinear(
        convolution.conv2d,
        _forward_shape,
        _forward_terms,
        lambda x, w, *params: _convolution_work(_forward_shape(x, w, *params), w),
        adds=True,
    ),
    "conv2d_input": Bilinear(
        convolution.conv2d_input,
        _input_shape,
        _input_terms,
        lambda dz, w, *params: _convolution_work(dz, w),
        adds=True,
    ),
    "conv2d_weights": Bilinear(
        convolution.conv2d_weights,
        _weights_shape,
        _weights_terms,
        lambda x, dz, *params: _convolution_work(dz, _weights_shape(x, dz, *params)),
        adds=True,
    ),
}
