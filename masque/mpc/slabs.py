"""Slabs: what a convolution's matrix of taps and positions is gathered from, and added back to.

A slab holds rows of a few channels of one image, with their padding, so that the elements under a
tap at neighbouring positions are neighbours. Strides would tear them apart: a row of a slab may
keep its columns sorted by their remainder.

For `masque.mpc.convolution` to inline. What numba has cached on disk does not notice changes in
this file: run `python -m masque.mpc.warm` after one.
"""

from __future__ import annotations

import numba

from masque.mpc.blocks import pack_panel, tiles, whole_steps
from masque.mpc.kernels import LANES, add_vector, copy_vector, word

PANEL = 2 * LANES  # columns of a panel
SLAB = 1 << 15  # words of a slab, unless a row of one channel takes more


@numba.njit
def fill(x, n, channel, count, top, rows, phases, left, slab):  # type: ignore[no-untyped-def]
    """Copy `rows` rows of `count` channels of image n into the slab, zeros outside of the image.

    top: the row of the image that comes first, < 0 within the padding; left: columns of padding.
    Column p of the padded image goes to place p // phases of part p % phases of its row.
    """
    (_, _, height, width), (_, step, down, right) = x.shape, x.strides
    part = (width + 2 * left + phases - 1) // phases
    at = 0
    for c in range(channel, channel + count):
        for y in range(top, top + rows):
            base = n * x.strides[0] + c * step + y * down
            for phase in range(phases):
                begin = min(part, max(0, (left - phase + phases - 1) // phases))
                end = max(begin, min(part, (width + left - phase + phases - 1) // phases))
                if y < 0 or y >= height:
                    begin = end = part
                slab[at : at + begin] = 0
                slab[at + end : at + part] = 0
                source = base + (begin * phases + phase - left) * right
                if phases * right == 8:
                    for i in range(end - begin):
                        slab[at + begin + i] = word(x, source + 8 * i)
                else:
                    for i in range(end - begin):
                        slab[at + begin + i] = word(x, source + i * phases * right)
                at += part


@numba.njit
def spill(slab, dx, n, channel, count, top, rows, phases, left):  # type: ignore[no-untyped-def]
    """Add the slab to `dx`: the adjoint of `fill`."""
    _, _, height, width = dx.shape
    part = (width + 2 * left + phases - 1) // phases
    for c in range(count):
        for row in range(rows):
            y, at = top + row, (c * rows + row) * phases * part
            if y < 0 or y >= height:
                continue
            target = dx[n, channel + c, y]
            for phase in range(phases):
                begin = max(0, (left - phase + phases - 1) // phases)
                source, first = at + phase * part + begin, begin * phases + phase - left
                for i in range((width - first + phases - 1) // phases):
                    target[first + i * phases] += slab[source + i]


@numba.njit
def tap_places(kh, kw, rows, line, phases, places):  # type: ignore[no-untyped-def]
    """Where taps (channel, row, column) lie in a slab of `rows` rows of `line` words a channel."""
    part = line // phases
    for at in range(len(places)):
        (row, j) = at // kw, at % kw
        places[at] = (row // kh * rows + row % kh) * line + j % phases * part + j // phases


@numba.njit
def _cut(first, count, run, lines, pieces):  # type: ignore[no-untyped-def]
    """Cut columns first .. first + count - 1 of a panel into neighbours in a slab.

    Columns come in runs of `run` neighbours that start at `lines`. Writes (column in the panel,
    place in the slab, how many, at most LANES) of each piece; returns how many there are.
    """
    found, column = 0, first
    while column < first + count:
        line, at = column // run, column % run
        length = min(LANES, run - at, first + count - column)
        pieces[found, 0] = column - first
        pieces[found, 1] = lines[line] + at
        pieces[found, 2] = length
        column += length
        found += 1
    return found


@numba.njit
def _gather(slab, rows, pieces, count, panel, width):  # type: ignore[no-untyped-def]
    """panel[k, column] = slab[rows[k] + place] for all pieces of columns, a vector at a time."""
    if count == 2:
        second, x, y = 8 * pieces[1, 0], 8 * pieces[0, 1], 8 * pieces[1, 1]
        for k in range(len(rows)):
            base, at = 8 * rows[k], 8 * k * width
            copy_vector(slab, base + x, panel, at)
            copy_vector(slab, base + y, panel, at + second)
    else:
        for k in range(len(rows)):
            base, at = 8 * rows[k], 8 * k * width
            for i in range(count):
                copy_vector(slab, base + 8 * pieces[i, 1], panel, at + 8 * pieces[i, 0])


@numba.njit
def _scatter(sums, pieces, count, slab, rows, step):  # type: ignore[no-untyped-def]
    """slab[rows[k] + place] += sums[k, column]: the adjoint of `_gather`.

    Taps of one column of the kernel follow each other, `step` apart: where neighbours overlap, the
    second would wait for the first to be written.
    """
    for first in range(step):
        for k in range(first, len(rows), step):
            base, at = rows[k], k * PANEL
            for i in range(count):
                column, place = at + pieces[i, 0], base + pieces[i, 1]
                add_vector(sums, 8 * column, slab, 8 * place, pieces[i, 2])


@numba.njit
def multiply(slab, places, run, lines, total, packed, height, c, top, at, spare):  # type: ignore[no-untyped-def]
    """c[top : top + height, at : at + total] += packed rows times columns gathered from a slab.

    Row k of the columns is at places[k]; they come in runs of `run`, which start at `lines`.
    """
    pieces, panel, edge = spare
    padded = whole_steps(len(places))
    for left in range(0, total, PANEL):
        columns = min(PANEL, total - left)
        vectors = (columns + LANES - 1) // LANES
        step = 8 * vectors * LANES
        found = _cut(left, columns, run, lines, pieces)
        _gather(slab, places, pieces, found, panel, vectors * LANES)
        if columns == vectors * LANES:
            place = top * c.strides[0] + 8 * (at + left)
            tiles(packed, height, padded, vectors, panel, 0, step, c, place)
        else:
            edge[:height] = 0
            tiles(packed, height, padded, vectors, panel, 0, step, edge, 0)
            for i in range(height):
                for j in range(columns):
                    c[top + i, at + left + j] += edge[i, j]


@numba.njit
def multiply_out(packed, places, step, depth, b, base, total, run, lines, slab, spare):  # type: ignore[no-untyped-def]
    """Add packed rows times `total` columns of b to the places of a slab: what `multiply` reads.

    The columns are those from byte `base` of b on, `depth` rows of them; step: see `_scatter`.
    """
    pieces, panel, sums = spare
    for left in range(0, total, PANEL):
        columns = min(PANEL, total - left)
        vectors = (columns + LANES - 1) // LANES
        found = _cut(left, columns, run, lines, pieces)
        pack_panel(b, base + 8 * left, depth, columns, panel, 0)
        sums[: len(places)] = 0
        across, padded = 8 * vectors * LANES, whole_steps(depth)
        tiles(packed, len(places), padded, vectors, panel, 0, across, sums, 0)
        _scatter(sums.reshape(-1), pieces, found, slab, places, step)


@numba.njit
def even(total, most):  # type: ignore[no-untyped-def]
    """Parts of about equal size, none above `most` unless that is below 1."""
    most = max(1, most)
    parts = (total + most - 1) // most
    return (total + parts - 1) // parts


@numba.njit
def tallest(high, stride, kh, row):  # type: ignore[no-untyped-def]
    """Rows of positions whose slab, of `row` words a row, is not too large."""
    return even(high, (SLAB // row - kh) // stride + 1)
