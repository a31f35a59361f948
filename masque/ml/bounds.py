"""Bounds and scales: what makes every intermediate value of a training job provably fit the ring.

Nothing here looks at data. From the declared ranges and the weight bound follow the largest
possible score, gradient and step; from these the scales, as fine as the ring allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2, sqrt

from masque.errors import RangeError
from masque.ml.task import Task

FEATURE_SCALE = 16  # fraction bits of the design matrix
DATA_SCALE = 24  # of data sets and labels
WEIGHT_SCALE = 24  # of weights and velocity, at most
SPREAD_SCALE = 36  # of variances, at most
LEAST_VARIANCE = 2.0**-20  # of an encoded feature; one that varies less is scaled as if it did
BITS = 61  # that a magnitude may take


def room(magnitude: float, scale: int, most: int) -> int:
    """Fraction bits left for a factor so that magnitude at scale + bits stays in the ring."""
    bits = min(most, floor(BITS - scale - log2(max(magnitude, 1.0))))
    if bits < 8:
        raise RangeError(
            f"a value of this job could reach {magnitude:.3g}, which leaves the ring.",
            hint="Use a smaller weight bound, learning rate or batch, or tighter column ranges.",
        )
    return bits


@dataclass(frozen=True, slots=True)
class Bounds:
    """`feature`: of a training row; `any_feature`: of any row; `error`: of a residual.

    `step`: of one velocity; `weight`: of a weight before it is limited. Scales in bits.
    """

    feature: float
    any_feature: float
    error: float
    step: float
    weight: float
    weight_scale: int
    error_scale: int
    limited: bool


def bounds(task: Task) -> Bounds:
    """The bounds of a task. Errors: RangeError if no scale fits."""
    feature, any_feature = task.feature_bound, task.feature_bound
    if task.standardize:
        any_feature = 2 * task.feature_bound / sqrt(LEAST_VARIANCE) * 1.01
        feature = min(any_feature, sqrt(task.rows - task.holdout_rows) * 1.02)
    feature, any_feature = max(feature, 1.0), max(any_feature, 1.0)
    step, limited = _step(task, feature)
    weight = task.weight_bound + step
    score = task.columns * feature * weight
    weight_scale = room(score, FEATURE_SCALE, WEIGHT_SCALE)
    error = 1.01 if task.kind != "linear" else score + 1.01
    batch = min(task.batch_size, task.training_rows)
    error_scale = room(batch * feature * error, FEATURE_SCALE, 36)
    return Bounds(feature, any_feature, error, step, weight, weight_scale, error_scale, limited)


def _step(task: Task, feature: float) -> tuple[float, bool]:
    """Largest velocity, and whether every step must be limited to the weight bound for it."""
    rate, kept = max(task.learning_rates), 1.0 - task.momentum
    if task.kind != "linear":
        shrink = kept - rate * task.l2
        if shrink > 0:
            step = rate * (1.01 * feature + task.l2 * task.weight_bound) / shrink
            if step <= task.weight_bound:
                return step, False
    return task.weight_bound / kept * 1.01, True
