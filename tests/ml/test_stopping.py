"""Early stopping: at the same epoch as in float64, with one opened bit an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from masque.ml.stopping import bit_name
from masque.ml.task import EarlyStop, StopMetric, Task

from . import examples, reference


def stopping(name: str, metric: StopMetric, min_delta: float, **changes: Any) -> Task:
    """A task that stops early, with a tenth of the rows to validate on."""
    count = len(examples.dataset(name))
    fields: dict[str, Any] = {
        "early_stop": EarlyStop(metric, 2, min_delta),
        "validation_rows": count // 10,
        "learning_rates": (0.1,) * 14,
    }
    return examples.task(name, **(fields | changes))


CASES: list[tuple[str, StopMetric, float, dict[str, Any]]] = [
    ("diabetes", "squared_error", 1e-3, {"standardize": True, "momentum": 0.5}),
    ("breast_cancer", "log_loss", 2e-2, {"standardize": True, "momentum": 0.9}),
    ("breast_cancer", "log_loss", 1e-2, {"batch_size": 8, "batches_per_round": 20}),
    ("wine", "log_loss", 5e-2, {"standardize": True}),
]


@pytest.mark.parametrize(("name", "metric", "min_delta", "changes"), CASES)
def test_it_stops_at_the_epoch_that_float64_does(
    name: str, metric: StopMetric, min_delta: float, changes: dict[str, Any]
) -> None:
    task = stopping(name, metric, min_delta, **changes)
    table = examples.dataset(name)
    result, twin = examples.plainly(task, table), reference.fit(task, table)
    assert twin.epochs < len(task.learning_rates), "the case should stop early"
    bits = [bool(result.opened[bit_name(epoch)][0]) for epoch in range(twin.epochs)]
    assert bits == [False] * (twin.epochs - 1) + [True]
    assert bit_name(twin.epochs) not in result.opened
    assert np.abs(result.weights() - twin.weights).max() < 1e-3


def test_parties_stop_drain_what_was_dealt_and_still_evaluate() -> None:
    task = stopping("breast_cancer", "log_loss", 0.1, standardize=True, metrics=("accuracy",))
    table = examples.dataset("breast_cancer")
    twin = reference.fit(task, table)
    result, run = examples.together(task, table)
    assert twin.epochs < len(task.learning_rates)
    assert all(party.stopped for party in run.parties)
    assert not any(part for stock in run.stocks for part in stock.parts.values()), (
        "all material is taken"
    )
    assert set(result.opened) == {bit_name(epoch) for epoch in range(twin.epochs)}
    assert np.abs(result.weights() - twin.weights).max() < 1e-3
    z, y = reference.held_out(task, table, twin)
    assert result.metric("accuracy")[0] == pytest.approx(np.mean((z > 0) == y), abs=1e-6)


def test_every_bit_is_declared() -> None:
    task = stopping("wine", "log_loss", 0.0)
    declared = examples.plainly(task, examples.dataset("wine")).program.openings
    assert [(o.name, o.bits) for o in declared] == [
        (bit_name(epoch), 1) for epoch in range(len(task.learning_rates))
    ]


def test_without_improvement_at_all_it_stops_after_patience() -> None:
    task = stopping("wine", "log_loss", 50.0)
    result = examples.plainly(task, examples.dataset("wine"))
    assert sorted(result.opened) == sorted(bit_name(epoch) for epoch in range(3))
