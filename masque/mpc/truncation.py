"""Kernels of exact truncation, on its own and under a bit (docs/protocol.md, protocols 4 and 5).

One pass over the values each: `deal` at the dealer, `share` and `share_under_bit` at a party. The
plain twin computes with `masque.mpc.scaling` instead.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numba import types

from masque.mpc.types import Array, Bytes, Ring

_WORDS = types.Array(types.uint64, 1, "C", readonly=True)
_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_OUT = types.uint64[::1]
_NONE: Ring = np.empty(0, dtype=np.uint64)
_HALF = np.uint64(32)
_LOW = np.uint64((1 << 32) - 1)
_COMPILED: dict[str, Any] = {"nogil": True, "cache": True}


@nb.njit
def _scaled(y, c, shift, half):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """floor((c y [+ 2^(shift-1)]) / 2^shift) modulo 2^64; as `masque.mpc.scaling.scale_down`."""
    low = (y & _LOW) * c
    if half and shift <= 32:
        low += np.uint64(1) << np.uint64(shift - 1)
    top = (y >> _HALF) * c + (low >> _HALF)
    if half and shift > 32:
        top += np.uint64(1) << np.uint64(shift - 33)
    if shift >= 32:
        return top >> np.uint64(shift - 32)
    return (top << np.uint64(32 - shift)) + ((low & _LOW) >> np.uint64(shift))


@nb.njit(types.void(_WORDS, _WORDS, types.int64, types.int64, _OUT, _OUT), **_COMPILED)
def _deal(a, factor, shift, width, rho, m):  # type: ignore[no-untyped-def]  # pragma: no cover
    keep = ~np.uint64(0) >> np.uint64(63 - width)
    step = int(factor.size > 1)
    for i in range(a.size):
        r = np.uint64(0) - a[i]
        m[i] = r >> np.uint64(width) & np.uint64(1)
        if factor.size:
            rho[i] = _scaled(r & keep, factor[i * step], shift, False)
        else:
            rho[i] = (r & keep) >> np.uint64(shift)


def _spread(factor: Ring | None, shape: tuple[int, ...]) -> Ring:
    """A public factor for flat values of `shape`: none, one, or one a value."""
    if factor is None:
        return _NONE
    flat = factor if factor.size == 1 else np.broadcast_to(factor, shape)
    assert int(flat.max(initial=0)) >> 31 == 0, "a factor is not negative, and below 2^31"
    return np.ascontiguousarray(flat).reshape(-1)


def deal(a: Ring, shift: int, width: int, factor: Ring | None = None) -> tuple[Ring, Ring]:
    """rho = F(r mod 2^(width+1)) and m = bit `width` of r, r = -a, F(v) = factor v >> shift."""
    flat = np.ascontiguousarray(a).reshape(-1)
    rho, m = np.empty_like(flat), np.empty_like(flat)
    _deal(flat, _spread(factor, a.shape), shift, width, rho, m)
    return rho.reshape(a.shape), m.reshape(a.shape)


@nb.njit
def _opened(d, low, width):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """y = x + 2^(width-1) + r modulo 2^(width+1), from d, its bits from `low` up."""
    length = np.uint64(width + 1 - low)
    y = d + (np.uint64(1) << np.uint64(width - 1 - low))
    return (y & (~np.uint64(0) >> (np.uint64(64) - length))) << np.uint64(low)


@nb.njit
def _rounded(y, shift, width):  # type: ignore[no-untyped-def]  # pragma: no cover (compiled)
    """y / 2^shift rounded to nearest, less what y has too much."""
    half = y >> np.uint64(shift - 1) & np.uint64(1)
    return (y >> np.uint64(shift)) + half - (np.uint64(1) << np.uint64(width - 1 - shift))


@nb.njit(
    types.void(
        *(_WORDS, _WORDS, _WORDS, _WORDS),
        *(types.int64, types.int64, types.int64, types.boolean, _OUT),
    ),
    **_COMPILED,
)
def _share(d, rho, m, factor, low, shift, width, first, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    lift, step = np.uint64(width + 1 - shift), int(factor.size > 1)
    for i in range(d.size):
        y = _opened(d[i], low, width)
        c = factor[i * step] if factor.size else np.uint64(1)
        value = np.uint64(0) - rho[i]
        if not y >> np.uint64(width):
            value += (m[i] << lift) * c
        if first:
            if factor.size:
                value += _scaled(y, c, shift, True) - (c << np.uint64(width - 1 - shift))
            else:
                value += _rounded(y, shift, width)
        out[i] = value


def share(
    d: Ring,
    dealt: tuple[Ring, Ring],
    window: tuple[int, int, int],
    factor: Ring | None = None,
    *,
    first: bool,
) -> Ring:
    """A party's share of factor x / 2^shift, for `window` = (low, shift, width).

    `d` holds x + r from bit `low` up; `dealt`: the shares of rho and m.
    """
    shape = dealt[0].shape
    out = np.empty(dealt[0].size, dtype=np.uint64)
    flat = (np.ascontiguousarray(part).reshape(-1) for part in (d, *dealt))
    _share(*flat, _spread(factor, shape), *window, first, out)
    return out.reshape(shape)


_UNDER = (_WORDS, _WORDS, _WORDS, _BYTES, _WORDS)


@nb.njit(
    types.void(*_UNDER, types.int64, types.int64, types.int64, types.boolean, _OUT), **_COMPILED
)
def _share_under(d, rho, m, beta, bit, low, shift, width, first, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    lift = np.uint64(width + 1 - shift)
    for i in range(d.size):
        y = _opened(d[i], low, width)
        b, row = bit[i], i
        if beta[i]:
            b, row = np.uint64(first) - b, i + d.size
        value = b * _rounded(y, shift, width) - rho[row]
        if not y >> np.uint64(width):
            value += m[row] << lift
        out[i] = value


def share_under_bit(
    d: Ring,
    dealt: tuple[Ring, Ring],
    flag: tuple[Bytes, Ring],
    window: tuple[int, int, int],
    *,
    first: bool,
) -> Ring:
    """A party's share of b (x / 2^shift), for `window` = (low, shift, width).

    `dealt`: shares of b rho and b m for both values of beta, [2, ...]; `flag`: beta, and the share
    of the bit's mask; these and `d` are broadcast to the shape of the result.
    """
    shape = dealt[0].shape[1:]
    spread = (np.broadcast_to(part, shape) for part in (d, *flag))
    x, beta, bit = (np.ascontiguousarray(part).reshape(-1) for part in spread)
    out = np.empty(x.size, dtype=np.uint64)
    rho, m = (np.ascontiguousarray(part).reshape(-1) for part in dealt)
    _share_under(x, rho, m, beta, bit, *window, first, out)
    return out.reshape(shape)


def deal_under_bit(mask: Array, a: Ring, shift: int, width: int, shape: tuple[int, ...]) -> Any:
    """b rho and b m for beta = 0 and 1, when b is `mask` xor beta: each [2, *shape]."""
    parts = deal(a, shift, width)
    return tuple(
        np.stack([np.broadcast_to(mask * part, shape), np.broadcast_to((1 - mask) * part, shape)])
        for part in parts
    )


def warm() -> None:
    """Compile nothing: every kernel here has an explicit signature and is built on import."""
