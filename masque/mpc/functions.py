"""Functions of secrets: comparison, selection, smooth functions, argmax (docs/protocol.md).

Errors are given against the exact function of the input as represented; every function
saturates outside its interval and none ever wraps. Inputs may be of any scale; results carry
their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, inf, log2
from math import exp as real_exp
from math import log as real_log
from typing import NoReturn

import numpy as np

from masque.errors import RangeError
from masque.mpc import comparison
from masque.mpc.fits import FITS
from masque.mpc.graph import Graph, Kind
from masque.mpc.secret import SLACK, Secret, constant, indexed
from masque.mpc.types import Shape

# (fraction bits of x looked at, of the public coefficients, of the dealt waves)
BULK = (18, 18, 18)
EXACT = (20, 20, 20)
FINE = (26, 22, 26)


class Bit:
    """An array of secret bits, shared by XOR; `value` and `times` bring it to the ring."""

    def __init__(self, graph: Graph, node: int, shape: Shape) -> None:
        self.graph, self.node, self.shape = graph, node, shape
        self._flag: int | None = None

    def __repr__(self) -> str:
        return f"Bit(shape={self.shape})"

    def __bool__(self) -> NoReturn:
        raise TypeError("a secret Bit has no value here: use functions.where")

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("a secret Bit has no value here: use ^ and ~")

    __hash__ = object.__hash__

    def __iter__(self) -> NoReturn:
        raise TypeError("secret bits cannot be looked at one by one: use functions.where")

    def flag(self) -> int:
        """The node of beta = b xor m, opened."""
        if self._flag is None:
            self._flag = self.graph.add("mask_bit", (self.node,), Kind.FLAG, self.shape)
        return self._flag

    def __invert__(self) -> Bit:
        return Bit(
            self.graph, self.graph.add("invert", (self.node,), Kind.BITS, self.shape), self.shape
        )

    def __xor__(self, other: Bit) -> Bit:
        assert self.shape == other.shape
        args = (self.node, other.node)
        return Bit(self.graph, self.graph.add("xor", args, Kind.BITS, self.shape), self.shape)

    def value(self) -> Secret:
        """The bit as the number 0 or 1, scale 0 (one opening of one bit)."""
        node = self.graph.add("flag_share", (self.flag(),), Kind.SHARE, self.shape)
        return Secret(self.graph, self.shape, 0, 1.0, share=node)

    def times(self, x: Secret) -> Secret:
        """b x: x where the bit is one, 0 elsewhere; scale of x."""
        shape = np.broadcast_shapes(self.shape, x.shape)
        args = (self.flag(), x.masked())
        node = self.graph.add("flag_times", args, Kind.SHARE, shape)
        return Secret(self.graph, shape, x.scale, x.bound, share=node)

    def __getitem__(self, index: object) -> Bit:
        """As of a Secret."""
        shape, params = indexed(self.shape, index)
        return Bit(
            self.graph, self.graph.add("index", (self.node,), Kind.BITS, shape, params), shape
        )

    def reshape(self, *shape: int) -> Bit:
        """The same bits in another shape."""
        example = np.empty(self.shape, dtype=np.bool_).reshape(shape).shape
        node = self.graph.add("reshape", (self.node,), Kind.BITS, example, (example,))
        return Bit(self.graph, node, example)


def join_bits(first: Bit, second: Bit) -> Bit:
    """Bits side by side, along the last axis."""
    shape = (*first.shape[:-1], first.shape[-1] + second.shape[-1])
    args, axis = (first.node, second.node), (len(shape) - 1,)
    return Bit(first.graph, first.graph.add("concat", args, Kind.BITS, shape, axis), shape)


# -- comparison (protocol 5) -------------------------------------------------------------------


def _combined(graph: Graph, pairs: int) -> int:
    """Combine pairs four at a time until one is left: an opening a level."""
    while (count := graph.nodes[pairs].shape[-1]) > 1:
        shape = (*graph.nodes[pairs].shape[:-1], -(-count // comparison.ARITY))
        masked = graph.add("mask_pairs", (pairs,), Kind.NODES, shape)
        pairs = graph.add("combine", (masked,), Kind.PAIRS, shape)
    return pairs


def _width(x: Secret, threshold: int, low: int) -> int:
    """Bits of x - t above `low`, sign excluded."""
    if x.bound == inf:
        return 63
    reach = ceil(x.bound * SLACK * 2.0 ** (x.scale - low)) + abs(threshold) + x.graph.parties
    return max(1, reach.bit_length())


def _pairs(
    x: Secret, thresholds: tuple[int, ...], low: int, length: int, *, sign: bool
) -> tuple[int, int, int]:
    high = low + length + sign
    if high > 64:
        raise RangeError(
            f"comparing values up to {x.bound:.6g} at {x.scale} fraction bits with "
            f"{max(thresholds, key=abs) * 2.0 ** (low - x.scale):.6g} takes {high} bits; "
            "the ring has 64.",
            hint="Use tighter ranges, a nearer threshold, or a smaller scale.",
        )
    key = (low, length)
    masked = x.masked(low, high)
    chunks = comparison.chunks_of(length)
    if key not in x.forms.words:
        node = x.graph.add("words", (masked,), Kind.WORDS, (*x.shape, chunks), key)
        x.forms.words[key] = node
    words, params = x.forms.words[key], (thresholds, *key)
    shape = (*_leading(thresholds), *x.shape, chunks)
    pairs = x.graph.add("compare_chunks", (masked, words), Kind.PAIRS, shape, params)
    return _combined(x.graph, pairs), masked, words


def _leading(thresholds: tuple[int, ...]) -> Shape:
    """Several thresholds make a leading axis, one makes none."""
    return (len(thresholds),) if len(thresholds) > 1 else ()


def less(x: Secret, threshold: float = 0.0, *, resolution: int | None = None) -> Bit:
    """[x < threshold] for a public threshold, exact; |x| <= x.bound as always.

    `resolution`: look only at bits worth 2^-resolution and more: cheaper, and the effective
    threshold is then up to (carries) * 2^-resolution lower than the given one, a multiple of
    that; the carries are 1, or n if no other use of x opens more of its low bits.
    Openings: 1 of x (shared with other uses), 1 or 2 of pairs.
    """
    return less_each(x, [threshold], resolution=resolution)


def less_each(x: Secret, thresholds: Sequence[float], *, resolution: int | None = None) -> Bit:
    """`less` for several thresholds along a new first axis, on the same opening and material.

    One threshold makes no axis.
    """
    assert x.bound != inf, "whole ring elements have no order"
    low = 0 if resolution is None else max(0, x.scale - resolution)
    # x < t for integers x and real t is x < ceil(t)
    units = tuple(ceil(t * 2.0 ** (x.scale - low)) for t in thresholds)
    length = _width(x, max(units, key=abs), low)
    pairs, masked, words = _pairs(x, units, low, length, sign=True)
    args, params = (pairs, masked, words), (units, low, length)
    shape = (*_leading(units), *x.shape)
    return Bit(x.graph, x.graph.add("sign_bit", args, Kind.BITS, shape, params), shape)


def equals(x: Secret, value: float = 0.0) -> Bit:
    """[x == value] exactly, `value` a public number of x's scale."""
    t = round(value * 2.0**x.scale)
    length = min(64, _width(x, t, 0) + 1)
    pairs, _, _ = _pairs(x, (t,), 0, length, sign=False)
    return Bit(x.graph, x.graph.add("equal_bit", (pairs,), Kind.BITS, x.shape), x.shape)


def every(bits: Bit) -> Bit:
    """AND over the last axis, four bits an opening."""
    graph = bits.graph
    pairs = graph.add("pairs_of", (bits.node,), Kind.PAIRS, bits.shape)
    pairs = _combined(graph, pairs)
    shape = bits.shape[:-1]
    return Bit(graph, graph.add("equal_bit", (pairs,), Kind.BITS, shape), shape)


def where(bit: Bit, x: Secret, y: Secret) -> Secret:
    """x where the bit is one, y elsewhere."""
    return bit.times(x - y) + y


def relu(x: Secret) -> Secret:
    """max(x, 0), exact."""
    return (~less(x)).times(x)


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


def _wave(x: Secret, name: str, precision: tuple[int, int, int]) -> Secret:
    """The Fourier sum `name` at x, taken modulo its period: valid on the fit's interval only."""
    fit = FITS[name]
    phase, public, dealt = precision
    low = max(0, x.scale - phase)
    length = x.scale - low + fit.period_bits
    if low + length > 64:
        raise RangeError(
            f"{name} of values at {x.scale} fraction bits takes {low + length} bits; the ring has "
            "64.",
            hint=f"Bring them to {64 - fit.period_bits} fraction bits or fewer first.",
        )
    masked = x.masked(low, low + length)
    params = (name, fit.digest.hex(), public, dealt, low, length)
    node = x.graph.add("waves", (masked,), Kind.SHARE, x.shape, params)
    return Secret(x.graph, x.shape, public + dealt, fit.peak, share=node)


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

    A smaller scale (30 at least: within 4e-4) leaves more room for the products that follow.

    Inside the fit's guard the Fourier sum, outside 0 or 1. Openings: x, pairs (1, or 2 for |x|
    above 2^12), bits; the sum is masked along with the pairs.
    """
    assert scale >= 30
    precision = (BULK[0], scale // 2, scale - scale // 2)
    bits = _guards(x, name)
    return (between(bits, _wave(x, name, precision)) - bits.value()[1] + 1).bounded(1.001)


def tanh(x: Secret) -> Secret:
    """tanh(x) for any x, within 1e-4. Scale 36. Openings: as `sigmoid`."""
    bits = _guards(x, "tanh")
    ends = 1 - bits.value().sum(axis=0)
    return (between(bits, _wave(x, "tanh", BULK)) + ends).bounded(1.001)


def softplus(x: Secret) -> Secret:
    """log(1 + exp(x)) for any x, within 8e-5. Scale 36 or that of x. Openings: as `sigmoid`."""
    bits = _guards(x, "softplus_even")
    middle = between(bits, _wave(x, "softplus_even", BULK) + x.halved(1))
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
    return inside.times(_wave(x, "exp", EXACT)).bounded(1.001)


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
    value = _wave(y, "reciprocal", FINE).at(30)
    return _scaled(value, steps, [-j for j in powers], 2.0**-low * 1.001)


def inverse_sqrt(x: Secret, minimum: float = 2.0**-10) -> Secret:
    """1 / sqrt(x) for x >= minimum (rounded down to a power of four), 1 / sqrt(minimum) below.

    Relative error 4e-6. Openings: as `reciprocal`.
    """
    low = 2 * floor(log2(minimum) / 2)
    y, steps, powers = _normalised(x, low, 2)
    value = _wave(y, "inverse_sqrt", FINE).at(30)
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
    value = _wave(y, "log", FINE)
    whole = (exponent + low) * constant(x.graph, real_log(2.0), value.scale)
    return (value + whole).bounded(max(abs(low), abs(powers[-1])) * 0.7 + 1)


# -- argmax, softmax (protocol 8) --------------------------------------------------------------


def argmax_one_hot(x: Secret) -> Bit:
    """[x_i is the largest of its row] for x [rows, classes]; ties go to the first.

    All pairs of a row are compared at once, on differences of what is opened already. Openings: x,
    pairs (2), AND (1 or 2).
    """
    classes = x.shape[1]
    assert classes >= 2, "the largest of one is no question"
    x.masked()
    left, right = np.triu_indices(classes, k=1)
    loses = less(x[:, left] - x[:, right])  # of the pair (i, j), i < j: i is strictly smaller
    both = join_bits(loses, ~loses)
    pairs = np.arange(len(left))
    wins = [
        np.where(right == i, pairs, pairs + len(pairs))[(left == i) | (right == i)]
        for i in range(classes)
    ]
    return every(both[:, np.array(wins)])


def argmax(x: Secret) -> Secret:
    """Index of the largest element of each row of x [rows, classes] -> [rows], scale 0."""
    one_hot = argmax_one_hot(x).value()
    classes = x.shape[1]
    return (one_hot * constant(x.graph, np.arange(classes, dtype=np.float64), 0)).sum(axis=1)


def softmax(x: Secret) -> Secret:
    """exp(x_i) / sum exp(x_j) over each row of x [rows, classes]; scale 40.

    Within (classes + 1) * 4e-5 at worst, when the errors of all powers add up.
    The row's maximum is subtracted first, so any x is fine.
    """
    one_hot = argmax_one_hot(x)
    largest = one_hot.times(x).sum(axis=1, keepdims=True).bounded(x.bound)
    below = x - largest  # never above 0, exactly
    powers = _exp_inside(below, ~less(below, -16.5, resolution=5)).at(20)
    total = powers.sum(axis=1, keepdims=True)
    inverse = reciprocal(total, minimum=0.5).at(20)
    return (powers * inverse).bounded(1.001)


def broadcast_pair(x: Secret, y: Secret) -> tuple[Secret, Secret]:
    """x [n], y [m] -> two views [n, m]."""
    n, m = x.shape[0], y.shape[0]
    return x.reshape(n, 1).broadcast(n, m), y.reshape(1, m).broadcast(n, m)
