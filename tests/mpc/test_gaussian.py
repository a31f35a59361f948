"""The discrete Gaussian is exactly that: chi-square against its probabilities, by fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from masque.mpc import prg
from masque.mpc.gaussian import LARGEST, Draw, _Coins, discrete_gaussian
from masque.mpc.types import Ring

LEAST = 1e-4  # p-values: fixed seeds, so these tests pass or fail for good


def draws(number: int) -> Draw:
    read = prg.reader(prg.derive(bytes(32), "tests of noise", number))
    return lambda size: bytes(read(size))


def signed(values: Ring) -> np.ndarray:
    return values.view(np.int64)


def probabilities(sigma: int, reach: int) -> np.ndarray:
    """Of -reach ... reach, from the definition."""
    k = np.arange(-reach, reach + 1, dtype=np.float64)
    weights = np.exp(-(k**2) / (2.0 * sigma**2))
    return np.asarray(weights / weights.sum())


@pytest.mark.parametrize("sigma", [1, 2, 3, 10])
def test_small_sigmas_have_the_probabilities_of_the_definition(sigma: int) -> None:
    count, reach = 30_000, 12 * sigma
    found = signed(discrete_gaussian(sigma, (count,), draws(sigma)))
    assert np.abs(found).max() <= reach
    seen = np.bincount(found + reach, minlength=2 * reach + 1)
    expected = count * probabilities(sigma, reach)
    middle = expected >= 8
    rare = count - seen[middle].sum(), count - expected[middle].sum()
    test = stats.chisquare([*seen[middle], rare[0]], [*expected[middle], rare[1]])
    assert test.pvalue > LEAST


@pytest.mark.parametrize("sigma", [1000, 2**22 + 12345, 2**45, LARGEST])
def test_large_sigmas_are_normal(sigma: int) -> None:
    found = signed(discrete_gaussian(sigma, (10_000,), draws(3))).astype(np.float64) / sigma
    assert stats.kstest(found, "norm").pvalue > LEAST
    assert abs(found.mean()) < 4 / np.sqrt(found.size)
    assert abs(found.var() - 1) < 4 * np.sqrt(2 / found.size)


def test_low_digits_are_uniform() -> None:
    """Where sigma is wide, no digit of a sample tells of what it is added to."""
    found = signed(discrete_gaussian(2**20, (16_000,), draws(5)))
    assert stats.chisquare(np.bincount(found % 16, minlength=16)).pvalue > LEAST


@pytest.mark.parametrize(("over", "under"), [(0, 1), (1, 3), (1, 1), (5, 2), (7, 1)])
def test_coins_of_bias_exp(over: int, under: int) -> None:
    coins, count = _Coins(bytes([over, under] * 16)), 20_000
    heads = sum(coins.exp(over, under) for _ in range(count))
    assert stats.binomtest(heads, count, np.exp(-over / under)).pvalue > LEAST


def test_below_is_uniform() -> None:
    coins = _Coins(bytes(range(32)))
    counts = np.bincount([coins.below(11) for _ in range(11_000)], minlength=11)
    assert stats.chisquare(counts).pvalue > LEAST
    assert {coins.below(1) for _ in range(5)} == {0}


def test_samples_follow_from_what_is_drawn_and_from_nothing_else() -> None:
    once, again, other = (discrete_gaussian(99, (4, 2), draws(n)) for n in (1, 1, 2))
    assert once.shape == (4, 2) and np.array_equal(once, again)
    assert not np.array_equal(once, other)
