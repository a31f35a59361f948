"""A trained model in the owners' units: no standardisation, no ranges, no shares left in it.

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
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from masque.data.table import FeatureColumn, LabelInfo
from masque.errors import InputError, ProtocolError

Floats = NDArray[np.float64]
Kind = Literal["linear_regression", "logistic_regression", "softmax_regression"]

AT_BOUND = 1e-4
"""A weight within this part of the bound sits at it."""


@dataclass(frozen=True)
class Model:
    """A linear model: scores are X @ coefficients + intercept.

    `features`: names of the columns of X, in order; a category column is one 0/1 column a
    category. `coefficients` float64 [features, outputs], `intercept` [outputs]; one output for a
    number (its value) and for a binary label (the log-odds of `classes[1]`), one a class
    otherwise. `warnings` say what is doubtful about it.
    """

    kind: Kind
    features: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    coefficients: Floats = field(repr=False)
    intercept: Floats = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def class_values(self) -> NDArray[Any]:
        """The classes as int64 where all of them are whole numbers, otherwise as text."""
        whole = all(text.lstrip("-").isdigit() and str(int(text)) == text for text in self.classes)
        return np.array([int(text) for text in self.classes] if whole else list(self.classes))

    def decision_function(self, X: Floats) -> Floats:
        """Scores [rows], or [rows, classes] with more than one output, of X [rows, features]."""
        matrix = np.asarray(X, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise InputError(
                f"This model needs a matrix with {len(self.features)} columns, not "
                f"{'x'.join(map(str, matrix.shape))}.",
                hint=f"The columns are {', '.join(self.features[:8])}"
                f"{', ...' if len(self.features) > 8 else ''}.",
            )
        scores: Floats = matrix @ self.coefficients + self.intercept
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_proba(self, X: Floats) -> Floats:
        """Probabilities [rows, classes]. Raises InputError for a model of numbers."""
        if self.kind == "linear_regression":
            raise InputError("A linear regression has no probabilities.", hint="Use predict.")
        scores = self.decision_function(X)
        if self.kind == "logistic_regression":
            positive = np.exp(-np.logaddexp(0.0, -scores))
            return np.stack([1.0 - positive, positive], axis=1)
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))

    def predict(self, X: Floats) -> NDArray[Any]:
        """Numbers [rows] for a linear regression, otherwise classes [rows]."""
        scores = self.decision_function(X)
        if self.kind == "linear_regression":
            return scores
        chosen = scores > 0 if scores.ndim == 1 else scores.argmax(axis=1)
        found: NDArray[Any] = self.class_values[chosen.astype(np.int64)]
        return found

    def read(self, path: str | Path, schema: str | Path) -> tuple[Floats, NDArray[Any] | None]:
        """(X, labels) of a file that `schema` describes, X in the order of this model's columns.

        Labels are None without a label column. Raises DataError, or InputError naming a column of
        the model that the file lacks.
        """
        from masque.data import schema as schemas
        from masque.data.encode import decode, read_table
        from masque.data.readers import open_table

        info, matrix = read_table(open_table(path, schemas.load(schema)))
        table = decode(matrix, info)
        missing = [name for name in self.features if name not in table]
        if missing:
            raise InputError(
                f"{path} has no column {missing[0]!r}, which the model was trained on.",
                hint="Describe the file by the schema that was used for training.",
                file=str(path),
                column=missing[0],
            )
        columns = np.stack([table[name] for name in self.features], axis=1)
        return columns, self._labels(table.get(self.label))

    def _labels(self, labels: NDArray[Any] | None) -> NDArray[Any] | None:
        if labels is None or self.kind == "linear_regression":
            return labels
        places = {text: index for index, text in enumerate(self.classes)}
        return np.asarray(self.class_values[[places[str(text)] for text in labels]])


def in_owners_units(
    kind: Kind,
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
    weights = _shaped(values, "weights", (count, outputs))
    intercept = _shaped(values, "intercept", (outputs,), np.zeros(outputs))
    mean = _shaped(values, "mean", (count,), np.zeros(count))
    inverse = _shaped(values, "inverse_deviation", (count,), np.ones(count))
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


def _shaped(
    values: Mapping[str, Floats],
    name: str,
    shape: tuple[int, ...],
    default: Floats | None = None,
) -> Floats:
    found = values.get(name, default)
    if found is None or found.shape != shape:
        what = "is missing" if found is None else f"has the shape {found.shape}, not {shape}"
        raise ProtocolError(
            f"The model's {name} {what}.",
            hint="Check that parties and client run the same version of Masque.",
        )
    return found
