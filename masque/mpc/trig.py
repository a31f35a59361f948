"""Waves of a masked value: cosines and sines that come out the same, bit for bit, on every host.

With c = x + r open modulo a period of 2^q units and w = 2 pi / 2^q, x = c - r gives

    cos(k w x) = cos(k w c) cos(k w r) + sin(k w c) sin(k w r)
    sin(k w x) = sin(k w c) cos(k w r) - cos(k w c) sin(k w r)

so that the dealer need only deal C_k = cos(k w r) and S_k = sin(k w r), and each party finds

    sum_k alpha_k cos(k w x) + beta_k sin(k w x)  =  sum_k A_k C_k + B_k S_k
    A_k = alpha_k cos(k w c) + beta_k sin(k w c)
    B_k = alpha_k sin(k w c) - beta_k cos(k w c)

on its shares of C and S. (The coefficients are a Fourier continuation: see `masque.mpc.fits`.)
A_k and B_k multiply shares, which are uniform in Z_2^64: parties that disagreed on one of them by
a single unit would open noise. So nothing here calls a mathematical library; everything is 64-bit
integer arithmetic on one table of integers, itself computed with Python's whole numbers.

**How a cosine is found.** An angle is a uint64, 2^64 being a full turn; a phase p modulo 2^q is
the angle p * 2^(64-q), and overflow is the reduction modulo a turn. The angle is a + d: a the
nearest of 4096 directions, whose cosine C and sine S the table holds at 30 fraction bits, and
|d| <= pi / 4096, kept at 40 fraction bits. Then, with e = d^2 / 2,

    cos(a + d) = C - (C e + S d),    sin(a + d) = S + (C d - S e)    at 60 fraction bits.

**Error**, u = 2^-30. The table is off by at most u/2 in each of (C, S), 0.708 u as a vector, and
turning a vector keeps its length. Leaving d^3 / 6 out costs at most 7.6e-11 < 0.081 u (d^4 / 24
far less); the 40-bit d and e less than 0.004 u; phases beyond 40 bits (q > 40) less than 0.007 u.
The vector (cos, sin) is thus within 0.8 u before it is rounded; rounded to 30 bits it is within
0.8 u + 0.708 u < 1.51 u, and each of cos and sin alone within 1.3 u < 2^-29.
`wave_error` carries this through the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numba import int32, int64, njit, types, uint64, void
from numpy.typing import NDArray

from masque.errors import RangeError
from masque.mpc.types import Ring

Integers = NDArray[np.int64]
Table = NDArray[np.int32]

FRACTION_BITS = 30
"""Fraction bits of the table, of a public cosine before it is scaled, and of coefficients."""

MAXIMUM_SCALE = 30
"""Most fraction bits that dealt waves and public coefficients may have."""

COEFFICIENT_LIMIT = 8.0
"""hypot(alpha_k, beta_k) stays below this, so that A_k and B_k at 60 fraction bits fit int64."""

_DIRECTION_BITS = 12
_DIRECTIONS = 1 << _DIRECTION_BITS
_DIRECTION_SHIFT = 64 - _DIRECTION_BITS
_HALF_DIRECTION = 1 << (_DIRECTION_SHIFT - 1)
_TO_SINE = 3 * _DIRECTIONS // 4  # sin(a) = cos(a + three quarters of a turn)
_TURN = 1_686_629_713  # round(2 pi * 2^28): from 2^-40 turns to radians at 40 fraction bits
_VALUE_BITS = 48  # fraction bits at which the plain twin adds its terms


def _arctangent_of_inverse(n: int, one: int) -> int:
    """arctan(1/n) at the scale `one`, by its Taylor series in whole numbers."""
    power, total, divisor, sign = one // n, 0, 1, 1
    while power:
        total += sign * (power // divisor)
        power, divisor, sign = power // (n * n), divisor + 2, -sign
    return total


def _first_direction(bits: int) -> tuple[int, int]:
    """cos and sin of 2 pi / 4096 at `bits` fraction bits; pi by Machin's formula."""
    one = 1 << bits
    pi = 4 * (4 * _arctangent_of_inverse(5, one) - _arctangent_of_inverse(239, one))
    step = 2 * pi // _DIRECTIONS
    term, sums, index = one, [0, 0], 0
    while term:
        sums[index % 2] += -term if index % 4 >= 2 else term
        index += 1
        term = (term * step >> bits) // index
    return sums[0], sums[1]


@cache
def table() -> Table:
    """round(2^30 cos(2 pi j / 4096)) for j = 0 .. 4095, int32 [4096], read-only.

    Computed in 2 ms with whole numbers of 120 fraction bits, so the same everywhere; the errors
    of at most 2^-100 decide no rounding (the tests pin the table's SHA-256).
    """
    bits = 120
    cosine, sine = _first_direction(bits)
    x, y, quarter = 1 << bits, 0, []
    for _ in range(_DIRECTIONS // 4):
        quarter.append((x + (1 << (bits - FRACTION_BITS - 1))) >> (bits - FRACTION_BITS))
        x, y = (x * cosine - y * sine) >> bits, (x * sine + y * cosine) >> bits
    half = [*quarter, 0, *(-value for value in reversed(quarter[1:]))]
    result = np.array([*half, *(-value for value in half)], np.int32)
    result.flags.writeable = False
    return result


_WORDS = types.Array(uint64, 1, "C", readonly=True)
_ROWS = types.Array(uint64, 2, "C", readonly=True)
_SIGNED = types.Array(int64, 1, "C", readonly=True)
_TABLE = types.Array(int32, 1, "C", readonly=True)
_COMPILED = {"nogil": True, "cache": True}


@njit(types.UniTuple(int64, 2)(uint64, _TABLE), **_COMPILED)
def _cos_sin(angle: int, cosines: Table) -> tuple[int, int]:
    """Cosine and sine of a uint64 angle (2^64 is a turn), int64 with 60 fraction bits."""
    direction = (angle + uint64(_HALF_DIRECTION)) >> uint64(_DIRECTION_SHIFT)
    rest = int64(angle << uint64(_DIRECTION_BITS)) >> int64(36)
    c = int64(cosines[direction])
    s = int64(cosines[(direction + uint64(_TO_SINE)) & uint64(_DIRECTIONS - 1)])
    d = (rest * int64(_TURN)) >> int64(28)
    e = (d * d) >> int64(41)
    return (
        (c << int64(30)) - ((c * e + s * d) >> int64(10)),
        (s << int64(30)) + ((c * d - s * e) >> int64(10)),
    )


@njit(void(_WORDS, int64, _SIGNED, int64, _TABLE, uint64[:, ::1]), **_COMPILED)
def _dealt_waves(
    r: Ring, q: int, harmonics: Integers, scale: int, cosines: Table, out: Ring
) -> None:
    drop = int64(60 - scale)
    half = int64(1) << (drop - int64(1))
    count = len(harmonics)
    for i in range(len(r)):
        angle = r[i] << uint64(64 - q)
        for k in range(count):
            x, y = _cos_sin(uint64(harmonics[k]) * angle, cosines)
            out[i, k] = uint64((x + half) >> drop)
            out[i, k + count] = uint64((y + half) >> drop)


@njit(
    void(_WORDS, int64, _SIGNED, _SIGNED, _SIGNED, _ROWS, int64, _TABLE, uint64[::1]),
    **_COMPILED,
)
def _wave_sum(
    c: Ring,
    q: int,
    harmonics: Integers,
    alphas: Integers,
    betas: Integers,
    dealt: Ring,
    scale: int,
    cosines: Table,
    out: Ring,
) -> None:
    drop = int64(60 - scale)
    half = int64(1) << (drop - int64(1))
    to_30 = int64(1 << 29)
    count = len(harmonics)
    for i in range(len(c)):
        angle = c[i] << uint64(64 - q)
        total = uint64(0)
        for k in range(count):
            x, y = _cos_sin(uint64(harmonics[k]) * angle, cosines)
            x = (x + to_30) >> int64(30)
            y = (y + to_30) >> int64(30)
            a = (alphas[k] * x + betas[k] * y + half) >> drop
            b = (alphas[k] * y - betas[k] * x + half) >> drop
            total += uint64(a) * dealt[i, k] + uint64(b) * dealt[i, k + count]
        out[i] = total


@njit(void(_WORDS, int64, _SIGNED, _SIGNED, _SIGNED, int64, _TABLE, int64[::1]), **_COMPILED)
def _wave_value(
    phase: Ring,
    q: int,
    harmonics: Integers,
    alphas: Integers,
    betas: Integers,
    scale: int,
    cosines: Table,
    out: Integers,
) -> None:
    to_30 = int64(1 << 29)
    narrow = int64(60 - _VALUE_BITS)
    drop = int64(_VALUE_BITS - scale)
    half = (int64(1) << drop) >> int64(1)
    for i in range(len(phase)):
        angle = phase[i] << uint64(64 - q)
        total = int64(0)
        for k in range(len(harmonics)):
            x, y = _cos_sin(uint64(harmonics[k]) * angle, cosines)
            x = (x + to_30) >> int64(30)
            y = (y + to_30) >> int64(30)
            total += (alphas[k] * x + betas[k] * y + int64(1 << 11)) >> narrow
        out[i] = (total + half) >> drop


def dealt_waves(r: Ring, q: int, harmonics: Integers, scale: int) -> Ring:
    """The dealer's C_k = cos(k w r) and S_k = sin(k w r), w = 2 pi / 2^q, before they are shared.

    `r`: uint64 [n], of which the lowest q bits count; `harmonics`: the numbers k >= 1, int64 [K].
    Returns uint64 [n, 2K], signed fixed point with `scale` (1..30) fraction bits, columns
    C_1 .. C_K, S_1 .. S_K; each row's (C_k, S_k) is within 0.8 * 2^-30 + 0.708 * 2^-scale of the
    truth as a vector. Errors: RangeError for a period or scale that is not supported.
    """
    _check(q, scale)
    out = np.empty((len(r), 2 * len(harmonics)), np.uint64)
    _dealt_waves(np.ascontiguousarray(r), q, harmonics, scale, table(), out)
    return out


def wave_sum(
    c: Ring,
    q: int,
    harmonics: Integers,
    alphas: Integers,
    betas: Integers,
    dealt: Ring,
    public_scale: int,
) -> Ring:
    """One party's share of sum_k alpha_k cos(k w x) + beta_k sin(k w x); no communication.

    `c`: the opened x + r, uint64 [n], of which the lowest q bits count; `alphas`, `betas`: int64
    [K] with 30 fraction bits, hypot below 8; `dealt`: this party's share of `dealt_waves`, uint64
    [n, 2K]. A_k and B_k are rounded to `public_scale` (1..30) fraction bits, alike on every host.
    Returns uint64 [n] with public_scale + the dealt scale fraction bits. The constant term of a
    fit is not included: party 0 adds it. Every party calls this alike. Error: `wave_error`.
    Errors: RangeError for a period or scale that is not supported.
    """
    _check(q, public_scale)
    assert dealt.shape == (len(c), 2 * len(harmonics)), "one dealt row for each opened value"
    out = np.empty(len(c), np.uint64)
    c, dealt = np.ascontiguousarray(c), np.ascontiguousarray(dealt)
    _wave_sum(c, q, harmonics, alphas, betas, dealt, public_scale, table(), out)
    return out


def wave_value(
    phase: Ring | Integers,
    q: int,
    harmonics: Integers,
    alphas: Integers,
    betas: Integers,
    scale: int,
) -> Integers:
    """The plain twin: the same Fourier sum of clear values.

    `phase`: uint64 or int64 [n], x in units of period / 2^q, of which the lowest q bits count.
    Returns int64 [n] with `scale` (0..48) fraction bits, without the constant term, within
    sum_k hypot_k * 1.51 * 2^-30 + K * 2^-49 + 2^-(scale+1) of the exact sum.
    Errors: RangeError for a period or scale that is not supported.
    """
    _check(q, scale, 0, _VALUE_BITS)
    out = np.empty(len(phase), np.int64)
    clear = np.ascontiguousarray(phase).view(np.uint64)
    _wave_value(clear, q, harmonics, alphas, betas, scale, table(), out)
    return out


def wave_error(
    alphas: Sequence[int] | Integers,
    betas: Sequence[int] | Integers,
    public_scale: int,
    dealt_scale: int,
) -> float:
    """How far the opened `wave_sum` may be from the exact Fourier sum, at most; in units of f.

    With h_k = hypot(alpha_k, beta_k) and u = 2^-30: the public cosines are off by 1.51 u, which
    A_k, B_k carry as h_k 1.51 u; rounding these to p bits adds 0.708 * 2^-p; the dealt (C_k, S_k)
    are off by 0.8 u + 0.708 * 2^-d, which h_k magnifies. Products of two errors are below 2^-20
    of that. |f| * 2^(p + d) must stay below 2^63 for the result to fit the ring.
    """
    unit = 2.0**-FRACTION_BITS
    total = 0.0
    for alpha, beta in zip(alphas, betas, strict=True):
        height = float(np.hypot(float(alpha), float(beta))) * unit
        total += 0.708 * 2.0**-public_scale
        total += height * (2.31 * unit + 0.708 * 2.0**-dealt_scale)
    return total * (1 + 2.0**-10)


def warm() -> None:
    """Runs every kernel once (explicit signatures: importing has compiled and cached them)."""
    one, harmonics = np.ones(1, np.uint64), np.ones(1, np.int64)
    dealt = dealt_waves(one, 8, harmonics, 8)
    wave_sum(one, 8, harmonics, harmonics, harmonics, dealt, 8)
    wave_value(one, 8, harmonics, harmonics, harmonics, 8)


def _check(q: int, scale: int, low: int = 1, high: int = MAXIMUM_SCALE) -> None:
    if not 1 <= q <= 64:
        raise RangeError(f"a period of 2^{q} units is too long.", hint="It takes 1 to 64 bits.")
    if not low <= scale <= high:
        raise RangeError(
            f"waves cannot have {scale} fraction bits.", hint=f"Choose {low} to {high}."
        )
