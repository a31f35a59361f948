"""Two-dimensional convolutions modulo 2^64, forward and the two products of their gradients.

Each is a matrix product with a matrix that is never made: of the elements under every tap of the
kernel (channel, row, column) at every position of the result. What a tile of `masque.mpc.blocks`
needs of it is gathered into a panel that stays in the first cache, from a slab of a few rows of a
few channels of one image, with their padding, in the second (`masque.mpc.slabs`).

Temporaries are bounded whatever the number of images and channels. All kernels run without the
GIL, on the calling thread alone; importing this module loads them from numba's cache on disk, or
compiles them (`python -m masque.mpc.warm`).

Source: the gather of panels, "implicit GEMM", after S. Chetlur et al., cuDNN, arXiv:1410.0759.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from masque.mpc.blocks import pack_block, whole_steps
from masque.mpc.kernels import LANES, WORDS
from masque.mpc.slabs import (
    PANEL,
    SLAB,
    even,
    fill,
    multiply,
    multiply_out,
    spill,
    tallest,
    tap_places,
)
from masque.mpc.types import Array, Ring, Shape

Pair = tuple[int, int]

_DEPTH = 256  # taps or positions that a panel sums over, and taps whose gradient is summed at once
_ROWS = 192  # channels of the result that a panel serves


def positions(size: int, taps: int, stride: int, padding: int) -> int:
    """Positions of a kernel of `taps` along an axis of `size`."""
    assert stride >= 1 and padding >= 0, f"stride {stride}, padding {padding}"
    return (size + 2 * padding - taps) // stride + 1


def conv2d(x: Ring, w: Ring, stride: Pair, padding: Pair, out: Ring | None = None) -> Ring:
    """x [n, c, h, w], w [o, c, kh, kw] -> [n, o, h', w']: z[p] = sum of x[p stride + t] w[t].

    Here and below, added to `out` in C order, if it is given, which is returned.
    """
    (kh, kw), (images, _, height, width) = w.shape[2:], x.shape
    high = positions(height, kh, stride[0], padding[0])
    wide = positions(width, kw, stride[1], padding[1])
    out = _sums((images, len(w), high, wide), out)
    if out.size and w.size:
        plan = _plan((kh, kw), stride, padding, (high, wide))
        flat = np.ascontiguousarray(w).reshape(len(w), -1)
        _forward(_aligned(x), _aligned(flat), out.reshape(*out.shape[:2], -1), plan)
    return out


def conv2d_input(
    dz: Ring, w: Ring, stride: Pair, padding: Pair, size: Pair, out: Ring | None = None
) -> Ring:
    """dz [n, o, h', w'], w [o, c, kh, kw] -> the gradient by x: [n, c, *size]."""
    dx = _sums((len(dz), w.shape[1], *size), out)
    if dx.size and dz.size and w.size:
        plan = _plan(w.shape[2:], stride, padding, dz.shape[2:])
        flat = np.ascontiguousarray(w).reshape(len(w), -1)
        values = np.ascontiguousarray(dz).reshape(*dz.shape[:2], -1)
        _by_input(_aligned(values), _aligned(flat).T, dx, plan)
    return dx


def conv2d_weights(
    x: Ring, dz: Ring, stride: Pair, padding: Pair, kernel: Pair, out: Ring | None = None
) -> Ring:
    """x [n, c, h, w], dz [n, o, h', w'] -> the gradient by the weights: [o, c, *kernel]."""
    dw = _sums((dz.shape[1], x.shape[1], *kernel), out)
    if dw.size and dz.size and x.size:
        plan = _plan(kernel, stride, padding, dz.shape[2:])
        values = np.ascontiguousarray(dz).reshape(*dz.shape[:2], -1)
        _by_weights(_aligned(x), _aligned(values), dw.reshape(len(dw), -1), plan)
    return dw


def _sums(shape: Shape, out: Ring | None) -> Ring:
    """What products are added to: zeros, if nothing is given."""
    if out is None:
        return np.zeros(shape, dtype=np.uint64)
    assert out.shape == shape and out.flags.carray, f"a product of {shape} is added to its like"
    return out


def _plan(*pairs: tuple[int, ...]) -> Array:
    """Kernel, stride, padding, positions, as the kernels below take them."""
    return np.array(pairs, dtype=np.int64).reshape(-1)


def _aligned(array: Ring) -> Ring:
    return array if array.flags.aligned else array.copy()


_ANY = types.Array(types.uint64, 4, "A", readonly=True)
_MATRIX = types.Array(types.uint64, 2, "A", readonly=True)
_FLAT = types.Array(types.uint64, 3, "C", readonly=True)
_PLAN = types.int64[::1]


@numba.njit
def _spare(depth, rows):  # type: ignore[no-untyped-def]
    """Room for the pieces of a panel, the panel and a product with it."""
    pieces = np.empty((PANEL, 3), dtype=np.int64)
    panel = np.empty(whole_steps(depth) * PANEL + LANES, dtype=np.uint64)
    return pieces, panel, np.empty((rows, PANEL), dtype=np.uint64)


@numba.njit
def _tiling(plan, channels, width):  # type: ignore[no-untyped-def]
    """(channels, rows of positions) at a time, words of a row and of all of such a slab."""
    kh, kw, sh, sw, _, pw, high, _ = plan
    line = (width + 2 * pw + sw - 1) // sw * sw
    group = even(channels, min(_DEPTH // (kh * kw), SLAB // (kh * line)))
    most = tallest(high, sh, kh, group * line)
    return group, most, line, group * ((most - 1) * sh + kh) * line + LANES


@numba.njit(types.void(_ANY, _MATRIX, types.uint64[:, :, ::1], _PLAN), nogil=True, cache=True)
def _forward(x, w, out, plan):  # type: ignore[no-untyped-def]
    """out[n] += w times the elements of x[n] under all taps."""
    kh, kw, sh, sw, ph, pw, high, wide = plan
    channels, size = x.shape[1], kh * kw
    group, most, line, words = _tiling(plan, channels, x.shape[3])
    taps, lines = np.empty(group * size, dtype=np.int64), np.arange(most) * (sh * line)
    slab, spare = np.empty(words, dtype=np.uint64), _spare(group * size, _ROWS)
    packed = np.empty(min(len(w), _ROWS) * whole_steps(len(taps)) * WORDS, dtype=np.uint64)
    for top in range(0, len(w), _ROWS):
        height = min(_ROWS, len(w) - top)
        for channel in range(0, channels, group):
            count = min(group, channels - channel)
            places = taps[: count * size]
            pack_block(w, top, height, channel * size, len(places), 0, packed)
            for n in range(len(x)):
                for y in range(0, high, most):
                    tall = min(most, high - y)
                    rows = (tall - 1) * sh + kh
                    tap_places(kh, kw, rows, line, sw, places)
                    fill(x, n, channel, count, y * sh - ph, rows, sw, pw, slab)
                    c, total, at = out[n], tall * wide, y * wide
                    multiply(slab, places, wide, lines, total, packed, height, c, top, at, spare)


@numba.njit(types.void(_FLAT, _MATRIX, types.uint64[:, :, :, ::1], _PLAN), nogil=True, cache=True)
def _by_input(dz, w, dx, plan):  # type: ignore[no-untyped-def]
    """dx[n] += w [taps, o] times dz[n], added to the elements under all taps."""
    kh, kw, sh, sw, ph, pw, high, wide = plan
    (images, total, _), channels, size = dz.shape, dx.shape[1], kh * kw
    group, most, line, words = _tiling(plan, channels, dx.shape[3])
    taps, lines = np.empty(group * size, dtype=np.int64), np.arange(most) * (sh * line)
    deepest = min(total, _DEPTH)
    slab, spare = np.empty(words, dtype=np.uint64), _spare(deepest, len(taps))
    packed = np.empty(len(taps) * whole_steps(deepest) * WORDS, dtype=np.uint64)
    for channel in range(0, channels, group):
        count = min(group, channels - channel)
        places = taps[: count * size]
        for start in range(0, total, _DEPTH):
            depth = min(_DEPTH, total - start)
            pack_block(w, channel * size, len(places), start, depth, 0, packed)
            for n in range(images):
                for y in range(0, high, most):
                    tall = min(most, high - y)
                    rows = (tall - 1) * sh + kh
                    tap_places(kh, kw, rows, line, sw, places)
                    slab[: count * rows * line] = 0
                    base, many = start * dz.strides[1] + 8 * y * wide, tall * wide
                    b = dz[n]
                    multiply_out(packed, places, kw, depth, b, base, many, wide, lines, slab, spare)
                    spill(slab, dx, n, channel, count, y * sh - ph, rows, sw, pw)


@numba.njit(types.void(_ANY, _FLAT, types.uint64[:, ::1], _PLAN), nogil=True, cache=True)
def _by_weights(x, dz, dw, plan):  # type: ignore[no-untyped-def]
    """dw += dz[n] times the elements of x[n] under all taps, turned; the sum over n."""
    kh, kw, sh, sw, ph, pw, high, wide = plan
    channels, line = x.shape[1], x.shape[3] + 2 * pw
    most = min(even(high, _DEPTH // wide), tallest(high, sh, kh, line))
    highest = (most - 1) * sh + kh
    group = even(channels, SLAB // (highest * line))
    positions = np.empty(most * wide, dtype=np.int64)
    for i in range(len(positions)):
        positions[i] = i // wide * sh * line + i % wide * sw
    lines = np.empty(group * kh, dtype=np.int64)
    slab = np.empty(group * highest * line + LANES, dtype=np.uint64)
    spare = _spare(len(positions), _ROWS)
    packed = np.empty(min(len(dw), _ROWS) * whole_steps(len(positions)) * WORDS, dtype=np.uint64)
    for top in range(0, len(dw), _ROWS):
        height = min(_ROWS, len(dw) - top)
        for n in range(len(x)):
            for y in range(0, high, most):
                tall = min(most, high - y)
                places, rows = positions[: tall * wide], (tall - 1) * sh + kh
                pack_block(dz[n], top, height, y * wide, len(places), 0, packed)
                for channel in range(0, channels, group):
                    count = min(group, channels - channel)
                    fill(x, n, channel, count, y * sh - ph, rows, 1, pw, slab)
                    for i in range(count * kh):
                        lines[i] = (i // kh * rows + i % kh) * line
                    total, at = count * kh * kw, channel * kh * kw
                    multiply(slab, places, kw, lines, total, packed, height, dw, top, at, spare)


def warm() -> None:
    """Nothing left to do: importing this module compiled its kernels, or loaded them."""
