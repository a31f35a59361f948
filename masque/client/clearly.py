"""The same training by scikit-learn on the pooled plaintext: what the demo compares with.

Only a demo can do this: it made up the hospitals, and has all their files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masque.client.predictor import Floats, Predictor
from masque.data.bundled import Files
from masque.jobs.bound import BoundJob
from masque.jobs.compile import task_of
from masque.ml import rows

Labels = NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """How well rows are predicted: accuracy and AUC of classes, R2 of numbers."""

    accuracy: float | None = None
    auc: float | None = None
    r2: float | None = None

    def named(self) -> dict[str, float]:
        """Those there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def scores(kind: str, y: Labels, predicted: Labels, decision: Floats) -> Scores:
    """Accuracy (and, for two classes, AUC) or R2 of predictions for labels `y`."""
    from sklearn.metrics import r2_score, roc_auc_score

    if kind == "linear_regression":
        return Scores(r2=float(r2_score(y, predicted)))
    auc = float(roc_auc_score(y, decision)) if decision.ndim == 1 else None
    return Scores(accuracy=float((y == predicted).mean()), auc=auc)


def in_the_clear(
    bound: BoundJob, model: Predictor, files: Files, X: Floats, y: Labels
) -> tuple[Scores, Scores]:
    """Scores of scikit-learn trained on the rows the job trained on: of X and y, and of the rows
    that the job held out. `model` says which columns, and is not looked at otherwise.
    """
    parts = [model.read(path, s) for path, s in zip(files.hospitals, files.schemas, strict=True)]
    pooled = np.concatenate([x for x, _ in parts])
    labels = np.concatenate([found for _, found in parts if found is not None])
    task = task_of(bound)
    held, _, train = rows.split(task)
    estimator = _estimator(bound, len(train))
    estimator.fit(pooled[train], labels[train])

    def judge(features: Floats, truth: Labels) -> Scores:
        linear = model.kind == "linear_regression"
        decision = estimator.predict(features) if linear else estimator.decision_function(features)
        return scores(model.kind, truth, estimator.predict(features), decision)

    return judge(X, y), judge(pooled[held], labels[held])


def _estimator(bound: BoundJob, count: int) -> Any:
    """The estimator with the same penalty, solved to the end instead of for some epochs."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    model = bound.spec.model
    scaler = StandardScaler() if bound.spec.data.standardize else MinMaxScaler((-1, 1))
    if model.kind == "linear_regression":
        return make_pipeline(scaler, Ridge(alpha=max(model.l2, 1e-12) * count))
    strength = 1.0 / (max(model.l2, 1e-9) * count)
    return make_pipeline(scaler, LogisticRegression(C=strength, max_iter=5000))
