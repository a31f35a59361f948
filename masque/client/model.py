"""A linear model in the owners' units: no standardisation, no ranges, no shares left in it.

What parties train on is x' = (x - middle) / half of every column, standardised if the job says so.
With weights w and intercept b there, the same model on x itself has

    v_j = w_j inverse_deviation_j / half_j
    c = b - sum_j w_j inverse_deviation_j (mean_j + middle_j / half_j)

(without standardisation mean is 0 and inverse_deviation 1), and for a number label, which was
mapped in the same way, both are multiplied by the label's half, and its middle is added to c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from masque.client.predictor import AT_BOUND, Floats, Predictor, Target, shaped
from masque.data.table import FeatureColumn, LabelInfo
from masque.jobs.models import LinearKind

_TARGETS: Mapping[str, Target] = {
    "linear_regression": "number",
    "logistic_regression": "binary",
    "softmax_regression": "classes",
}


@dataclass(frozen=True)
class Model(Predictor):
    """A linear model: scores are X @ coefficients + intercept.

    `coefficients` float64 [features, outputs], `intercept` [outputs]; one output for a number (its
    value) and for a binary label (the log-odds of `classes[1]`), one a class otherwise.
    """

    coefficients: Floats = field(repr=False)
    intercept: Floats = field(repr=False)

    @property
    def target(self) -> Target:
        """By the kind."""
        return _TARGETS[self.kind]

    def scores(self, X: Floats) -> Floats:
        """X @ coefficients + intercept."""
        found: Floats = X @ self.coefficients + self.intercept
        return found

    def arrays(self) -> dict[str, Floats]:
        """`coefficients`, `intercept`."""
        return {"coefficients": self.coefficients, "intercept": self.intercept}

    def description(self) -> dict[str, Any]:
        """Nothing beside names."""
        return {}


def in_owners_units(
    kind: LinearKind,
    features: Sequence[FeatureColumn],
    label: LabelInfo,
    values: Mapping[str, Floats],
    weight_bound: float,
) -> Model:
    """The model from what a job put out: weights [features, outputs], intercept [outputs], and
    with standardisation mean and inverse_deviation [features].

    Raises ProtocolError if shapes do not belong to these columns.
    """
    count = len(features)
    outputs = len(label.classes) if label.kind == "classes" else 1
    weights = shaped(values, "weights", (count, outputs))
    intercept = shaped(values, "intercept", (outputs,), np.zeros(outputs))
    mean = shaped(values, "mean", (count,), np.zeros(count))
    inverse = shaped(values, "inverse_deviation", (count,), np.ones(count))
    half = np.array([feature.half for feature in features])
    middle = np.array([feature.middle for feature in features])
    scaled = weights * inverse[:, None]
    coefficients = scaled / half[:, None]
    shifted = intercept - (mean + middle / half) @ scaled
    if label.kind == "number":
        coefficients, shifted = coefficients * label.half, shifted * label.half + label.middle
    return Model(
        kind=kind,
        features=tuple(feature.name for feature in features),
        label=label.name,
        classes=label.classes,
        coefficients=coefficients,
        intercept=shifted,
        warnings=tuple(_warnings(weights, intercept, weight_bound)),
    )


def _warnings(weights: Floats, intercept: Floats, bound: float) -> list[str]:
    largest = max(float(np.abs(weights).max(initial=0.0)), float(np.abs(intercept).max(initial=0)))
    if largest < bound * (1 - AT_BOUND):
        return []
    return [
        f"A weight sits at the weight bound ({bound:g}): training may have diverged;"
        " lower the learning rate, or raise model.weight_bound."
    ]
