"""Exact samples of the discrete Gaussian, in whole numbers: noise for differential privacy.

The discrete Gaussian of whole sigma gives k the probability exp(-k^2 / (2 sigma^2)) / sum. No
floating-point number occurs, so no digit of a sample betrays what it was added to (Mironov, CCS
2012). Algorithms 1 to 3 of Canonne, Kamath, Steinke (NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from masque.mpc import prg
from masque.mpc.types import Ring, Shape

Draw = Callable[[int], bytes]
"""`draw(n)`: n uniform bytes that nobody else knows."""

LARGEST = 2**56
"""Of sigma: beyond it noise would leave the ring in earnest."""


def discrete_gaussian(sigma: int, shape: Shape, draw: Draw) -> Ring:
    """Independent samples, modulo 2^64; 32 bytes of `draw` seed the stream that they are made of.

    About 20 microseconds each.
    """
    assert 1 <= sigma <= LARGEST
    coins = _Coins(draw(32))
    size = int(np.prod(shape))
    found = np.fromiter((_sample(sigma, coins) for _ in range(size)), np.int64, size)
    return found.view(np.uint64).reshape(shape)


class _Coins:
    """Uniform whole numbers and biased coins from a seed."""

    def __init__(self, seed: bytes) -> None:
        self._read = prg.reader(seed)
        self._pool, self._used = b"", 0

    def below(self, n: int) -> int:
        """Uniform in 0 ... n - 1, by rejection."""
        bits = (n - 1).bit_length()
        size, spare = -(-bits // 8), -bits % 8
        while True:
            value = int.from_bytes(self._take(size), "little") >> spare
            if value < n:
                return value

    def exp(self, numerator: int, denominator: int) -> bool:
        """True with probability exp(-numerator / denominator), a fraction >= 0 (algorithm 1)."""
        while numerator > denominator:
            if not self._exp_small(1, 1):
                return False
            numerator -= denominator
        return self._exp_small(numerator, denominator)

    def _exp_small(self, numerator: int, denominator: int) -> bool:
        """The same for a fraction <= 1: the parity of when the k-th coin of bias x / k fails."""
        k = 1
        while self.below(denominator * k) < numerator:
            k += 1
        return k % 2 == 1

    def _take(self, size: int) -> bytes:
        if self._used + size > len(self._pool):
            self._pool, self._used = bytes(self._read(4096)), 0
        self._used += size
        return self._pool[self._used - size : self._used]


def _laplace(scale: int, coins: _Coins) -> int:
    """k with probability proportional to exp(-|k| / scale) (algorithm 2)."""
    while True:
        low = coins.below(scale)
        if not coins.exp(low, scale):
            continue
        high = 0
        while coins.exp(1, 1):
            high += 1
        magnitude = low + scale * high
        negative = coins.below(2) == 1
        if not (negative and magnitude == 0):
            return -magnitude if negative else magnitude


def _sample(sigma: int, coins: _Coins) -> int:
    """One sample, by rejection from Laplace noise of about the same width (algorithm 3)."""
    scale = sigma + 1
    while True:
        found = _laplace(scale, coins)
        away = abs(found) * scale - sigma * sigma
        if coins.exp(away * away, 2 * (sigma * scale) ** 2):
            return found
