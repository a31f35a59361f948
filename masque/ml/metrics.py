"""What is measured on held-out rows, under MPC: only the numbers themselves are ever opened.

z [rows, classes] are scores, y [rows, classes] labels. Accuracy, confusion counts, log-loss and R2
are totals over rows, added up a chunk at a time; the AUC compares every pair of rows. Where
scikit-learn has no value, ours is a defined one: the AUC of a single class is 0, and R2 of labels
with a variance below 2^-10 is as if they had that variance.

Labels of classes are turned into exact bits first, so that all counts are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from masque.errors import SpecError
from masque.ml import models
from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, room
from masque.ml.scores import Scores
from masque.ml.task import Task
from masque.mpc.functions import argmax_one_hot, less, reciprocal
from masque.mpc.graph import Block
from masque.mpc.secret import Secret, concatenate
from masque.mpc.trace import Trace
from masque.mpc.types import Shape

METRIC_SCALE = 24
SCORE_SCALE = 16
AUC_ROWS = 4096  # all pairs are compared: 16 million comparisons at the most
AUC_PAIRS = 1 << 16  # compared at once
LEAST_LABEL_VARIANCE = 2.0**-10
FINE = 32  # fraction bits of counts before they are divided


@dataclass(frozen=True, slots=True)
class Total:
    """What is added up over the held-out rows: name, shape, scale and bound."""

    name: str
    shape: Shape
    scale: int
    bound: float

    def input(self, trace: Trace) -> Secret:
        """The total so far."""
        return trace.input(self.name, self.shape, self.scale, self.bound)


def totals(task: Task, score_bound: float) -> dict[str, Total]:
    """What has to be added up for the metrics of a task. Errors: SpecError for too many pairs."""
    rows, classes = float(task.holdout_rows), max(2, task.classes)
    found = []
    if {"accuracy", "confusion"} & set(task.metrics):
        found.append(Total("confusion", (classes, classes), 0, rows))
    if "log_loss" in task.metrics:
        bound = rows * models.loss_bound(task.kind, score_bound, classes)
        scale = room(bound, 0, METRIC_SCALE, "a sum of losses")
        found.append(Total("log_loss", (1,), scale, bound))
    if "r2" in task.metrics:
        bound = rows * models.loss_bound(task.kind, score_bound, classes)
        scale = room(bound, 0, METRIC_SCALE, "a sum of squares")
        found.append(Total("residuals", (1,), scale, bound))
        found.append(Total("labels", (1,), DATA_SCALE, rows))
        found.append(Total("squares", (1,), 2 * SCORE_SCALE, rows * 1.001))
    if "auc" in task.metrics:
        if task.holdout_rows > AUC_ROWS:
            raise SpecError(
                f"auc compares every pair of held-out rows, and {task.holdout_rows} are too many.",
                hint=f"Hold out at most {AUC_ROWS} rows, or reveal log_loss instead.",
                field="reveal.metrics",
            )
        found.append(Total("pairs", (1,), 0, rows * rows))
        found.append(Total("positives", (1,), 0, rows))
    return {total.name: total for total in found}


def label_scale(task: Task) -> int:
    """Fraction bits of held-out labels."""
    return DATA_SCALE if task.kind == "linear" else 0


def score_block(task: Task, rows: int, features: float, scores: Scores) -> Block:
    """Scores of held-out rows, and their labels, both masked. Two to four rounds if linear.

    `features`: the rows' bound.
    """
    trace = Trace(f"scores of {rows}", task.parties)
    X = trace.input("X", (rows, task.columns), FEATURE_SCALE, features, masked=True)
    y = trace.input("y", (rows, task.classes), DATA_SCALE, 1.0)
    trace.output("scores", scores.of(trace, X), SCORE_SCALE, masked=True)
    y = y if task.kind == "linear" else models.exact(y)
    trace.output("labels", y, label_scale(task), masked=True)
    return trace.freeze()


def _scored(trace: Trace, task: Task, rows: int, bound: float, all_: str = "") -> list[Secret]:
    """Scores and labels of held-out rows."""
    shape = (rows, task.classes)
    return [
        trace.input(all_ + "z", shape, SCORE_SCALE, bound, masked=True),
        trace.input(all_ + "y", shape, label_scale(task), 1.0, masked=True),
    ]


def totals_block(task: Task, rows: int, score_bound: float) -> Block:
    """Add a chunk of rows to every total but that of pairs."""
    trace = Trace(f"metrics of {rows}", task.parties)
    z, y = _scored(trace, task, rows, score_bound)
    for total in totals(task, score_bound).values():
        if total.name != "pairs":
            summed = total.input(trace) + _chunk(task, total.name, z, y).at(total.scale)
            trace.output(total.name, summed.bounded(total.bound), total.scale)
    return trace.freeze()


def _chunk(task: Task, name: str, z: Secret, y: Secret) -> Secret:
    match name:
        case "confusion":
            return _confusion(task, z, y)
        case "log_loss":
            return models.loss(task.kind, z, y).sum().reshape(1)
        case "residuals":
            residual = models.bounded_residual(z, y)
            return residual.column_dot(residual)
        case "squares":
            coarse = y.at(SCORE_SCALE)
            return coarse.column_dot(coarse)
    assert name in ("labels", "positives")
    return y.sum().reshape(1)


def _confusion(task: Task, z: Secret, y: Secret) -> Secret:
    """Counts [label, prediction], exact."""
    if task.kind == "logistic":
        predicted = models.positive(z)
        predicted = concatenate([1 - predicted, predicted], axis=1)
        y = concatenate([1 - y, y], axis=1)
    else:
        predicted = argmax_one_hot(z).value()
    return y.T @ predicted


def pairs_block(task: Task, rows: int, score_bound: float) -> Block:
    """For `rows` of the held-out rows against all: twice the pairs in order, counting ties once.

    With L_ij = [z_i < z_j], p_i = y_i and q_i = 1 - y_i: the pairs (i, j) that are in order are
    q_i p_j L_ij, those out of order p_i q_j L_ij, and the rest of the q_i p_j are ties, so that
    2 (in order + ties / 2) = sum q_i p_j + sum q_i p_j L_ij - sum p_i q_j L_ij.
    """
    trace = Trace(f"pairs of {rows}", task.parties)
    every = task.holdout_rows
    z, y = _scored(trace, task, rows, score_bound)
    all_z, all_y = _scored(trace, task, every, score_bound, "all ")
    smaller = less(z.broadcast(rows, every) - all_z.T.broadcast(rows, every))
    ahead = smaller.times(all_y.T.broadcast(rows, every)).sum(axis=1, keepdims=True)
    behind = smaller.value().sum(axis=1, keepdims=True) - ahead
    p, q, total = y, 1 - y, all_y.sum().reshape(1)
    counted = q.column_dot(ahead) - p.column_dot(behind) + q.sum().reshape(1) * total
    so_far = totals(task, score_bound)["pairs"].input(trace)
    trace.output("pairs", (so_far + counted).bounded(so_far.bound), so_far.scale)
    return trace.freeze()


def of(task: Task, metric: str, total: dict[str, Secret]) -> Secret:
    """A metric from the totals."""
    rows = task.holdout_rows
    match metric:
        case "confusion":
            return total["confusion"]
        case "accuracy":
            counts = total["confusion"]
            diagonal = [counts[k, k] for k in range(counts.shape[0])]
            correct = sum(diagonal[1:], diagonal[0]).bounded(float(rows))
            return correct.reshape(1).at(FINE).scaled(1.0 / rows, METRIC_SCALE)
        case "log_loss":
            losses = total["log_loss"]
            return losses.scaled(1.0 / rows, losses.scale)
        case "auc":
            return _auc(total["pairs"], total["positives"], rows)
        case "r2":
            return _r2(total["residuals"], total["labels"], total["squares"], rows)
    raise AssertionError(f"no metric {metric!r}")


def _auc(pairs: Secret, positives: Secret, rows: int) -> Secret:
    """Pairs in order over pairs of a positive and a negative, both as shares of all rows^2 / 2.

    These are p (1 - p) for a share p of positives, so at least about 1 / rows, or 0.
    """
    unlike = (positives * (rows - positives)).bounded(rows * rows / 4)
    unlike = unlike.at(FINE).scaled(1.0 / rows**2, 30)
    inverse = reciprocal(unlike, minimum=0.5 / rows).at(SCORE_SCALE)
    ordered = pairs.at(FINE).halved(1).scaled(1.0 / rows**2, 30).bounded(0.51)
    return (ordered * inverse).bounded(1.01)


def _r2(residuals: Secret, labels: Secret, squares: Secret, rows: int) -> Secret:
    """1 - mean squared residual / variance of the labels."""
    mean = labels.scaled(1.0 / rows, 24)
    variance = (squares.scaled(1.0 / rows, 30) - (mean * mean).at(30)).bounded(1.001)
    inverse = reciprocal(variance, minimum=LEAST_LABEL_VARIANCE).at(SCORE_SCALE)
    largest = residuals.bound / rows
    scale = room(largest / LEAST_LABEL_VARIANCE * 1.01, SCORE_SCALE, METRIC_SCALE, "a ratio")
    return 1 - residuals.scaled(1.0 / rows, scale) * inverse
