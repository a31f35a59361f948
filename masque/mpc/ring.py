"""Products in the ring Z_2^64: numpy uint64 arrays in, their product modulo 2^64 out.

Matrix products go through `masque.mpc.blocks`; products with a result of very few rows or columns
are bound by memory and go through the loops below, which read the matrix once.

All kernels run without the GIL, on the calling thread alone. Importing this module loads them from
numba's cache on disk, or compiles them (about ten seconds, once: `python -m masque.mpc.warm`).
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from masque.mpc.blocks import multiply_add
from masque.mpc.kernels import LANES, dots, word
from masque.mpc.types import Ring

_THIN = 3  # columns of b, up to which half of a vector register or more would be idle
_SHORT = 3  # columns of a, up to which a step of a tile would be mostly idle
# Products, up to which numpy's `dot`, which minds words of the result most, takes less time than a
# call: in general, for short sums, for results of few words.
_TINY, _TINY_SHORT, _TINY_THIN, _FEW_WORDS = 800, 192, 2500, 4


def matmul(a: Ring, b: Ring) -> Ring:
    """a @ b modulo 2^64: uint64 [m, k] and [k, n] of any strides -> [m, n] in C order."""
    n = b.shape[1]
    products = a.size * n
    if products <= _TINY and (products <= _TINY_SHORT or a.shape[1] > _SHORT):
        return a.dot(b)  # type: ignore[no-any-return]
    m, k = a.shape
    if m * n <= _FEW_WORDS and products <= _TINY_THIN:
        return a.dot(b)  # type: ignore[no-any-return]
    assert b.shape[0] == k, f"cannot multiply {a.shape} by {b.shape}"
    if k == 1:
        return np.multiply(a, b, order="C")
    c = np.empty((m, n), dtype=np.uint64)
    try:
        _matmul(a, b, c)
    except TypeError:  # words that are not aligned
        _matmul(a.copy(), b.copy(), c)
    return c


def column_dot(x: Ring, y: Ring) -> Ring:
    """The dot product of each column of `x` with that of `y`: uint64 [m, n] twice -> [n]."""
    assert x.shape == y.shape and x.ndim == 2, f"cannot multiply {x.shape} by {y.shape}"
    total = np.zeros(x.shape[1], dtype=np.uint64)
    try:
        _column_dot(x, y, total)
    except TypeError:  # words that are not aligned
        _column_dot(x.copy(), y.copy(), total)
    return total


def row_dot(x: Ring, y: Ring) -> Ring:
    """The dot product of each row of `x` with that of `y`: uint64 [m, n] twice -> [m]."""
    assert x.shape == y.shape and x.ndim == 2, f"cannot multiply {x.shape} by {y.shape}"
    if x.strides[1] != 8 and y.strides[1] != 8:
        return column_dot(x.T, y.T)
    total = np.zeros(len(x), dtype=np.uint64)
    try:
        _row_dot(x, y, total)
    except TypeError:  # words that are not aligned
        _row_dot(x.copy(), y.copy(), total)
    return total


@numba.njit
def _dot_rows(a, v, c):  # type: ignore[no-untyped-def]
    """c = a @ v.T for an `a` with contiguous rows; four rows of it against each row of v."""
    (m, k), n = a.shape, len(v)
    down, steps, row, sums = a.strides[0], k // LANES, 0, np.empty(4, dtype=np.uint64)
    while row < m:
        rows = 4 if m - row >= 4 else 1
        for j in range(n):
            sums[:] = 0
            if steps == 0:
                pass
            elif rows == 4:
                dots(4, steps, a, row * down, down, v, 8 * j * k, sums, 0)
            else:
                dots(1, steps, a, row * down, down, v, 8 * j * k, sums, 0)
            for i in range(rows):
                total = sums[i]
                for x in range(steps * LANES, k):
                    total += word(a, (row + i) * down + 8 * x) * v[j, x]
                c[row + i, j] = total
        row += rows


@numba.njit
def _combine_columns(a, factors, out):  # type: ignore[no-untyped-def]
    """out = the sum of the columns of a times their factors, for at most _SHORT columns."""
    down, right = a.strides
    last = len(factors) - 1
    x, y, z = 0, min(1, last) * right, min(2, last) * right
    p, q, r = factors[0], np.uint64(0), np.uint64(0)
    if last > 0:
        q = factors[1]
    if last > 1:
        r = factors[2]
    if down == 8:
        for i in range(len(out)):
            pair = word(a, 8 * i + x) * p + word(a, 8 * i + y) * q
            out[i] = pair + word(a, 8 * i + z) * r
    else:
        for i in range(len(out)):
            pair = word(a, i * down + x) * p + word(a, i * down + y) * q
            out[i] = pair + word(a, i * down + z) * r


@numba.njit
def _dot_strided(a, b, c):  # type: ignore[no-untyped-def]
    """c = a @ b, word by word: for results of a few words."""
    (m, k), n = a.shape, b.shape[1]
    for i in range(m):
        for j in range(n):
            total = np.uint64(0)
            for x in range(k):
                total += a[i, x] * b[x, j]
            c[i, j] = total


@numba.njit
def _thin(a, b, c):  # type: ignore[no-untyped-def]
    """c = a @ b for a b of few columns and an a of contiguous rows, or few columns."""
    v, column = b.T.copy(), np.empty(len(a), dtype=np.uint64)
    if len(b) > _SHORT:
        _dot_rows(a, v, c)
        return
    for j in range(len(v)):
        _combine_columns(a, v[j], column)
        c[:, j] = column


_ANY = types.Array(types.uint64, 2, "A", readonly=True)


@numba.njit(types.void(_ANY, _ANY, types.uint64[:, ::1]), nogil=True, cache=True)
def _matmul(a, b, c):  # type: ignore[no-untyped-def]
    """c = a @ b: uint64 [m, k] and [k, n] of any strides, [m, n] in C order."""
    (m, k), n = a.shape, b.shape[1]
    if k == 0:
        c[:] = 0
        return
    # Few columns: the transposed product has few rows, which the tiles read b in place for.
    turned = n <= _THIN and m > _THIN and a.strides[0] == 8
    if n <= _THIN and (k <= _SHORT or a.strides[1] == 8):
        _thin(a, b, c[:, ::1])
    elif m <= _THIN and (k <= _SHORT or b.strides[0] == 8):
        _thin(b.T, a.T, c.T[::1])
    elif m <= _THIN and n <= _THIN:
        _dot_strided(a, b, c)
    else:
        x, y, product = a, b, c
        if turned:
            x, y, product = b.T, a.T, np.empty((n, m), dtype=np.uint64)
        product[:] = 0
        multiply_add(x, y, product)
        if turned:
            c[:] = product.T


@numba.njit(types.void(_ANY, _ANY, types.uint64[::1]), nogil=True, cache=True)
def _column_dot(x, y, total):  # type: ignore[no-untyped-def]
    """total[j] += sum over i of x[i, j] y[i, j], row by row."""
    m, n = x.shape
    (x_down, x_right), (y_down, y_right) = x.strides, y.strides
    if x_right == 8 and y_right == 8:
        for i in range(m):
            for j in range(n):
                total[j] += word(x, i * x_down + 8 * j) * word(y, i * y_down + 8 * j)
    else:
        for j in range(n):
            for i in range(m):
                total[j] += x[i, j] * y[i, j]


@numba.njit(types.void(_ANY, _ANY, types.uint64[::1]), nogil=True, cache=True)
def _row_dot(x, y, total):  # type: ignore[no-untyped-def]
    """total[i] += sum over j of x[i, j] y[i, j], row by row."""
    m, n = x.shape
    (x_down, x_right), (y_down, y_right) = x.strides, y.strides
    steps, begin = n // LANES, 0
    contiguous = x_right == 8 and y_right == 8 and steps > 0
    for i in range(m):
        if contiguous:
            dots(1, steps, x, i * x_down, x_down, y, i * y_down, total, 8 * i)
            begin = steps * LANES
        for j in range(begin, n):
            total[i] += word(x, i * x_down + j * x_right) * word(y, i * y_down + j * y_right)


def warm() -> None:
    """Nothing left to do: importing this module compiled its kernels, or loaded them."""
