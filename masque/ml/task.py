"""What is to be learned, in the terms of this floor: sizes, bounds and choices, all public."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

from masque.ml.network import Network, Optimizer

Kind = Literal["linear", "logistic", "softmax"]
StopMetric = Literal["log_loss", "squared_error"]
ALL = ("all",)
"""In place of recipients: opened by every party to everybody."""


@dataclass(frozen=True, slots=True)
class Table:
    """A data set: `features` encoded columns, then `labels` label columns, of `rows` rows."""

    name: str
    rows: int
    features: int
    labels: int


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Stop after `patience` epochs without the loss falling by `min_delta` (a mean over rows)."""

    metric: StopMetric
    patience: int
    min_delta: float


@dataclass(frozen=True, slots=True)
class Privacy:
    """Differential privacy of the weights; no row of encoded features is longer than `row_norm`.

    `sensitivity`: how far one row may move the weights at most; None: as far as it does.
    """

    epsilon: float
    delta: float
    row_norm: float
    sensitivity: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One training job. Counts of rows are public, as is everything here.

    `tables`: stacked by rows if `stacked`, else joined by columns. `feature_bounds`: of every
    feature column, in the order of the tables: no encoded value is larger. `learning_rates`: one an
    epoch. `metrics_to`, `model_to`: who gets them; nobody: they stay with the parties as shares.
    `network`: what makes the scores, with its `optimizer`; None: they are linear in the features.
    `start`: parameters that a network starts from, in their order, a row each. With `privacy` the
    intercept is shrunk like any weight, residuals of a number are limited to +-1, and a row counts
    as much in a short batch as in a whole one.
    """

    name: str
    parties: int
    kind: Kind
    tables: tuple[Table, ...]
    stacked: bool
    feature_bounds: tuple[float, ...]
    training_rows: int
    validation_rows: int
    holdout_rows: int
    learning_rates: tuple[float, ...]
    batch_size: int
    seed: int = 0
    momentum: float = 0.0
    l2: float = 0.0
    weight_bound: float = 64.0
    standardize: bool = False
    intercept: bool = True
    batches_per_round: int | None = None
    early_stop: EarlyStop | None = None
    metrics: tuple[str, ...] = ()
    metrics_to: tuple[str, ...] = ()
    model_to: tuple[str, ...] = ()
    identifiers: bool = False
    network: Network | None = None
    optimizer: Optimizer | None = None
    gradient_clip: float | None = None
    start: Table | None = None
    privacy: Privacy | None = None

    @property
    def rows(self) -> int:
        """Rows of the tables together."""
        return sum(table.rows for table in self.tables) if self.stacked else self.tables[0].rows

    @property
    def measured_rows(self) -> int:
        """Rows that standardisation measures: all that are not held out."""
        return self.rows - self.holdout_rows

    @property
    def features(self) -> int:
        """Feature columns of the tables together."""
        if self.stacked:
            return self.tables[0].features
        return sum(table.features for table in self.tables)

    @property
    def units(self) -> tuple[int, ...]:
        """For every feature column the least e >= 0 such that no value is above 2^e."""
        return tuple(max(0, ceil(log2(bound))) for bound in self.feature_bounds)

    @property
    def classes(self) -> int:
        """Label columns, which are also the columns of the weights."""
        return max(table.labels for table in self.tables)

    @property
    def columns(self) -> int:
        """Columns of the design matrix: features, and a column of ones for the intercept."""
        return self.features + self.intercept

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weights: [columns, classes]."""
        return self.columns, self.classes
