"""The largest of a row, and softmax (docs/protocol.md, protocol 8)."""

from __future__ import annotations

from math import ceil

import numpy as np

from masque.errors import RangeError
from masque.mpc.bits import Bit, every, join_bits, less, less_each
from masque.mpc.fits import FITS
from masque.mpc.graph import Kind
from masque.mpc.public import constant
from masque.mpc.scaling import RING_BITS
from masque.mpc.secret import Secret
from masque.mpc.types import Array
from masque.mpc.waves import wave

POWER = (22, 22, 22)
"""Fraction bits looked at, public and dealt, of the powers in a softmax; see `masque.mpc.waves`."""
INVERSE = (20, 18, 18)
"""The same of the reciprocal of their sum."""
POWER_SCALE = 20
POWER_BOUND = 1.134
"""exp(2^-3), and what the errors add."""
COARSE = 4
"""Fraction bits at which softmax compares: what it subtracts may be below the largest by 2^-3."""


def _pairs_of(classes: int) -> Array:
    """Indices [classes, classes - 1] into bits of all pairs i < j, then the same from j's side."""
    assert classes >= 2, "the largest of one is no question"
    left, right = np.triu_indices(classes, k=1)
    pairs = np.arange(len(left))
    rows = []
    for i in range(classes):
        rows.append(np.where(right == i, pairs + len(pairs), pairs)[(left == i) | (right == i)])
    return np.array(rows)


def argmax_one_hot(x: Secret) -> Bit:
    """[x_i is the largest of its row] for x [rows, classes]; exact, ties go to the first.

    All pairs of a row are compared at once, on differences of what is opened already. Openings: x,
    pairs (1 or 2), AND (1 up to 11 classes, 2 up to 101).
    """
    places = _pairs_of(x.shape[1])
    left, right = np.triu_indices(x.shape[1], k=1)
    x.masked()
    loses = less(x[:, left] - x[:, right])  # of the pair (i, j), i < j: i is strictly smaller
    return every(join_bits(~loses, loses)[:, places])


def argmax(x: Secret) -> Secret:
    """Index of the largest element of each row of x [rows, classes] -> [rows], scale 0."""
    one_hot = argmax_one_hot(x).value()
    classes = x.shape[1]
    return (one_hot * constant(x.graph, np.arange(classes, dtype=np.float64), 0)).sum(axis=1)


def _gaps(x: Secret) -> Secret:
    """y_i - y_j for all i < j, y = x cut to `COARSE` fraction bits: to be compared, nothing else.

    Each y is within 2^-COARSE of its x, and one number in all of its pairs, so that comparisons
    of a row do not contradict each other.
    """
    low = max(0, x.scale - COARSE)
    scale = x.scale - low
    bound = 2 * x.bound + 2.0 ** (1 - scale)
    if ceil(bound * 2.0**scale) >> (RING_BITS - low):
        raise RangeError(
            f"differences of values up to {x.bound:.6g} at {x.scale} fraction bits leave the ring.",
            hint="Use tighter ranges or weight bounds, or a smaller scale.",
        )
    rows, classes = x.shape
    shape = (rows, classes * (classes - 1) // 2)
    node = x.graph.add("gaps", (x.masked(),), Kind.MASKED, shape, (low,))
    return Secret(x.graph, shape, scale, bound, masked=node)


def _nearly_largest(x: Secret) -> tuple[Bit, Bit]:
    """[x_i is within 2^-3 of the largest of its row], for one i of each; [x_i > largest - 16.5].

    The second errs by at most 2^-3.
    """
    fit = FITS["exp"]
    assert fit.guard is not None
    gaps = _gaps(x)
    unit = 2.0**-gaps.scale
    bits = less_each(gaps, [0.0, -fit.guard, fit.guard + unit])  # i loses; i is far below; j is not
    places = _pairs_of(x.shape[1])
    count = gaps.shape[1]
    loses, below, above = bits[0], bits[1], bits[2]
    sides = join_bits(join_bits(~loses, loses), join_bits(~below, above))
    both = every(sides[:, np.stack([places, places + 2 * count])])
    return both[:, 0], both[:, 1]


def softmax(x: Secret) -> Secret:
    """exp(x_i) / sum exp(x_j) over each row of x [rows, classes]; scale 56 (59 beyond ten classes).

    Within `softmax_error` at worst, when the errors of all powers add up; any x is fine. Openings:
    x, pairs, AND, bits, x - largest, powers, their sum, factors of the product: 8 for up to ten
    classes, 11 beyond.
    """
    largest_here, near = _nearly_largest(x)
    largest = largest_here.times(x).sum(axis=1, keepdims=True).bounded(x.bound)
    powers = near.times(wave(x - largest, "exp", POWER)).bounded(POWER_BOUND)
    total = powers.sum(axis=1, keepdims=True)  # one of them is exp(0)
    return (powers.at(POWER_SCALE) * _inverse_of_sum(total)).bounded(1.001)


def softmax_error(classes: int) -> float:
    """How far an element of `softmax` may be off, for up to 64 classes and five parties."""
    return 2.5e-4 if classes <= 10 else 1e-3


def _inverse_of_sum(total: Secret) -> Secret:
    """1 / total for 1 <= total <= its bound, within 1e-4."""
    fit = FITS["wide_reciprocal"]
    result, reach = wave(total, fit.name, INVERSE).bounded(fit.peak), fit.high
    step = 0
    while reach < total.bound:
        step += 3
        far = wave(total.halved(step), fit.name, INVERSE).halved(step)
        beyond = ~less(total, reach * 0.85, resolution=1)
        result = beyond.times(far - result) + result
        reach *= 8.0
    return result.bounded(fit.reach)
