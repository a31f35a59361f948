"""Differential privacy of a linear model: what one row can change, and the noise that hides it.

Two data sets are neighbours if they differ in the values of one row; the number of rows is public.
`sensitivity` bounds how far apart, in Euclidean norm, the weights of neighbours end, by the very
factors that the program is run with; docs/privacy.md has the proof. Noise is calibrated for the
discrete Gaussian by concentrated differential privacy (Canonne, Kamath, Steinke, NeurIPS 2020).

Everything here must come out alike on every machine: additions, products, roots and comparisons of
doubles do, and the one place with logarithms, `noise_multiplier`, rounds up to whole 1/1024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, Context
from math import ceil, exp, expm1, floor, log, log1p, sqrt

import numpy as np

from masque.errors import SpecError
from masque.ml import rows
from masque.ml.bounds import FEATURE_SCALE, Bounds
from masque.ml.task import Task
from masque.mpc.classes import softmax_error
from masque.mpc.fits import FITS
from masque.mpc.program import Release
from masque.mpc.trig import wave_error
from masque.mpc.waves import BULK

CURVATURE: Mapping[str, float] = {"linear": 1.0, "logistic": 0.25, "softmax": 0.5}
"""Of the loss by the scores, at most."""
FINEST = 1024
"""Noise multipliers are whole multiples of 1 / this."""
ERRORS_FOR = 5
"""Parties that the error of softmax is told for; each more adds carries."""
SLACK = 1.0 + 2.0**-30  # what roundings of doubles here may come to

Factors = Callable[[int, int], tuple[float, float]]
"""(epoch, rows of a batch) to (rate / rows, rate x l2), as they are encoded."""


def check_rates(task: Task) -> None:
    """SpecError for a learning rate that may bring weights of two data sets further apart."""
    most = largest_rate(task)
    if max(task.learning_rates) > most:
        raise SpecError(
            "With so large a learning rate one row may change the weights without end, and no noise"
            " hides it.",
            hint=f"Lower training.optimizer.learning_rate to {floor(most * 1e4) / 1e4:g} or below.",
            field="training.optimizer.learning_rate",
        )


def release(task: Task, limits: Bounds, factors: Factors) -> Release:
    """The noise of a task with privacy, whose rates were checked.

    SpecError if one row may move the weights further than the job says.
    """
    assert task.privacy is not None
    epsilon, delta = task.privacy.epsilon, task.privacy.delta
    moved, most = sensitivity(task, limits, factors), task.privacy.sensitivity
    if most is not None and moved > most:
        raise SpecError(
            f"One row may move the weights by {rounded_up(moved)}, and the job says that it moves"
            f" them by {most} at most.",
            hint=f"Raise privacy.sensitivity to {rounded_up(moved)}, or train less: fewer epochs, a"
            " lower learning rate, more model.l2, larger batches or more rows.",
            field="privacy.sensitivity",
        )
    ulp = 2.0**-limits.weight_scale
    whole = ceil(noise_multiplier(epsilon, delta) * moved / ulp)
    values = task.columns * task.classes
    return Release(epsilon, delta, moved, whole * ulp, values, task.model_to)


def rounded_up(value: float) -> str:
    """A positive number in four digits, as they are shown: never less than it is."""
    return f"{Context(prec=4, rounding=ROUND_CEILING).create_decimal_from_float(value):g}"


def score_noise(task: Task, found: Release) -> float:
    """Standard deviation of what the noise of all parties does to a score of the longest row."""
    return found.sigma * sqrt(task.parties) * row_norm(task)


def row_norm(task: Task) -> float:
    """Of a row of the design matrix, its rounding and the intercept's one included."""
    assert task.privacy is not None
    rounded = task.privacy.row_norm + sqrt(task.features) * 2.0 ** (1 - FEATURE_SCALE)
    return sqrt(rounded * rounded + task.intercept) * SLACK


def row_gradient(task: Task) -> float:
    """Norm of the gradient of a row's loss: residuals are within 1, of a softmax within sqrt 2."""
    return row_norm(task) * (sqrt(2.0) if task.kind == "softmax" else 1.0)


def largest_rate(task: Task) -> float:
    """The learning rate up to which steps bring weights of any two data sets no further apart.

    A little less, so that it holds for rates as they are encoded as well.
    """
    return (1.0 - 2.0**-14) / (CURVATURE[task.kind] * row_norm(task) ** 2 + 2.0 * task.l2)


def sensitivity(task: Task, limits: Bounds, factors: Factors) -> float:
    """The bound: of all rows the largest sum, over the steps that use it, of what it can add there
    times what later steps leave of that; and what roundings add. Never above the diameter of what
    the weights are limited to.
    """
    batches, last = rows.batch_count(task), rows.batch_sizes(task)[-1]
    place = np.arange(task.training_rows) // task.batch_size  # the batch of a shuffled row
    spread, errors = np.zeros(task.rows), 0.0
    for epoch in range(len(task.learning_rates)):
        sizes = [task.batch_size] * (batches - 1) + [last]
        steps = {size: _step(task, limits, size, *factors(epoch, size)) for size in set(sizes)}
        added, kept = np.zeros(batches), 1.0
        noise = 0.0
        for number in reversed(range(batches)):
            shrinks, moves, rounds = steps[sizes[number]]
            added[number] = moves * kept
            noise += rounds * kept
            kept *= shrinks
        spread *= kept
        spread[np.concatenate(list(rows.batches(task, epoch)))] += added[place]
        errors = errors * kept + noise
    widest = 2.0 * task.weight_bound * sqrt(task.columns * task.classes)
    return min(float(spread.max()) + errors, widest) * SLACK


def _step(
    task: Task, limits: Bounds, size: int, rate: float, shrink: float
) -> tuple[float, float, float]:
    """Of a step on `size` rows with the encoded factors: how much of a distance it leaves, what a
    row that differs adds to it, and what its roundings and approximations add.
    """
    norm = row_norm(task)
    steepest = shrink + rate * size * CURVATURE[task.kind] * norm * norm
    leaves = max(1.0 - shrink, steepest)
    assert leaves <= 1.0, "the learning rate was checked"
    places = task.columns * task.classes
    ulps = (2.0 + 2.0 * (task.l2 > 0)) * 2.0**-limits.weight_scale * sqrt(places)
    residuals = _residual_error(task, limits) * sqrt(task.classes)
    return leaves, 2 * rate * row_gradient(task), 2 * (rate * size * norm * residuals + ulps)


def _residual_error(task: Task, limits: Bounds) -> float:
    """Of one residual: of the fitted prediction (docs/protocol.md, 6 and 8), and of rounding."""
    rounding = 2.0 ** (1 - min(limits.error_scale, FEATURE_SCALE + limits.weight_scale))
    if task.kind == "logistic":
        return _sigmoid_error(max(30, min(36, limits.error_scale)), task.parties) + rounding
    if task.kind == "softmax":
        carries = max(0, task.parties - ERRORS_FOR) * 2.0**-16
        return softmax_error(task.classes) + carries + rounding
    return rounding


def _sigmoid_error(scale: int, parties: int) -> float:
    """Of the fit, of rounded waves, and of a phase that is off by a unit a party; saturating costs
    less. Rounded up, so that no library decides its last digits.
    """
    fit = FITS["sigmoid"]
    waves = wave_error(fit.alphas, fit.betas, scale // 2, scale - scale // 2)
    return ceil((fit.error + waves + 0.25 * (parties + 1) * 2.0 ** -BULK[0]) * 2.0**30) / 2.0**30


def noise_multiplier(epsilon: float, delta: float) -> float:
    """The least sigma / sensitivity, a multiple of 1/1024, with (epsilon, delta)-privacy."""
    low, high = 0, FINEST
    while spent(epsilon, high / FINEST) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if spent(epsilon, middle / FINEST) <= delta else (middle, high)
    return high / FINEST


def spent(epsilon: float, multiplier: float) -> float:
    """A delta for this epsilon, sigma being `multiplier` times the sensitivity.

    The mechanism is rho-zCDP with rho = 1 / (2 multiplier^2), so for any order a > 1 delta may be
    exp((a-1)(a rho - epsilon)) / (a-1) (1 - 1/a)^a. Of the orders on a grid, the best.
    """
    if multiplier <= 0:
        return 1.0
    rho = 1.0 / (2.0 * multiplier * multiplier)
    orders = (1.0 + 2.0 ** (step / 32) for step in range(-320, 321))
    return min(1.0, *(exp(min(0.0, _log_delta(a, rho, epsilon))) for a in orders))


def _log_delta(a: float, rho: float, epsilon: float) -> float:
    return (a - 1) * (a * rho - epsilon) - log(a - 1) + a * log1p(-1 / a)


def advantage_bound(epsilon: float, delta: float) -> float:
    """No test tells neighbours apart with true minus false positives above this (Kairouz, Oh,
    Viswanath, ICML 2015).
    """
    return min(1.0, (expm1(epsilon) + 2.0 * delta) / (exp(epsilon) + 1.0))
