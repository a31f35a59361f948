"""Products in the ring Z_2^64, on numpy uint64 arrays."""

from __future__ import annotations

import numpy as np

from masque.mpc.types import Ring


def matmul(a: Ring, b: Ring) -> Ring:
    """a @ b modulo 2^64: uint64 [m, k] and [k, n], any strides -> [m, n], C order."""
    assert a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[0], "shapes must agree"
    return np.matmul(a, b)


def column_dot(x: Ring, y: Ring) -> Ring:
    """The dot products of the columns of `x` and `y`: uint64 [m, n] twice -> [n]."""
    assert x.shape == y.shape and x.ndim == 2, "shapes must agree"
    return np.sum(x * y, axis=0, dtype=np.uint64)


def warm() -> None:
    """Compile the kernels."""
