"""A model as a fitted scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np

from masque.client.model import Model
from masque.client.predictor import Predictor
from masque.errors import InputError


def to_sklearn(model: Predictor) -> Any:
    """A fitted LinearRegression or LogisticRegression that predicts what `model` predicts.

    Raises InputError for a network, and when scikit-learn is not installed.
    """
    if not isinstance(model, Model):
        raise InputError(
            "scikit-learn has no estimator that predicts what this network predicts.",
            hint="Use the model itself: it has predict and predict_proba. Or write ONNX.",
        )
    try:
        from sklearn.linear_model import LinearRegression, LogisticRegression
    except ImportError:
        raise InputError(
            "scikit-learn is not installed.", hint="Install it: pip install 'masque[demo]'."
        ) from None
    if model.kind == "linear_regression":
        linear = LinearRegression()
        linear.coef_ = model.coefficients[:, 0].copy()
        linear.intercept_ = float(model.intercept[0])
        linear.n_features_in_ = len(model.features)
        return linear
    coefficients, intercept = model.coefficients.T.copy(), model.intercept.copy()
    if len(model.classes) == 2 and len(coefficients) == 2:  # it keeps one row for two classes
        coefficients, intercept = np.diff(coefficients, axis=0), np.diff(intercept)
    logistic = LogisticRegression()
    logistic.coef_, logistic.intercept_ = coefficients, intercept
    logistic.classes_ = model.class_values
    logistic.n_features_in_ = len(model.features)
    logistic.n_iter_ = np.zeros(1, dtype=np.int32)
    return logistic
