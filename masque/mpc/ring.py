"""Products in the ring Z_2^64: numpy uint64 arrays in, their product modulo 2^64 out.

Matrix products go the usual way: blocks of both factors are packed so that a tile of the result,
held in registers, reads memory in order; a panel of b stays in the first cache and a block of a in
the second. Matrix-vector products are bound by memory and read the matrix once, unpacked.

All kernels run without the GIL, on the calling thread alone.

Source: K. Goto and R. van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from masque.mpc.kernels import (
    LANES,
    ROWS,
    SPLIT,
    UNROLL,
    WORDS,
    copy_vector,
    dots,
    pack_pair,
    tile,
    word,
)
from masque.mpc.types import Ring

_DEPTH, _DEPTH_IN_PLACE = 256, 32  # columns of a, rows of b in a block
_HEIGHT = 48  # rows of a in a block
_WIDTH = 1024  # columns of b in a block
_PANEL = 2 * LANES  # columns of b in a panel
_FEW = 8  # up to so many rows of a, packing b costs more than it gains
_THIN = 3  # up to so many columns of b, half of a vector register or more would be idle
_SHORT = 3  # up to so many columns of a, a step of a tile would be mostly idle
_TINY, _TINY_RESULT = 2500, 64  # products, words: numpy's `dot` takes less time than a call


def matmul(a: Ring, b: Ring) -> Ring:
    """a @ b modulo 2^64: uint64 [m, k] and [k, n] of any strides -> [m, n] in C order."""
    (m, k), n = a.shape, b.shape[1]
    if m * n * k <= _TINY and (k > _THIN or m * n <= _TINY_RESULT):
        product: Ring = a.dot(b)
        return product
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


@numba.njit
def _padded(depth):  # type: ignore[no-untyped-def]
    return (depth + UNROLL - 1) // UNROLL * UNROLL


@numba.njit
def _pack_rows(a, base, rows, depth, packed, at):  # type: ignore[no-untyped-def]
    """Pack `rows` rows of a from byte `base` on as [k][row][WORDS], zeros up to whole steps."""
    down, right = a.strides
    begin = 0
    if SPLIT and rows == 2 and right == 8:
        begin = depth // LANES * LANES
        for k in range(0, begin, LANES):
            pack_pair(a, base + 8 * k, down, packed, 8 * (at + 4 * k))
    for k in range(begin, depth):
        for row in range(rows):
            value = word(a, base + row * down + k * right)
            place = at + (k * rows + row) * WORDS
            packed[place] = value
            if SPLIT:
                packed[place + 1] = (value << np.uint64(32)) | (value >> np.uint64(32))
    for place in range(at + depth * rows * WORDS, at + _padded(depth) * rows * WORDS):
        packed[place] = 0


@numba.njit
def _pack_block(a, top, height, start, depth, packed):  # type: ignore[no-untyped-def]
    """Pack panels of ROWS rows, then single rows; row i starts at word i * padded * WORDS."""
    row = 0
    while row < height:
        rows = ROWS if height - row >= ROWS else 1
        base = (top + row) * a.strides[0] + start * a.strides[1]
        _pack_rows(a, base, rows, depth, packed, row * _padded(depth) * WORDS)
        row += rows


@numba.njit
def _pack_panel(b, base, depth, columns, packed, at):  # type: ignore[no-untyped-def]
    """Pack a panel of b from byte `base` on as [k][whole vectors], zeros beyond."""
    down, right = b.strides
    width = (columns + LANES - 1) // LANES * LANES
    if right == 8 and width == columns:
        for k in range(depth):
            for j in range(0, columns, LANES):
                copy_vector(b, base + k * down + 8 * j, packed, 8 * (at + k * width + j))
    else:
        for k in range(depth):
            for j in range(columns):
                packed[at + k * width + j] = word(b, base + k * down + j * right)
            for j in range(columns, width):
                packed[at + k * width + j] = 0
    for place in range(at + depth * width, at + _padded(depth) * width):
        packed[place] = 0


@numba.njit
def _tiles(packed, height, padded, skip, steps, vectors, b, b_at, b_step, c, c_at):  # type: ignore[no-untyped-def]
    """c += a packed block of a times a panel of b, for `steps` steps after `skip` values of k."""
    c_step, row = c.strides[0], 0
    while row < height:
        rows = ROWS if height - row >= ROWS else 1
        at = 8 * WORDS * (row * padded + skip * rows)
        if rows == 1 and vectors == 1:
            tile(1, 1, steps, packed, at, b, b_at, b_step, c, c_at, c_step)
        elif rows == 1:
            tile(1, 2, steps, packed, at, b, b_at, b_step, c, c_at, c_step)
        elif vectors == 1:
            tile(ROWS, 1, steps, packed, at, b, b_at, b_step, c, c_at, c_step)
        else:
            tile(ROWS, 2, steps, packed, at, b, b_at, b_step, c, c_at, c_step)
        row += rows
        c_at += rows * c_step


@numba.njit
def _panel(packed_a, height, depth, packed_b, at, columns, c, top, left, edge):  # type: ignore[no-untyped-def]
    """c[top : top+height, left : left+columns] += packed block of a times packed panel of b."""
    vectors, padded = (columns + LANES - 1) // LANES, _padded(depth)
    width, steps = vectors * LANES, padded // UNROLL
    if width == columns:
        c_at = top * c.strides[0] + 8 * left
        _tiles(packed_a, height, padded, 0, steps, vectors, packed_b, 8 * at, 8 * width, c, c_at)
        return
    edge[:height] = 0
    _tiles(packed_a, height, padded, 0, steps, vectors, packed_b, 8 * at, 8 * width, edge, 0)
    for i in range(height):
        for j in range(columns):
            c[top + i, left + j] += edge[i, j]


@numba.njit
def _panel_in_place(packed_a, height, depth, b, start, vectors, packed_b, c, c_at, left):  # type: ignore[no-untyped-def]
    """c += packed block of a times whole vectors of b from column `left` on, read where they are.

    b has contiguous rows. What is left of its depth after whole steps is packed, to end in zeros.
    """
    padded, steps = _padded(depth), depth // UNROLL
    whole, b_at = steps * UNROLL, start * b.strides[0] + 8 * left
    if steps:
        _tiles(packed_a, height, padded, 0, steps, vectors, b, b_at, b.strides[0], c, c_at)
    if whole < depth:
        width = vectors * LANES
        _pack_panel(b, b_at + whole * b.strides[0], depth - whole, width, packed_b, 0)
        _tiles(packed_a, height, padded, whole, 1, vectors, packed_b, 0, 8 * width, c, c_at)


@numba.njit
def _block_in_place(packed_a, height, depth, b, start, packed_b, c, top, left, width, edge):  # type: ignore[no-untyped-def]
    """c[top : top+height, left : left+width] += packed block of a times b in place.

    The columns beyond the last whole vector are computed with those before them, which are
    computed twice and left out; a b narrower than a vector is packed.
    """
    for j in range(left, left + width, _PANEL):
        columns = min(_PANEL, left + width - j)
        vectors = (columns + LANES - 1) // LANES
        again = vectors * LANES - columns
        if again == 0:
            c_at = top * c.strides[0] + 8 * j
            _panel_in_place(packed_a, height, depth, b, start, vectors, packed_b, c, c_at, j)
        elif again <= j:
            edge[:height] = 0
            _panel_in_place(
                packed_a, height, depth, b, start, vectors, packed_b, edge, 0, j - again
            )
            for i in range(height):
                for x in range(columns):
                    c[top + i, j + x] += edge[i, again + x]
        else:
            _pack_panel(b, start * b.strides[0] + 8 * j, depth, columns, packed_b, 0)
            _panel(packed_a, height, depth, packed_b, 0, columns, c, top, j, edge)


_ANY = types.Array(types.uint64, 2, "A", readonly=True)
_ROWS = types.uint64[:, ::1]


@numba.njit(types.void(_ANY, _ANY, _ROWS), nogil=True, cache=True)
def _multiply_add(a, b, c):  # type: ignore[no-untyped-def]
    """c += a @ b, in blocks; a row or column of any strides, c in C order."""
    (m, total), n = a.shape, b.shape[1]
    in_place = m <= _FEW and b.strides[1] == 8
    block = min(_padded(total), _DEPTH_IN_PLACE if in_place else _DEPTH)
    packed_a = np.empty(min(m, _HEIGHT) * block * WORDS, dtype=np.uint64)
    packed_b = np.empty((_PANEL if in_place else min(n, _WIDTH) + LANES) * block, dtype=np.uint64)
    edge = np.empty((min(m, _HEIGHT), _PANEL), dtype=np.uint64)
    for left in range(0, n, _WIDTH):
        width = min(_WIDTH, n - left)
        for start in range(0, total, block):
            depth = min(block, total - start)
            for j in range(0, 0 if in_place else width, _PANEL):
                base = start * b.strides[0] + (left + j) * b.strides[1]
                _pack_panel(b, base, depth, min(_PANEL, width - j), packed_b, j * _padded(depth))
            for top in range(0, m, _HEIGHT):
                height = min(_HEIGHT, m - top)
                _pack_block(a, top, height, start, depth, packed_a)
                if in_place:
                    _block_in_place(
                        packed_a, height, depth, b, start, packed_b, c, top, left, width, edge
                    )
                    continue
                for j in range(0, width, _PANEL):
                    columns, at = min(_PANEL, width - j), j * _padded(depth)
                    _panel(packed_a, height, depth, packed_b, at, columns, c, top, left + j, edge)


@numba.njit(types.void(_ANY, _ROWS, types.uint64[:, :]), nogil=True, cache=True)
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


@numba.njit(types.void(_ANY, _ROWS, types.uint64[:, :]), nogil=True, cache=True)
def _thin(a, v, c):  # type: ignore[no-untyped-def]
    """c = a @ v.T for a v [n, k] of no more than _THIN rows, in C order."""
    (m, k), n = a.shape, len(v)
    if k == 0:
        c[:, :] = 0
    elif k <= _SHORT:
        column = np.empty(m, dtype=np.uint64)
        for j in range(n):
            _combine_columns(a, v[j], column)
            c[:, j] = column
    elif a.strides[1] == 8:
        _dot_rows(a, v, c)
    elif a.strides[0] == 8 and m > _THIN:
        product = np.zeros((n, m), dtype=np.uint64)
        _multiply_add(v, a.T, product)
        c[:, :] = product.T
    else:
        _dot_rows(a.copy(), v, c)


@numba.njit(types.void(_ANY, _ANY, _ROWS), nogil=True, cache=True)
def _matmul(a, b, c):  # type: ignore[no-untyped-def]
    """c = a @ b: uint64 [m, k] and [k, n] of any strides, [m, n] in C order."""
    m, n = c.shape
    if n <= _THIN:
        _thin(a, b.T.copy(), c)
    elif m <= _THIN:
        _thin(b.T, a.copy(), c.T)
    else:
        c[:] = 0
        _multiply_add(a, b, c)


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


def warm() -> None:
    """Nothing left to do: importing this module compiled its kernels, or loaded them."""
