"""Smooth functions as Fourier sums, frozen in whole numbers.

    f(x) ~ constant + sum_k alpha_k cos(k w x) + beta_k sin(k w x),    w = 2 pi / 2^period_bits

for x in [low, high]; beyond it the sum wraps round, so callers guard it by comparisons on the same
opening and saturate. The interval is shorter than the period, and what the sum does in the gap is
free: a *Fourier continuation* (J. P. Boyd, "A comparison of numerical algorithms for Fourier
extension of the first, second, and third kinds", J. Comput. Phys. 178, 2002; D. Huybrechs, "On
the Fourier extension of nonperiodic functions", SIAM J. Numer. Anal. 47, 2010), which converges
geometrically although f is not periodic. Ours are minimax rather than least-squares fits, found
by a linear program that also keeps hypot(alpha_k, beta_k) below 8; that is what bounds how much
the rounding of dealt waves is magnified (`masque.mpc.trig.wave_error`).

Odd functions have sines only, even ones cosines only. Saturating odd ones take the odd multiples
of one frequency k_0 w: these are symmetric about a quarter of its wave, put near the end of the
interval, where the function is flat as well; 12 of them do the work of 16 plain harmonics.

The constants below the line were written by `python docs/fits/make_fits.py`. They are part of the
protocol: all parties must hold the same ones, which `Fit.digest` lets them compare.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

COEFFICIENT_SCALE = 30
"""Fraction bits of every coefficient."""


@dataclass(frozen=True)
class Fit:
    """One function on one interval.

    `error` bounds |sum - f| on [low, high] for these very coefficients in exact arithmetic; the
    rounding of waves comes on top. `constant`, `alphas` (cosines) and `betas` (sines) have
    `coefficient_scale` fraction bits; `harmonics` are the k. `guard`: saturate for |x| beyond it;
    the rest of the interval is slack for comparing rounded values (None: x is always inside).
    `reach` bounds |sum| on [low, high] and the values it saturates to, `peak` |sum| for any x at
    all: what it may be before the guard. Both leave 2^-10 for the rounding of waves.
    """

    name: str
    low: float
    high: float
    period_bits: int
    error: float
    guard: float | None
    reach: float
    peak: float
    harmonics: tuple[int, ...]
    constant: int
    alphas: tuple[int, ...]
    betas: tuple[int, ...]
    coefficient_scale: int = COEFFICIENT_SCALE

    @cached_property
    def harmonics_array(self) -> NDArray[np.int64]:
        """The k as int64 [K], read-only, as `masque.mpc.trig` takes them."""
        return _frozen(self.harmonics)

    @cached_property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(alphas, betas) as int64 [K] each, read-only."""
        return _frozen(self.alphas), _frozen(self.betas)

    def constant_at(self, scale: int) -> int:
        """The constant term with `scale` fraction bits, rounded: what party 0 adds."""
        drop = self.coefficient_scale - scale
        if drop <= 0:
            return self.constant << -drop
        return (self.constant + (1 << (drop - 1))) >> drop

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of every number in it, for the digest of a program that uses it."""
        return hashlib.sha256(repr(self).encode()).digest()


def _frozen(numbers: tuple[int, ...]) -> NDArray[np.int64]:
    array = np.array(numbers, np.int64)
    array.flags.writeable = False
    return array


# --- written by docs/fits/make_fits.py ---

# fmt: off
SIGMOID = Fit(
    "sigmoid", -13.0, 13.0, 9, 1.9e-05, 12.5, 1.001, 1.01, (11, 33, 55, 77, 99, 121, 143, 165, 187,
    209, 231, 253), 536870912, (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), (663502877, 176290739,
    70580767, 29865111, 12758911, 5465118, 2335030, 1004286, 427620, 182327, 82507, 37335),
)
"""1 / (1 + exp(-x)). Saturate to 0 and 1 from 12.5 on: another 3.8e-6 at most."""

COARSE_SIGMOID = Fit(
    "coarse_sigmoid", -8.75, 8.75, 5, 0.00032, 8.25, 1.001, 1.01, (1, 3, 5, 7, 9, 11), 536870912,
    (0, 0, 0, 0, 0, 0), (642197594, 135769227, 38771363, 11152972, 3360750, 970102),
)
"""1 / (1 + exp(-x)) at half the price. Saturate from 8.25 on; at 7.75 that costs 4.4e-4."""

TANH = Fit(
    "tanh", -6.5, 6.5, 8, 3.7e-05, 6.25, 1.001, 1.01, (11, 33, 55, 77, 99, 121, 143, 165, 187, 209,
    231, 253), 0, (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), (1327005754, 352581479, 141161535, 59730222,
    25517821, 10930235, 4670059, 2008571, 855241, 364653, 165013, 74669),
)
"""tanh(x). Saturate to -1 and 1 from 6.25 on: 1.3e-5 at 6."""

EXP = Fit(
    "exp", -17.0, 0.140625, 5, 2.5e-06, 16.5, 1.152, 28.2, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
    1279049242, (4486002956, 2985443506, -4478838529, -6012954214, -62103970, 2746627318, 781572276,
    -488844459, -202985954, 27645809, 13226382, -96427), (756101975, 6012954214, 5690198582,
    -1870925437, -4601783412, -823461074, 1304806203, 468800269, -139086137, -63461028, 3151517,
    1422690),
)
"""exp(x) for x <= 0 (up to 9/64, for softmax). Take 0 below -16.5: 1.2e-7 at -16."""

RECIPROCAL = Fit(
    "reciprocal", 0.9990234375, 2.0009765625, 2, 4.5e-09, None, 1.002, 5.87, (1, 2, 3, 4, 5, 6),
    2121320014, (2296999495, 801188474, 33200187, -76400279, -22731027, -1768639), (-641516324,
    -919814589, -475577086, -108506621, -5818841, 903890),
)
"""1 / x of a value normalised to [1, 2]."""

WIDE_RECIPROCAL = Fit(
    "wide_reciprocal", 0.998046875, 11.5, 4, 1.6e-05, None, 1.003, 20.4, (1, 2, 3, 4, 5, 6, 7, 8, 9,
    10, 11, 12), 2967933625, (4548936149, 1982624442, -451083535, -1651201161, -1559878070,
    -864630220, -252244862, 24363963, 62644834, 29524046, 6487796, 450660), (-2630584629,
    -3950458917, -3403139189, -1808983564, -339143640, 375888390, 430139591, 230733252, 67879745,
    5416911, -3262677, -922285),
)
"""1 / x of a sum of up to ten powers, of which one is 1."""

LOG = Fit(
    "log", 0.9990234375, 2.0009765625, 2, 2.1e-09, None, 0.69462, 1.88, (1, 2, 3, 4, 5, 6),
    -115922545, (-1249158858, -468585425, -69308893, 17202815, 7583826, 682347), (-196161044,
    254604406, 176990498, 47085720, 3968195, -186315),
)
"""log(x) of a value normalised to [1, 2]."""

INVERSE_SQRT = Fit(
    "inverse_sqrt", 0.9990234375, 4.0009765625, 3, 2.8e-08, None, 1.0015, 12.3, (1, 2, 3, 4, 5, 6,
    7, 8), 3165158303, (2689436736, -1075270845, -1613942561, -422279127, 112944444, 62723690,
    4488510, -533958), (-3444705086, -2739820687, -218107682, 586436165, 221593283, -470265,
    -9361889, -664631),
)
"""1 / sqrt(x) of a value normalised to [1, 4]."""

GELU_EVEN = Fit(
    "gelu_even", -6.5, 6.5, 5, 2e-06, 6.25, 3.251, 8.02, (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21),
    4300845400, (-3554001248, -435676258, -170197885, -79008091, -37706138, -15483267, -6166620,
    -1831591, -626616, -101463, -44211), (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
)
"""gelu(x) - x / 2, which is even. Take |x| / 2 from 6.25 on."""

SOFTPLUS_EVEN = Fit(
    "softplus_even", -13.0, 13.0, 5, 1.4e-05, 12.5, 6.501, 7.57, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
    12, 13, 14), 4330917993, (-3337570459, 56467580, -273428832, 29862758, -58899360, 11974336,
    -15067937, 3671181, -3618076, 724470, -655189, 3955, -54779, -52023), (0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0),
)
"""log(1 + exp(x)) - x / 2, which is even. Take |x| / 2 from 12.5 on: 6.2e-6 at 12."""

FITS: dict[str, Fit] = {fit.name: fit for fit in (
    SIGMOID,
    COARSE_SIGMOID,
    TANH,
    EXP,
    RECIPROCAL,
    WIDE_RECIPROCAL,
    LOG,
    INVERSE_SQRT,
    GELU_EVEN,
    SOFTPLUS_EVEN,
)}
"""All, by name."""
