"""The same algorithms in float64 numpy, as a textbook has them: what training is held against.

No limits, no scales, no rounding. The rows of every mini-batch are those of `masque.ml.rows`, which
are public; everything else is written anew here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from masque.ml import rows
from masque.ml.task import Task

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """A model: weights of the design matrix, the moments of its features, epochs it took."""

    weights: Reals
    mean: Reals
    deviation: Reals
    epochs: int


def fit(task: Task, table: Reals) -> Fitted:
    """Train on encoded rows [rows, features + classes], labels last."""
    X, y = table[:, : task.features], table[:, task.features :]
    mean, deviation = np.zeros(task.features), np.ones(task.features)
    held_out, validation, _ = rows.split(task)
    if task.standardize:
        measured = np.delete(X, held_out, axis=0)
        mean, deviation = measured.mean(axis=0), measured.std(axis=0)
    design = design_matrix(task, X, mean, deviation)
    w, velocity = np.zeros(task.shape), np.zeros(task.shape)
    best, since = np.inf, 0
    for epoch, rate in enumerate(task.learning_rates):
        for batch in rows.batches(task, epoch):
            velocity = task.momentum * velocity - rate * gradient(task, w, design[batch], y[batch])
            w = w + velocity
        if task.early_stop:
            value = loss(task, w, design[validation], y[validation])
            improved = value < best - task.early_stop.min_delta
            best, since = (value, 0) if improved else (best, since + 1)
            if since >= task.early_stop.patience:
                break
    return Fitted(w, mean, deviation, epoch + 1)


def design_matrix(task: Task, X: Reals, mean: Reals, deviation: Reals) -> Reals:
    """Scaled features, and a column of ones for the intercept."""
    scaled = (X - mean) / deviation
    return np.hstack([scaled, np.ones((len(X), 1))]) if task.intercept else scaled


def predictions(task: Task, z: Reals) -> Reals:
    """Numbers or probabilities from scores [rows, classes]."""
    if task.kind == "linear":
        return z
    if task.kind == "logistic":
        return np.asarray(1 / (1 + np.exp(-z)))
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def gradient(task: Task, w: Reals, X: Reals, y: Reals) -> Reals:
    """Of half the mean squared error or the mean log-loss, and l2 / 2 |w|^2 less the intercept."""
    shrunk = w.copy()
    if task.intercept:
        shrunk[-1] = 0
    return np.asarray(X.T @ (predictions(task, X @ w) - y) / len(X) + task.l2 * shrunk)


def loss(task: Task, w: Reals, X: Reals, y: Reals) -> float:
    """Mean squared error, or mean log-loss."""
    p = predictions(task, X @ w)
    if task.kind == "linear":
        return float(np.mean((p - y) ** 2))
    if task.kind == "logistic":
        return float(-np.mean(np.log(np.where(y > 0.5, p, 1 - p))))
    return float(-np.mean(np.log((p * y).sum(axis=1))))


def held_out(task: Task, table: Reals, model: Fitted) -> tuple[Reals, Reals]:
    """Scores and labels of the held-out rows, [rows, classes] each."""
    chosen = table[rows.split(task)[0]]
    design = design_matrix(task, chosen[:, : task.features], model.mean, model.deviation)
    return design @ model.weights, chosen[:, task.features :]
