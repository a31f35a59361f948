"""The frozen coefficients are held against the functions themselves, over whole intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from masque.mpc.fits import (
    COARSE_SIGMOID,
    COEFFICIENT_SCALE,
    EXP,
    FITS,
    INVERSE_SQRT,
    LOG,
    RECIPROCAL,
    SIGMOID,
    TANH,
    Fit,
)

Vector = NDArray[np.float64]
ERF = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Vector) -> Vector:
    return np.asarray(1 / (1 + np.exp(-x)))


FUNCTIONS: dict[str, Callable[[Vector], Vector]] = {
    "sigmoid": sigmoid,
    "coarse_sigmoid": sigmoid,
    "tanh": np.tanh,
    "exp": np.exp,
    "reciprocal": lambda x: 1 / x,
    "wide_reciprocal": lambda x: 1 / x,
    "log": np.log,
    "inverse_sqrt": lambda x: x**-0.5,
    "gelu_even": lambda x: x * ERF(x / math.sqrt(2)) / 2,
    "softplus_even": lambda x: np.logaddexp(x / 2, -x / 2),
}
BUDGETS = {
    SIGMOID: 2e-5,
    COARSE_SIGMOID: 5e-4,
    EXP: 3e-6,
    RECIPROCAL: 1e-8,
    LOG: 1e-8,
    INVERSE_SQRT: 1e-7,
    TANH: 5e-5,
}


def evaluate(fit: Fit, x: Vector) -> Vector:
    one = float(1 << fit.coefficient_scale)
    angle = np.outer(x, fit.harmonics) * (2 * math.pi / 2**fit.period_bits)
    total = np.cos(angle) @ np.array(fit.alphas) + np.sin(angle) @ np.array(fit.betas)
    return np.asarray((total + fit.constant) / one)


def test_every_fit_is_held_against_its_function() -> None:
    assert set(FITS) == set(FUNCTIONS)
    assert all(name == fit.name for name, fit in FITS.items())


@pytest.mark.parametrize("fit", FITS.values(), ids=list(FITS))
def test_error_over_the_whole_interval(fit: Fit) -> None:
    x = np.linspace(fit.low, fit.high, 150_001)
    error = float(np.abs(evaluate(fit, x) - FUNCTIONS[fit.name](x)).max())
    assert 0.9 * fit.error < error <= fit.error  # neither false nor idle


@pytest.mark.parametrize("fit", FITS.values(), ids=list(FITS))
def test_coefficients_fit_the_kernels(fit: Fit) -> None:
    one = 1 << COEFFICIENT_SCALE
    assert fit.coefficient_scale == COEFFICIENT_SCALE
    assert len(fit.harmonics) == len(fit.alphas) == len(fit.betas) == len(set(fit.harmonics))
    assert all(k >= 1 for k in fit.harmonics)
    assert all(math.hypot(a, b) < 7.95 * one for a, b in zip(fit.alphas, fit.betas, strict=True))
    assert fit.high - fit.low < 2**fit.period_bits


@pytest.mark.parametrize("fit", FITS.values(), ids=list(FITS))
def test_reach_inside_and_peak_anywhere(fit: Fit) -> None:
    inside = np.abs(evaluate(fit, np.linspace(fit.low, fit.high, 30_001))).max()
    anywhere = np.abs(evaluate(fit, np.linspace(0, 2**fit.period_bits, 60_001))).max()
    assert 0.998 * fit.reach < inside + 2.0**-10 <= fit.reach <= fit.peak
    assert 0.98 * fit.peak < anywhere + 2.0**-10 <= fit.peak


@pytest.mark.parametrize("fit", BUDGETS, ids=[fit.name for fit in BUDGETS])
def test_error_budgets(fit: Fit) -> None:
    assert fit.error <= BUDGETS[fit]


@pytest.mark.parametrize("fit", [SIGMOID, COARSE_SIGMOID], ids=["fine", "coarse"])
def test_saturating_half_a_unit_early_stays_within_budget(fit: Fit) -> None:
    assert fit.guard is not None and fit.guard <= fit.high - 0.5 + 1e-9
    assert float(sigmoid(np.array([0.5 - fit.guard]))[0]) <= BUDGETS[fit]


@pytest.mark.parametrize("fit", FITS.values(), ids=list(FITS))
def test_arrays_constant_and_digest(fit: Fit) -> None:
    harmonics, (alphas, betas) = fit.harmonics_array, fit.arrays
    assert harmonics.dtype == alphas.dtype == betas.dtype == np.int64
    assert not alphas.flags.writeable
    assert tuple(harmonics.tolist()) == fit.harmonics
    assert tuple(alphas.tolist()) == fit.alphas and tuple(betas.tolist()) == fit.betas
    for scale in (0, 13, 24, 30, 48):
        assert abs(fit.constant_at(scale) / 2**scale - fit.constant / 2**30) <= 2.0 ** -(scale + 1)
    assert [other for other in FITS.values() if other.digest == fit.digest] == [fit]
