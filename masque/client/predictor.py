"""What linear models and networks have in common once they are in the owners' units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from masque.errors import InputError, ProtocolError

Floats = NDArray[np.float64]
Target = Literal["number", "binary", "classes"]

AT_BOUND = 1e-4
"""A weight within this part of the bound sits at it."""


@dataclass(frozen=True)
class Predictor(ABC):
    """A trained model: from the columns of X, as their owners have them, to predictions.

    `features`: names of the columns of X, in order; a category column is one 0/1 column a
    category. `warnings` say what is doubtful about it.
    """

    kind: str
    features: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    @abstractmethod
    def target(self) -> Target:
        """What is predicted: a number, one of two classes by one score, or by a score each."""

    @abstractmethod
    def scores(self, X: Floats) -> Floats:
        """Scores [rows, outputs] of X [rows, features]."""

    @abstractmethod
    def arrays(self) -> dict[str, Floats]:
        """Everything that was learned, by the names that files give it."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What is public about it beside names, ready for JSON."""

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
        scores = self.scores(matrix)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_proba(self, X: Floats) -> Floats:
        """Probabilities [rows, classes]. Raises InputError for a model of numbers."""
        if self.target == "number":
            what = "linear regression" if self.kind == "linear_regression" else "model of numbers"
            raise InputError(f"A {what} has no probabilities.", hint="Use predict.")
        scores = self.decision_function(X)
        if self.target == "binary":
            positive = np.exp(-np.logaddexp(0.0, -scores))
            return np.stack([1.0 - positive, positive], axis=1)
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))

    def predict(self, X: Floats) -> NDArray[Any]:
        """Numbers [rows] for a model of numbers, otherwise classes [rows]."""
        scores = self.decision_function(X)
        if self.target == "number":
            return scores
        chosen = scores > 0 if scores.ndim == 1 else scores.argmax(axis=1)
        found: NDArray[Any] = self.class_values[chosen.astype(np.int64)]
        return found

    def read(self, path: str | Path, schema: str | Path) -> tuple[Floats, NDArray[Any] | None]:
        """(X, labels) of a file that `schema` describes, X in the order of this model's columns.

        Labels are None without a label column. Raises DataError, or InputError naming a column of
        the model that the file lacks, or a label of other classes.
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
        if self.label in table and info.label is not None:
            told = info.label.classes
            if bool(told) != bool(self.classes) or not set(told) <= set(self.classes):
                raise InputError(
                    f"The label {self.label!r} of {schema} is not what the model predicts:"
                    f" {', '.join(self.classes) or 'numbers'}.",
                    hint="Describe the file by the schema that was used for training.",
                    file=str(schema),
                    column=self.label,
                )
        return columns, self._labels(table.get(self.label))

    def _labels(self, labels: NDArray[Any] | None) -> NDArray[Any] | None:
        if labels is None or self.target == "number":
            return labels
        places = {text: index for index, text in enumerate(self.classes)}
        return np.asarray(self.class_values[[places[str(text)] for text in labels]])


def shaped(
    values: Mapping[str, Floats],
    name: str,
    shape: tuple[int, ...],
    default: Floats | None = None,
) -> Floats:
    """An output of a job. Raises ProtocolError if it is missing or of another shape."""
    found = values.get(name, default)
    if found is None or found.shape != shape:
        what = "is missing" if found is None else f"has the shape {found.shape}, not {shape}"
        raise ProtocolError(
            f"The model's {name} {what}.",
            hint="Check that parties and client run the same version of Masque.",
        )
    return found
