"""Least squares without negative coefficients: what explains measured times best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIDGE = 0.02
_ENOUGH = 1e-12
_MOST = 50_000


def fitted(counts: Floats, seconds: Floats, expected: Floats, ridge: float = RIDGE) -> Floats:
    """Coefficients c >= 0 [units] with counts [samples, units] c close to seconds [samples] > 0.

    Least are the squares of relative errors, and `ridge` times those by which coefficients differ
    from the `expected` ones (all > 0) at the speed of this machine: units that always occur
    together share their time as expected. Coordinate descent: the problem is strictly convex.
    """
    speed = _speed(counts @ expected / seconds)
    scaled = counts * (speed * expected) / seconds[:, None]
    curvature = scaled.T @ scaled + ridge * np.eye(expected.size)
    target = scaled.sum(axis=0) + ridge
    factors = np.ones(expected.size)
    for _ in range(_MOST):
        before = factors.copy()
        for unit in range(expected.size):
            slope = curvature[unit] @ factors - target[unit]
            factors[unit] = max(0.0, factors[unit] - slope / curvature[unit, unit])
        if np.abs(factors - before).max() <= _ENOUGH * factors.max(initial=1.0):
            break
    return np.asarray(factors * speed * expected)


def _speed(ratios: Floats) -> float:
    """The factor that brings expected times, `ratios` of those measured, closest to them."""
    return float(ratios.sum() / (ratios @ ratios))
