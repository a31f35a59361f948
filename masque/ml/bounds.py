"""Bounds and scales: what makes every intermediate value of a training job provably fit the ring.

Nothing here looks at data. From the declared ranges and the bound W on weights follow the largest
possible score, gradient and step, and from these the scales: as fine as the ring allows.

*Rows.* An encoded feature is at most the bound of its column. Standardised over N rows, a column x
has sum_i x_i^2 <= N, hence |x_i| <= sqrt(N), and over any batch of B of these rows sum |x_i| <=
sqrt(B N) (Cauchy and Schwarz). A held-out row can be further out: |x| <= 2 / least deviation.

*Steps.* The change of a step is at most c = p + q |w|, p from the residuals and q from L2 (and,
for linear regression, from scores); where that may exceed W, it is limited to W. A velocity is at
most S = c / (1 - momentum), by induction. Weights are limited to W before every k-th step and gain
at most S in each, so they stay within W + k S; k is the largest with k S <= W, or 1.

`masque.ml.descent` asserts the induction on the bounds that tracing finds for the very block that
is run, roundings included.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf, log2, sqrt

from masque.errors import RangeError
from masque.ml import rows
from masque.ml.task import Task

FEATURE_SCALE = 16  # fraction bits of the design matrix
DATA_SCALE = 24  # of data sets and labels
WEIGHT_SCALE = 24  # of weights and velocity, at most
ERROR_SCALE = 36  # of residuals, at most
LEAST_SCALE = 8  # of anything: below it a job is refused
LEAST_VARIANCE = 2.0**-20  # of a column in its unit; one that varies less is scaled as if it did
ENCODED = 1 + 2.0**-20  # times its bound: the largest that a number is once it is encoded
ERROR = 1.01  # largest residual of a probability
ROUNDING = 2.0**-5  # what roundings at LEAST_SCALE add to the change of a step
MARGIN = 1.02  # what roundings add to a standardised value (masque.ml.preprocess)
BITS = 61.99  # that a magnitude may take


def room(magnitude: float, scale: int, most: int, what: str, *, cure: str = "") -> int:
    """Fraction bits left for a factor so that magnitude at scale + bits stays in the ring.

    Errors: RangeError if they are fewer than 8: `what` grew too large. Its field is the bound on
    weights, which lowers everything; `cure` names another one.
    """
    bits = min(most, floor(BITS - scale - log2(max(magnitude, 1.0))))
    if bits < LEAST_SCALE:
        field = "model.weight_bound"
        other = f", {cure}" if cure else ""
        raise RangeError(
            f"{what} of this job could reach {magnitude:.3g}, which leaves the ring.",
            hint=f"Lower {field}{other}, or the ranges of columns that are not scaled.",
            field=field,
        )
    return bits


@dataclass(frozen=True, slots=True)
class RowBounds:
    """Magnitudes of rows: `feature` of one that is not held out, `held_out` of one that is.

    `batch_root`: the root of N, see `row_sum`.
    """

    feature: float
    held_out: float
    batch_root: float


@dataclass(frozen=True, slots=True)
class Bounds(RowBounds):
    """Magnitudes: nothing is ever larger. Scales: fraction bits.

    `error`: of a residual. `change`: that a step may make without being limited. `step`: of a
    velocity. `weight`: of a weight at any time, being limited every `period` steps.
    """

    error: float
    change: float
    step: float
    period: int
    weight: float
    weight_scale: int
    error_scale: int

    def gradient(self, batch: int) -> float:
        """Of a sum of residuals times features over a batch."""
        return self.error * row_sum(batch, self.feature, self.batch_root)


def row_sum(batch: int, feature: float, batch_root: float) -> float:
    """Of the sum of |x| of a column over a batch."""
    return min(batch * feature, sqrt(batch) * batch_root)


def bounds(task: Task) -> Bounds:
    """The bounds of a task. Errors: RangeError if no scale fits, naming the field to change."""
    rows_ = row_bounds(task)
    feature, held_out, root = rows_.feature, rows_.held_out, rows_.batch_root
    change, step, period = _steps(task, feature, root)
    weight = task.weight_bound + period * step
    score = task.columns * feature * weight
    widest = task.classes * score  # softmax adds up its classes' scores, all but one being zero
    cure = "training.optimizer.momentum"
    weight_scale = room(widest, FEATURE_SCALE, WEIGHT_SCALE, "a score", cure=cure)
    error = score + ERROR if _unlimited(task) else ERROR
    largest = error * row_sum(max(rows.batch_sizes(task)), feature, root)
    error_scale = room(
        largest, FEATURE_SCALE, ERROR_SCALE, "a gradient", cure="training.batch_size"
    )
    return Bounds(
        feature, held_out, root, error, change, step, period, weight, weight_scale, error_scale
    )


def _unlimited(task: Task) -> bool:
    """Whether residuals grow with the scores."""
    return task.kind == "linear" and task.privacy is None


def row_bounds(task: Task) -> RowBounds:
    """Of the rows of the design matrix; the intercept's column is 1."""
    if task.standardize:
        root = sqrt(task.measured_rows) * MARGIN
        furthest = 2 / sqrt(LEAST_VARIANCE) * MARGIN
        return RowBounds(min(root, furthest), furthest, root)
    feature = max(1.0, *task.feature_bounds) * ENCODED + 2.0 ** (1 - FEATURE_SCALE)
    return RowBounds(feature, feature, inf)


def _steps(task: Task, feature: float, root: float) -> tuple[float, float, int]:
    """(change, step, period); see the module docstring and `Bounds`."""
    limit, rate = task.weight_bound, max(task.learning_rates)
    kept = 1.0 - task.momentum - 2.0**-23  # of which 24 bits are used
    if kept <= 0:
        raise RangeError(
            f"with a momentum of {task.momentum} a velocity has no bound.",
            hint="Lower training.optimizer.momentum.",
            field="training.optimizer.momentum",
        )
    mean = max(row_sum(size, feature, root) / size for size in rows.batch_sizes(task))
    growth = task.columns * feature * mean if _unlimited(task) else 0.0
    p, q = 1.001 * rate * ERROR * mean + 2 * ROUNDING, 1.001 * rate * (growth + task.l2)
    step = (p + 2 * q * limit) / kept
    if step <= limit:
        return step * kept - ROUNDING, step, floor(limit / step)
    free = (p + q * limit) / (kept - q) if q < kept else inf
    step = min(free, (limit + 2 * ROUNDING) / kept)
    return step * kept - ROUNDING, step, 1
