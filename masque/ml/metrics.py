"""What is measured on held-out rows, under MPC: only the numbers themselves are ever opened.

z [rows, classes] are scores, y [rows, classes] labels. Accuracy, confusion counts, log-loss and R2
are sums over rows and so computed a chunk at a time; the AUC compares every pair of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from masque.errors import SpecError
from masque.ml import models
from masque.ml.bounds import DATA_SCALE, room
from masque.ml.task import Task
from masque.mpc.functions import argmax_one_hot, less, reciprocal
from masque.mpc.graph import Block
from masque.mpc.secret import Secret, concatenate
from masque.mpc.trace import Trace
from masque.mpc.types import Shape

METRIC_SCALE = 24
SCORE_SCALE = 16
AUC_ROWS = 4096  # all pairs are compared: 16 million comparisons at the most
AUC_BLOCK = 1 << 16  # pairs compared at once
LEAST_TOTAL = 2.0**-10  # total sum of squares below which R2 says nothing


@dataclass(frozen=True, slots=True)
class Sums:
    """The registers in which chunks of rows are summed: name, shape, scale and bound."""

    name: str
    shape: Shape
    scale: int
    bound: float


def registers(task: Task, score_bound: float) -> list[Sums]:
    """What has to be summed over the held-out rows for the metrics of a task."""
    rows, classes = float(task.holdout_rows), max(2, task.classes)
    found = []
    if {"accuracy", "confusion"} & set(task.metrics):
        found.append(Sums("confusion", (classes, classes), DATA_SCALE, rows))
    if "log_loss" in task.metrics:
        bound = rows * ((score_bound + 1) * 2 if task.kind == "logistic" else 16.0)
        found.append(Sums("log_loss", (1,), room(bound, 0, METRIC_SCALE), bound))
    if "r2" in task.metrics:
        bound = rows * (score_bound + 1.01) ** 2
        found.append(Sums("residual", (1,), room(bound, 0, METRIC_SCALE), bound))
        found.append(Sums("labels", (1,), DATA_SCALE, rows))
        found.append(Sums("squares", (1,), METRIC_SCALE, rows * 1.01))
    if "auc" in task.metrics:
        if task.holdout_rows > AUC_ROWS:
            raise SpecError(
                f"auc compares every pair of held-out rows, and {task.holdout_rows} are too many.",
                hint=f"Hold out at most {AUC_ROWS} rows, or reveal log_loss instead.",
                field="reveal.metrics",
            )
        scale = pair_scale(task)
        found.append(Sums("pairs", (1,), scale, rows * rows))
        found.append(Sums("positives", (1,), DATA_SCALE, rows))
    return found


def pair_scale(task: Task) -> int:
    """Fraction bits of counts of pairs."""
    return min(METRIC_SCALE, 58 - 2 * ceil(log2(max(2, task.holdout_rows))))


def score_block(task: Task, rows: int, bound: float, weight_scale: int, limit: float) -> Block:
    """Scores of held-out rows, masked, and their labels put aside."""
    trace = Trace(f"scores of {rows}", task.parties)
    x = trace.input("X", (rows, task.columns), 16, bound, masked=True)
    w = trace.input("w", (task.columns, task.classes), weight_scale, limit, masked=True)
    y = trace.input("y", (rows, task.classes), DATA_SCALE, 1.0)
    trace.output("scores", models.scores(x, w), SCORE_SCALE, masked=True)
    trace.output("labels", y, DATA_SCALE, masked=True)
    return trace.freeze()


def sums_block(task: Task, rows: int, score_bound: float) -> Block:
    """Add a chunk of rows to every sum but those of pairs."""
    trace = Trace(f"metrics of {rows}", task.parties)
    z = trace.input("z", (rows, task.classes), SCORE_SCALE, score_bound, masked=True)
    y = trace.input("y", (rows, task.classes), DATA_SCALE, 1.0, masked=True)
    for sums in registers(task, score_bound):
        if sums.name != "pairs":
            so_far = trace.input(sums.name, sums.shape, sums.scale, sums.bound)
            chunk = _chunk(task, sums, z, y)
            trace.output(sums.name, (so_far + chunk.at(sums.scale)).bounded(sums.bound), sums.scale)
    return trace.freeze()


def _chunk(task: Task, sums: Sums, z: Secret, y: Secret) -> Secret:
    match sums.name:
        case "confusion":
            return _confusion(task, z, y)
        case "log_loss":
            return models.loss(task.kind, "log_loss", z, y).sum().reshape(1)
        case "residual":
            return _square_sum(z - y, sums.bound)
        case "squares":
            return _square_sum(y, sums.bound)
    assert sums.name in ("labels", "positives")
    return y.sum().reshape(1)


def _square_sum(x: Secret, bound: float) -> Secret:
    scale = min(x.scale, (room(bound, 0, 40)) // 2)
    coarse = x.at(scale)
    return coarse.column_dot(coarse)


def _confusion(task: Task, z: Secret, y: Secret) -> Secret:
    """Counts [label, prediction], exact: the labels' scale is kept, bits have none."""
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
    z = trace.input("z", (rows, 1), SCORE_SCALE, score_bound, masked=True)
    y = trace.input("y", (rows, 1), DATA_SCALE, 1.0, masked=True)
    all_z = trace.input("all z", (every, 1), SCORE_SCALE, score_bound, masked=True)
    all_y = trace.input("all y", (every, 1), DATA_SCALE, 1.0, masked=True)
    so_far = trace.input("pairs", (1,), pair_scale(task), float(every) ** 2)
    smaller = less(z.broadcast(rows, every) - all_z.T.broadcast(rows, every))
    p = all_y.T.broadcast(rows, every)
    ahead = smaller.times(p).sum(axis=1, keepdims=True)
    behind = smaller.value().sum(axis=1, keepdims=True) - ahead
    scale = pair_scale(task) // 2
    ahead, behind, total = ahead.at(scale), behind.at(scale), all_y.sum().reshape(1).at(scale)
    q = 1 - y
    coarse_q, coarse_p = q.at(scale), y.at(scale)
    counted = coarse_q.column_dot(ahead) - coarse_p.column_dot(behind)
    counted = counted + coarse_q.sum().reshape(1) * total
    trace.output("pairs", (so_far + counted).bounded(float(every) ** 2), pair_scale(task))
    return trace.freeze()


def finish_block(task: Task, score_bound: float) -> Block:
    """The metrics from the sums."""
    trace = Trace("metrics", task.parties)
    sums = {
        s.name: trace.input(s.name, s.shape, s.scale, s.bound)
        for s in registers(task, score_bound)
    }
    for metric in task.metrics:
        trace.output(f"metric:{metric}", _metric(task, metric, sums), METRIC_SCALE)
    return trace.freeze()


def _metric(task: Task, metric: str, sums: dict[str, Secret]) -> Secret:
    rows = task.holdout_rows
    match metric:
        case "confusion":
            return sums["confusion"]
        case "accuracy":
            counts = sums["confusion"]
            correct = counts[0, 0]
            for k in range(1, counts.shape[0]):
                correct = correct + counts[k, k]
            return correct.reshape(1).bounded(float(rows)).scaled(1.0 / rows, METRIC_SCALE)
        case "log_loss":
            return sums["log_loss"].scaled(1.0 / rows, METRIC_SCALE)
        case "auc":
            return _auc(sums["pairs"], sums["positives"], rows)
        case "r2":
            return _r2(sums["residual"], sums["labels"], sums["squares"], rows)
    raise AssertionError(f"no metric {metric!r}")


def _auc(pairs: Secret, positives: Secret, rows: int) -> Secret:
    scale = min(16, (58 - 2 * ceil(log2(rows + 1))) // 2)
    p = positives.at(scale)
    total = (p * (rows - p)).bounded(rows * rows / 4 + 1.0)
    inverse = reciprocal(total, minimum=0.5)
    share = pairs.halved(1).at(room(float(rows) ** 2, 26, 16)) * inverse.at(26)
    return share.bounded(1.01)


def _r2(residual: Secret, labels: Secret, squares: Secret, rows: int) -> Secret:
    """1 - residual sum of squares / total sum of squares."""
    mean = labels.scaled(1.0 / rows, 20)
    square = (mean * mean).at(METRIC_SCALE).bounded(1.01)
    total = (squares - square.times(float(rows)).at(METRIC_SCALE)).bounded(rows * 1.02)
    inverse = reciprocal(total, minimum=LEAST_TOTAL).at(20)
    ratio = residual.at(room(residual.bound * 2.0**10, 20, 20)) * inverse
    return 1 - ratio
