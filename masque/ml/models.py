"""Generalised linear models: scores, predictions, residuals, losses; only on Secret.

X [rows, columns] is the design matrix, w [columns, classes] the weights, y [rows, classes] the
labels (0/1, one column a class; for linear regression a number).
"""

from __future__ import annotations

from masque.ml.task import Kind
from masque.mpc.functions import less, log, sigmoid, softmax, softplus
from masque.mpc.secret import Secret


def scores(X: Secret, w: Secret) -> Secret:  # noqa: N803
    """X w."""
    return X @ w


def error(kind: Kind, z: Secret, y: Secret, scale: int) -> Secret:
    """Prediction minus label: the gradient of the loss by the scores z, at most at `scale`."""
    if kind == "linear":
        return (z - y).at(scale)
    if kind == "logistic":
        prediction = sigmoid(z, scale=max(30, min(36, scale)))
    else:
        prediction = softmax(z)
    difference = prediction - y
    return difference.at(scale) if difference.scale > scale else difference


def loss(kind: Kind, metric: str, z: Secret, y: Secret) -> Secret:
    """Loss of every row: [rows, 1] or [rows].

    squared_error: (z - y)^2. log_loss: log(1 + e^z) - y z, or -log of the label's probability.
    """
    if metric == "squared_error":
        difference = (z - y).at(16)
        return (difference * difference).sum(axis=1)
    if kind == "logistic":
        z = z.at(16)
        return (softplus(z).at(16) - (y * z).at(16)).sum(axis=1)
    chosen = (softmax(z).at(24) * y).sum(axis=1).at(24)
    return -log(chosen, minimum=2.0**-20)


def positive(z: Secret) -> Secret:
    """[z >= 0] as 0 or 1: the predicted class of a binary model."""
    return (~less(z)).value()
