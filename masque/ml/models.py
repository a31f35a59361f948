"""Generalised linear models: predictions, residuals, losses; only on Secret.

z [rows, classes] are the scores X w, y [rows, classes] the labels: one column of 0 or 1, or one a
class; for linear regression one column of numbers within [-1, 1].
"""

from __future__ import annotations

from math import log as real_log

from masque.ml.bounds import ERROR
from masque.ml.task import Kind
from masque.mpc.functions import argmax_one_hot, clip, exp, less, log, sigmoid, softmax, softplus
from masque.mpc.secret import Secret

LOSS_SCALE = 16
FURTHEST = 64.0
"""A prediction of a number counts as no further out than this in a squared error."""


def residual(kind: Kind, z: Secret, y: Secret, scale: int, *, limited: bool = False) -> Secret:
    """Prediction minus label, at `scale` at most: the gradient of the loss by the scores.

    `limited`: that of a number to +-1, which makes Huber's loss of the squared error.
    """
    if kind == "linear":
        difference = (z - y).at(min(scale, z.scale))
        return clip(difference, -1.0, 1.0) if limited else difference
    prediction = sigmoid(z, scale=max(30, min(36, scale))) if kind == "logistic" else softmax(z)
    difference = prediction - y
    return difference.at(min(scale, difference.scale)).bounded(ERROR)


def exact(y: Secret) -> Secret:
    """Labels of classes as whole numbers: 0 or 1 with no fraction bits. Three openings."""
    return (~less(y, 0.5, resolution=10)).value()


def loss(kind: Kind, z: Secret, y: Secret) -> Secret:
    """Loss of every row, [rows], at 16 fraction bits; see `loss_bound`. `exact` labels."""
    if kind == "linear":
        difference = bounded_residual(z, y)
        return (difference * difference).at(LOSS_SCALE).sum(axis=1)
    z = z.at(min(LOSS_SCALE, z.scale))
    if kind == "logistic":
        return (softplus(z).at(LOSS_SCALE) - y * z).sum(axis=1)
    return _log_sum_exp(z) - (y * z).sum(axis=1)


def loss_bound(kind: Kind, score: float, classes: int) -> float:
    """The largest loss of a row whose scores are within +-`score`."""
    if kind == "linear":
        return (FURTHEST + 1.01) ** 2
    return 2 * score + real_log(max(2, classes)) + 0.01


def bounded_residual(z: Secret, y: Secret) -> Secret:
    """z - y, with z limited to +-64, at 16 fraction bits: squares of it are sure to fit."""
    z = z.at(min(LOSS_SCALE, z.scale))
    return (clip(z, -FURTHEST, FURTHEST) - y).at(LOSS_SCALE)


def _log_sum_exp(z: Secret) -> Secret:
    """log(sum exp(z_j)) of every row, [rows], the largest score taken out first."""
    largest = argmax_one_hot(z).times(z).sum(axis=1, keepdims=True).bounded(z.bound)
    total = exp(z - largest).at(LOSS_SCALE).sum(axis=1)  # between 1 and the number of classes
    return log(total, minimum=0.5).at(LOSS_SCALE) + largest.reshape(z.shape[0])


def positive(z: Secret) -> Secret:
    """[z > 0] as 0 or 1: the predicted class of a binary model."""
    return less(-z).value()
