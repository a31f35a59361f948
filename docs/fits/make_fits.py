"""Finds the constants of `masque/mpc/fits.py` and writes them below the line in that file.

    python docs/fits/make_fits.py

Run by whoever wants another function or another interval; never at run time, at build time or in
tests (those hold the frozen constants against the functions themselves). Needs SciPy.

Method: minimise t subject to |sum_j c_j phi_j(x_i) - f(x_i)| <= t on Chebyshev points x_i and
|c_j| <= 5.6, a linear program in (c, t). It is solved again for the remainder, scaled up, until
the solver's own tolerance no longer shows. Coefficients are then rounded to 30 fraction bits, and
the error stated is the largest of a dense sweep with the rounded ones, plus two percent.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import erf

Vector = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "masque" / "mpc" / "fits.py"
LINE = "# --- written by docs/fits/make_fits.py ---\n"
ONE = 1 << 30
BOUND = 5.6  # of each coefficient: hypot(5.6, 5.6) < 8
POINTS = 800
SLACK = 2.0**-10  # a normalised value may leave its interval by a rounding


@dataclass(frozen=True)
class Wish:
    """What to fit: `parity` picks the waves, `offset` is what the odd functions swing about."""

    name: str
    function: Callable[[Vector], Vector]
    low: float
    high: float
    period_bits: int
    harmonics: range
    about: str
    parity: str = "none"
    offset: float = 0.0
    guard: float | None = None


def sigmoid(x: Vector) -> Vector:
    """1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-x)))


def odd_multiples(first: int, count: int) -> range:
    """`count` odd multiples of `first`."""
    return range(first, 2 * first * count, 2 * first)


WISHES = (
    Wish(
        "SIGMOID", sigmoid, -13, 13, 9, odd_multiples(11, 12),
        "1 / (1 + exp(-x)). Saturate to 0 and 1 from 12.5 on: another 3.8e-6 at most.",
        "odd", 0.5, 12.5,
    ),
    Wish(
        "COARSE_SIGMOID", sigmoid, -8.75, 8.75, 5, odd_multiples(1, 6),
        "1 / (1 + exp(-x)) at half the price. Saturate from 8.25 on; at 7.75 that costs 4.4e-4.",
        "odd", 0.5, 8.25,
    ),
    Wish(
        "TANH", np.tanh, -6.5, 6.5, 8, odd_multiples(11, 12),
        "tanh(x). Saturate to -1 and 1 from 6.25 on: 1.3e-5 at 6.",
        "odd", 0.0, 6.25,
    ),
    Wish(
        "EXP", np.exp, -17, 9 / 64, 5, range(1, 13),
        "exp(x) for x <= 0 (up to 9/64, for softmax). Take 0 below -16.5: 1.2e-7 at -16.",
        guard=16.5,
    ),
    Wish(
        "RECIPROCAL", lambda x: 1 / x, 1 - SLACK, 2 + SLACK, 2, range(1, 7),
        "1 / x of a value normalised to [1, 2].",
    ),
    Wish(
        "WIDE_RECIPROCAL", lambda x: 1 / x, 1 - 2.0**-9, 11.5, 4, range(1, 13),
        "1 / x of a sum of up to ten powers, of which one is 1.",
    ),
    Wish(
        "LOG", np.log, 1 - SLACK, 2 + SLACK, 2, range(1, 7),
        "log(x) of a value normalised to [1, 2].",
    ),
    Wish(
        "INVERSE_SQRT", lambda x: x**-0.5, 1 - SLACK, 4 + SLACK, 3, range(1, 9),
        "1 / sqrt(x) of a value normalised to [1, 4].",
    ),
    Wish(
        "GELU_EVEN", lambda x: x * erf(x / math.sqrt(2)) / 2, -6.5, 6.5, 5, odd_multiples(1, 11),
        "gelu(x) - x / 2, which is even. Take |x| / 2 from 6.25 on.",
        "even", 0.0, 6.25,
    ),
    Wish(
        "SOFTPLUS_EVEN", lambda x: np.logaddexp(x / 2, -x / 2), -13, 13, 5, range(1, 15),
        "log(1 + exp(x)) - x / 2, which is even. Take |x| / 2 from 12.5 on: 6.2e-6 at 12.",
        "even", 0.0, 12.5,
    ),
)  # fmt: skip


def waves(wish: Wish, x: Vector) -> Vector:
    """The columns 1, cos(k w x), sin(k w x) that the parity asks for, float64 [n, ...]."""
    angle = np.outer(x, np.array(wish.harmonics)) * (2 * math.pi / 2**wish.period_bits)
    ones = np.ones((len(x), 1))
    parts = {
        "odd": [np.sin(angle)],
        "even": [ones, np.cos(angle)],
        "none": [ones, np.cos(angle), np.sin(angle)],
    }
    return np.hstack(parts[wish.parity])


def solve(wish: Wish) -> Vector:
    """The best coefficients of `waves`, float64."""
    low = wish.low if wish.parity == "none" else 0.0
    spread = (1 - np.cos(math.pi * (np.arange(POINTS) + 0.5) / POINTS)) / 2
    x = np.r_[low, low + (wish.high - low) * spread, wish.high]
    columns, target = waves(wish, x), wish.function(x) - wish.offset
    limit = -np.ones((len(x), 1))
    sides = np.block([[columns, limit], [-columns, limit]])
    best = found = np.zeros(columns.shape[1], np.float64)
    best_error, unit = math.inf, 1.0
    for _ in range(4):
        rest = (target - columns @ found) / unit
        box = [((-BOUND - c) / unit, (BOUND - c) / unit) for c in found]
        cost = np.r_[np.zeros(len(found)), 1.0]
        answer = linprog(cost, A_ub=sides, b_ub=np.r_[rest, -rest], bounds=[*box, (0, None)])
        if answer.x is None:
            break
        found = found + unit * answer.x[:-1]
        unit = max(float(np.abs(columns @ found - target).max()), 1e-13)
        if unit < best_error:
            best, best_error = found, unit
    return np.asarray(best)


def literal(wish: Wish) -> str:
    """The constant's source text."""
    frozen = np.round(solve(wish) * ONE).astype(np.int64)
    x = np.linspace(wish.low, wish.high, 400_001)
    y = waves(wish, x) @ (frozen / ONE) + wish.offset
    error = np.abs(y - wish.function(x)).max()
    period = np.linspace(0, 2**wish.period_bits, 100_001)
    peak = np.abs(waves(wish, period) @ (frozen / ONE) + wish.offset).max()
    constant = round(wish.offset * ONE)
    if wish.parity != "odd":
        constant, frozen = constant + int(frozen[0]), frozen[1:]
    count = len(wish.harmonics)
    nothing = np.zeros(count, np.int64)
    alphas = nothing if wish.parity == "odd" else frozen[:count]
    betas = nothing if wish.parity == "even" else frozen[-count:]
    reach = max(np.abs(y).max(), 1.0 if wish.parity == "odd" else 0.0) + 2.0**-10
    numbers = [
        *(f'"{wish.name.lower()}"', float(wish.low), float(wish.high), wish.period_bits),
        *(upward(float(error)), wish.guard, upward(reach, 5), upward(peak + 2.0**-10, 3)),
        *(tuple(wish.harmonics), constant, tuple(alphas.tolist()), tuple(betas.tolist())),
    ]
    inside = textwrap.fill(", ".join(map(str, numbers)), 96, break_on_hyphens=False)
    return f'{wish.name} = Fit(\n{textwrap.indent(inside, "    ")},\n)\n"""{wish.about}"""\n'


def upward(bound: float, digits: int = 2) -> float:
    """Two percent more (nothing to speak of with more digits), rounded up to so many digits."""
    bound *= 1.02 if digits == 2 else 1 + 1e-6
    digit = 10.0 ** (math.floor(math.log10(bound)) + 1 - digits)
    return float(f"{math.ceil(bound / digit) * digit:.{digits - 1}e}")


def main() -> None:
    """Replaces everything below the line."""
    head = TARGET.read_text().partition(LINE)[0]
    names = ",\n    ".join(wish.name for wish in WISHES)
    tail = (
        f"\nFITS: dict[str, Fit] = {{fit.name: fit for fit in (\n    {names},\n)}}\n"
        + '"""All, by name."""\n'
    )
    body = "\n".join(literal(wish) for wish in WISHES)
    TARGET.write_text(head + LINE + "\n# fmt: off\n" + body + tail)


if __name__ == "__main__":
    main()
