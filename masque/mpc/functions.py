"""Functions of secrets: selection, smooth functions; comparison is in `bits`.

Errors are given against the exact function of the input as represented; every function
saturates outside its interval and none ever wraps. Inputs may be of any scale; results carry
their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log2
from math import exp as real_exp
from math import log as real_log

from masque.errors import RangeError
from masque.mpc.bits import Bit, equals, every, less, less_each
from masque.mpc.classes import argmax, argmax_one_hot, softmax
from masque.mpc.fits import FITS
from masque.mpc.public import constant
from masque.mpc.secret import Secret
from masque.mpc.waves import BULK, EXACT, FINE, wave

__all__ = [
    "Bit",
    "argmax",
    "argmax_one_hot",
    "between",
    "broadcast_pair",
    "clip",
    "equals",
    "every",
    "exp",
    "inverse_sqrt",
    "less",
    "less_each",
    "log",
    "reciprocal",
    "relu",
    "relu_and_bit",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
    "where",
]


def where(bit: Bit, x: Secret, y: Secret) -> Secret:
    """x where the bit is one, y elsewhere."""
    return bit.times(x - y) + y


def relu(x: Secret, scale: int | None = None, *, resolution: int | None = None) -> Secret:
    """max(x, 0), exact; or at another `scale`, within one ulp. Openings: as `less`, and of the bit.

    `resolution`: decide by bits worth 2^-resolution and more only; then x may pass where it is
    below 0 by that much (times the carries; see `less`).
    """
    return relu_and_bit(x, scale, resolution=resolution)[0]


def relu_and_bit(
    x: Secret, scale: int | None = None, *, resolution: int | None = None
) -> tuple[Secret, Bit]:
    """`relu`, and the bit it decided by: its derivative, as in dx = bit.times_at(dy, scale)."""
    bit = ~less(x, resolution=resolution)
    return bit.times(x) if scale is None else bit.times_at(x, scale), bit


def clip(x: Secret, low: float, high: float) -> Secret:
    """x limited to [low, high], exact; the ends are rounded to the scale of x.

    Openings: as one comparison, and one of bits.
    """
    bits = less_each(x, [low, high])  # below low; below high
    ends = bits.value()
    lowest, highest = constant(x.graph, low, x.scale), constant(x.graph, high, x.scale)
    if low == -high:
        result = between(bits, x) + (1 - ends.sum(axis=0)) * highest
    else:
        result = between(bits, x) + ends[0] * lowest - ends[1] * highest + highest
    return result.bounded(max(abs(low), abs(high)))


def between(bits: Bit, x: Secret) -> Secret:
    """x where the second of two bits [2, ...] is one and the first is not; 0 elsewhere."""
    kept = bits.times(x)
    return (kept[1] - kept[0]).bounded(x.bound)


# -- smooth functions (protocol 6) -------------------------------------------------------------


def _guards(x: Secret, name: str) -> Bit:
    """[x < -guard] and [x < guard] of a fit, along a new first axis, within its slack of the truth.

    They look at bits worth the slack and more. Since the fit's own use of x opens 18 fraction
    bits, the carries of n parties count for 2^-18 each, and [x < t] is exact but for x from
    t - slack to t, which either answer serves.
    """
    fit = FITS[name]
    assert fit.guard is not None
    resolution = ceil(-log2(min(fit.high - fit.guard, -fit.guard - fit.low)))
    return less_each(x, [-fit.guard, fit.guard], resolution=resolution)


def sigmoid(x: Secret, name: str = "sigmoid", *, scale: int = 36) -> Secret:
    """1 / (1 + exp(-x)) for any x, within 6e-5 ("coarse_sigmoid": 4e-4) at `scale` 36.

    A smaller scale (30 at least: within 4e-4, coarsely 6e-4) leaves more room for the products
    that follow. Where 1e-3 will do, coarse at 30 is half the work: 12 dealt numbers instead of 24.

    Inside the fit's guard the Fourier sum, outside 0 or 1. Openings: x, pairs (1, or 2 for |x|
    above 2^18), bits; the sum is masked along with the pairs.
    """
    assert scale >= 30
    precision = (BULK[0], scale // 2, scale - scale // 2)
    bits = _guards(x, name)
    return (between(bits, wave(x, name, precision)) - bits.value()[1] + 1).bounded(1.001)


def tanh(x: Secret) -> Secret:
    """tanh(x) for any x, within 1e-4. Scale 36. Openings: as `sigmoid`."""
    bits = _guards(x, "tanh")
    ends = 1 - bits.value().sum(axis=0)
    return (between(bits, wave(x, "tanh", BULK)) + ends).bounded(1.001)


def softplus(x: Secret) -> Secret:
    """log(1 + exp(x)) for any x, within 8e-5. Scale 36 or that of x. Openings: as `sigmoid`."""
    bits = _guards(x, "softplus_even")
    middle = between(bits, wave(x, "softplus_even", BULK) + x.halved(1))
    return (middle + (x - bits[1].times(x))).bounded(x.bound + 1.0)


def exp(x: Secret, high: float = 0.0) -> Secret:
    """exp(x) for x <= high, exp(high) above; within exp(high) * 5e-5.

    0 below high - 16.5. Scale 40 and that of the factor exp(high). Openings: x, pairs, bits.
    """
    y = x - high if high else x
    within = less(y)
    below = less(y, -16.5, resolution=5)
    result = _exp_inside(y, below ^ within) + (-within.value() + 1)
    result = result.bounded(1.001)
    return result.times(real_exp(high)) if high else result


def _exp_inside(x: Secret, inside: Bit) -> Secret:
    return inside.times(wave(x, "exp", EXACT)).bounded(1.001)


# -- functions on a normalised argument (protocol 7) -------------------------------------------


def _steps(x: Secret, low: int, stride: int) -> list[Bit]:
    """[x >= 2^j] for j = low, low + stride, ... up to the bound of x."""
    if low < -x.scale:
        raise RangeError(
            f"2^{low} is below the resolution of a value at {x.scale} fraction bits.",
            hint="Use a larger minimum or scale.",
        )
    high = max(low + stride, ceil(log2(max(x.bound, 2.0**low))))
    powers = [2.0**j for j in range(low, high + 1, stride)]
    smaller = less_each(x, powers)
    return [~smaller[i] for i in range(len(powers))]


def _times_power(x: Secret, exponent: int) -> Secret:
    """x * 2^exponent, exponent >= 0, at the same scale; only the sum it is used in must fit."""
    return x.linear("times", (), (1 << exponent,), x.shape, x.scale, 0.0)


def _scaled(base: Secret, steps: Sequence[Bit], exponents: Sequence[int], bound: float) -> Secret:
    """base * 2^exponents[i], i the last step that holds (the first if none does), exactly.

    A sum of bits times one masked value, at a scale that holds the smallest power.
    """
    least = min(0, *exponents)
    result = _times_power(base, exponents[0] - least)
    for bit, before, here in zip(steps[1:], exponents, exponents[1:], strict=False):
        term = bit.times(base)
        result = result + _times_power(term, here - least) - _times_power(term, before - least)
    return result.halved(-least).bounded(bound)


def _normalised(x: Secret, low: int, stride: int) -> tuple[Secret, list[Bit], list[int]]:
    """(y, steps, j): y = x / 2^j in [1, 2^stride), j from low by stride; small x become 2^low."""
    steps = _steps(x, low, stride)
    powers = [low + stride * i for i in range(len(steps))]
    floor = 2.0**low
    raised = (steps[0].times(x - floor) + floor).bounded(max(x.bound, floor))
    return _scaled(raised, steps, [-j for j in powers], 2.0**stride), steps, powers


def reciprocal(x: Secret, minimum: float = 2.0**-10) -> Secret:
    """1 / x for x >= minimum (rounded down to a power of two), 1 / minimum below.

    Relative error 3e-6. Openings: x, pairs, bits, x raised, x normalised, two of the sum.
    """
    low = floor(log2(minimum))
    y, steps, powers = _normalised(x, low, 1)
    value = wave(y, "reciprocal", FINE).at(30)
    return _scaled(value, steps, [-j for j in powers], 2.0**-low * 1.001)


def inverse_sqrt(x: Secret, minimum: float = 2.0**-10) -> Secret:
    """1 / sqrt(x) for x >= minimum (rounded down to a power of four), 1 / sqrt(minimum) below.

    Relative error 4e-6. Openings: as `reciprocal`.
    """
    low = 2 * floor(log2(minimum) / 2)
    y, steps, powers = _normalised(x, low, 2)
    value = wave(y, "inverse_sqrt", FINE).at(30)
    return _scaled(value, steps, [-j // 2 for j in powers], 2.0 ** (-low // 2) * 1.001)


def log(x: Secret, minimum: float = 2.0**-10) -> Secret:
    """Natural logarithm for x >= minimum (rounded down to a power of two), log(minimum) below.

    Error 2e-6. Openings: x, pairs, bits, x raised, x normalised. Scale 48.
    """
    low = floor(log2(minimum))
    y, steps, powers = _normalised(x, low, 1)
    exponent = steps[1].value()
    for step in steps[2:]:
        exponent = exponent + step.value()
    value = wave(y, "log", FINE)
    whole = (exponent + low) * constant(x.graph, real_log(2.0), value.scale)
    return (value + whole).bounded(max(abs(low), abs(powers[-1])) * 0.7 + 1)


def broadcast_pair(x: Secret, y: Secret) -> tuple[Secret, Secret]:
    """x [n], y [m] -> two views [n, m]."""
    n, m = x.shape[0], y.shape[0]
    return x.reshape(n, 1).broadcast(n, m), y.reshape(1, m).broadcast(n, m)
