"""Matrix products modulo 2^64 in blocks, after Goto and van de Geijn.

Blocks of both factors are packed so that a tile of the result, held in registers, reads memory in
order; a panel of b stays in the first cache and a block of a in the second. For an `a` of few rows
packing b costs more than it gains: its rows are then read in place.

For `masque.mpc.ring` and `masque.mpc.convolution` to inline. What numba has cached on disk does
not notice changes in this file: run `python -m masque.mpc.warm` after one.

Source: K. Goto and R. van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
"""

from __future__ import annotations

import numba
import numpy as np

from masque.mpc.kernels import (
    LANES,
    ROWS,
    SPLIT,
    UNROLL,
    WORDS,
    copy_vector,
    pack_pair,
    tile,
    word,
)

_DEPTH, _DEPTH_IN_PLACE = 256, 32  # columns of a, rows of b in a block
_HEIGHT = 48  # rows of a in a block
_WIDTH = 1024  # columns of b in a block
_PANEL = 2 * LANES  # columns of b in a panel
_FEW = 8  # rows of a, up to which b is read in place


@numba.njit
def whole_steps(depth):  # type: ignore[no-untyped-def]
    """`depth` values of k, rounded up to whole steps of a tile."""
    return (depth + UNROLL - 1) // UNROLL * UNROLL


@numba.njit
def _pack_rows(a, base, rows, depth, blank, packed, at):  # type: ignore[no-untyped-def]
    """Pack `rows` rows of a from byte `base` on as [k][row][WORDS], zeros up to whole steps.

    The first `blank` values of k become zeros.
    """
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
    for place in range(at, at + blank * rows * WORDS):
        packed[place] = 0
    for place in range(at + depth * rows * WORDS, at + whole_steps(depth) * rows * WORDS):
        packed[place] = 0


@numba.njit
def pack_block(a, top, height, start, depth, blank, packed):  # type: ignore[no-untyped-def]
    """Pack panels of ROWS rows, then single rows; row i starts at word i * padded * WORDS."""
    row = 0
    while row < height:
        rows = ROWS if height - row >= ROWS else 1
        base = (top + row) * a.strides[0] + start * a.strides[1]
        _pack_rows(a, base, rows, depth, blank, packed, row * whole_steps(depth) * WORDS)
        row += rows


@numba.njit
def pack_panel(b, base, depth, columns, packed, at):  # type: ignore[no-untyped-def]
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
    for place in range(at + depth * width, at + whole_steps(depth) * width):
        packed[place] = 0


@numba.njit
def tiles(packed, height, padded, vectors, b, b_at, b_step, c, c_at):  # type: ignore[no-untyped-def]
    """c += a packed block of a times a panel of b, packed or in place."""
    c_step, steps, row = c.strides[0], padded // UNROLL, 0
    while row < height:
        rows = ROWS if height - row >= ROWS else 1
        at = 8 * WORDS * row * padded
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
def _block(packed_a, height, depth, b, start, in_place, packed_b, c, top, left, width, edge):  # type: ignore[no-untyped-def]
    """c[top : top+height, left : left+width] += packed block of a times rows of b from start on.

    A panel of b that is not made of whole vectors goes through `edge`. In place, it takes columns
    before it as well, whose results are left out; packed, it ends in zeros.
    """
    padded, c_step = whole_steps(depth), c.strides[0]
    for j in range(0, width, _PANEL):
        columns = min(_PANEL, width - j)
        vectors = (columns + LANES - 1) // LANES
        spare = vectors * LANES - columns
        target, at = c, top * c_step + 8 * (left + j)
        if spare:
            edge[:height] = 0
            target, at = edge, 0
        if in_place:
            b_at = start * b.strides[0] + 8 * (left + j - spare)
            tiles(packed_a, height, padded, vectors, b, b_at, b.strides[0], target, at)
        else:
            b_step = 8 * vectors * LANES
            tiles(packed_a, height, padded, vectors, packed_b, 8 * j * padded, b_step, target, at)
        if spare:
            skip = spare if in_place else 0
            for i in range(height):
                for x in range(columns):
                    c[top + i, left + j + x] += edge[i, skip + x]


@numba.njit
def multiply_add(a, b, c):  # type: ignore[no-untyped-def]
    """c += a @ b, in blocks; a and b of any strides, c in C order.

    In place, the values of k beyond the last whole step are done with those before them, for which
    a is packed as zeros.
    """
    (m, total), n = a.shape, b.shape[1]
    in_place = (
        m <= _FEW and b.strides[1] == 8 and total >= UNROLL and (n >= _PANEL or n % LANES == 0)
    )
    block = min(whole_steps(total), _DEPTH_IN_PLACE if in_place else _DEPTH)
    packed_a = np.empty(min(m, _HEIGHT) * block * WORDS, dtype=np.uint64)
    packed_b = np.empty(0 if in_place else (min(n, _WIDTH) + LANES) * block, dtype=np.uint64)
    edge = np.empty((min(m, _HEIGHT), _PANEL), dtype=np.uint64)
    for left in range(0, n, _WIDTH):
        width, end = min(_WIDTH, n - left), 0
        while end < total:
            start, blank, depth = end, 0, min(block, total - end)
            end += depth
            if in_place and depth % UNROLL:
                blank = (UNROLL - depth) if depth < UNROLL else 0
                end, start = end - (0 if blank else depth % UNROLL), start - blank
                depth = end - start
            for j in range(0, 0 if in_place else width, _PANEL):
                base = start * b.strides[0] + (left + j) * b.strides[1]
                pack_panel(b, base, depth, min(_PANEL, width - j), packed_b, j * whole_steps(depth))
            for top in range(0, m, _HEIGHT):
                height = min(_HEIGHT, m - top)
                pack_block(a, top, height, start, depth, blank, packed_a)
                _block(
                    packed_a, height, depth, b, start, in_place, packed_b, c, top, left, width, edge
                )
