"""The bilinear products: one table for shapes, bounds and every interpreter's arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from masque.mpc import ring
from masque.mpc.types import Ring, Shape


@dataclass(frozen=True, slots=True)
class Bilinear:
    """A product: its function on ring elements, its shape and the terms an element sums."""

    function: Callable[[Ring, Ring], Ring]
    shape: Callable[[Shape, Shape], Shape]
    terms: Callable[[Shape, Shape], int]


def _multiply(x: Ring, y: Ring) -> Ring:
    return np.multiply(x, y)


def _matmul_shape(x: Shape, y: Shape) -> Shape:
    assert len(x) == len(y) == 2 and x[1] == y[0], f"cannot multiply {x} by {y}"
    return (x[0], y[1])


def _column_shape(x: Shape, y: Shape) -> Shape:
    assert len(x) == 2 and x == y, f"cannot take the dot products of columns of {x} and {y}"
    return (x[1],)


BILINEAR: dict[str, Bilinear] = {
    "mul": Bilinear(_multiply, np.broadcast_shapes, lambda x, y: 1),
    "matmul": Bilinear(ring.matmul, _matmul_shape, lambda x, y: x[1]),
    "column_dot": Bilinear(ring.column_dot, _column_shape, lambda x, y: x[0]),
}


def multiplications(kind: str, x: Shape, y: Shape) -> int:
    """Ring multiplications that one evaluation takes."""
    table = BILINEAR[kind]
    return int(np.prod(table.shape(x, y))) * table.terms(x, y)
