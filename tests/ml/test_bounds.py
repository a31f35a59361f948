"""Whatever the data, nothing leaves the ring; what cannot be done is refused by the job's field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.errors import RangeError, SpecError
from masque.ml.bounds import LEAST_SCALE, Bounds, bounds, room
from masque.ml.descent import VELOCITY, WEIGHTS, Descent
from masque.ml.preparation import DESIGN
from masque.ml.task import Kind, Table, Task
from masque.ml.training import build
from masque.mpc.plain import Plain
from masque.mpc.types import Ring

from . import examples
from .examples import Reals


class Watched(Plain):
    """The plain twin, which checks registers against the bounds that were promised for them."""

    def __init__(self, task: Task, limits: Bounds, clear: dict[str, Ring]) -> None:
        super().__init__(build(task), lambda name, rows: clear[name][rows])
        self.task, self.limits = task, limits

    def largest(self, register: str, scale: int, rows: Any = ...) -> float:
        """Of a register."""
        return float(np.abs(self.registers[register][rows].view(np.int64)).max()) / 2.0**scale

    def run_watched(self) -> float:
        """Run everything; returns the largest weight there was."""
        found = 0.0
        for training_round in self.program.rounds:
            for call in training_round.calls():
                self.run(call)
                weight = self.largest(WEIGHTS, self.limits.weight_scale)
                assert weight <= self.limits.weight
                found = max(found, weight)
                if self.task.momentum:
                    assert self.largest(VELOCITY, self.limits.weight_scale) <= self.limits.step
        return found


def refusal(task: Task) -> RangeError | None:
    """Why there is no program of a task, if there is none."""
    try:
        build(task)
    except RangeError as error:
        return error
    return None


def extreme(seed: int, count: int, features: int, kind: Kind, bound: float) -> Reals:
    """Rows at the ends of their ranges, labels that drive weights outwards."""
    draw = np.random.default_rng(seed)
    x = draw.choice([-bound, bound, bound, 0.0], (count, features))
    if kind == "linear":
        return np.hstack([x, np.sign(x[:, :1]) + 0.0])
    y = (x[:, :1] > 0).astype(np.float64)
    return np.hstack([x, np.hstack([1 - y, y]) if kind == "softmax" else y])


@settings(deadline=None, max_examples=25)
@given(
    kind=st.sampled_from(["linear", "logistic", "softmax"]),
    count=st.integers(5, 40),
    features=st.integers(1, 4),
    batch=st.integers(1, 50),
    rate=st.sampled_from([1e-4, 0.1, 3.0, 100.0]),
    momentum=st.sampled_from([0.0, 0.9, 0.99]),
    l2=st.sampled_from([0.0, 0.1, 100.0]),
    standardize=st.booleans(),
    bound=st.sampled_from([1.0, 50.0]),
    weight_bound=st.sampled_from([0.125, 64.0]),
)
def test_weights_and_velocities_stay_within_their_bounds(
    kind: Kind, count: int, features: int, bound: float, **options: Any
) -> None:
    table = extreme(count * features, count, features, kind, bound)
    task = examples.task_on(
        table,
        kind,
        2 if kind == "softmax" else 1,
        feature_bounds=(bound,) * features,
        learning_rates=(options.pop("rate"),) * 3,
        batch_size=options.pop("batch"),
        **options,
    )
    refused = refusal(task)
    if refused is not None:
        assert str(refused.where["field"]) in refused.hint
        return
    limits, program = bounds(task), build(task)
    assert limits.weight_scale >= LEAST_SCALE and limits.error_scale >= LEAST_SCALE
    watched = Watched(task, limits, examples.encoded(task, table))
    watched.run_watched()
    assert watched.largest(DESIGN, 16) <= limits.feature
    for name in ("weights", "intercept"):
        scale = program.outputs[name].scale
        final = np.abs(watched.output(name).view(np.int64)).max() / 2.0**scale
        assert final <= task.weight_bound + 2.0**-LEAST_SCALE


@pytest.mark.parametrize("kind", ["logistic", "linear", "softmax"])
def test_a_job_that_diverges_ends_at_the_bound_with_defined_metrics(kind: Kind) -> None:
    table = extreme(3, 60, 3, kind, 1.0)
    metrics = ("r2",) if kind == "linear" else ("accuracy", "log_loss")
    task = examples.task_on(
        table,
        kind,
        2 if kind == "softmax" else 1,
        learning_rates=(50.0,) * 8,
        momentum=0.9,
        metrics=metrics,
        batch_size=8,
    )
    limits = bounds(task)
    watched = Watched(task, limits, examples.encoded(task, table))
    assert watched.run_watched() > task.weight_bound, "this job should diverge"
    result = examples.plainly(task, table)
    assert np.abs(result.weights()).max() == pytest.approx(task.weight_bound)
    if kind == "linear":
        assert -1e7 < result.metric("r2")[0] < 0
    else:
        assert 0 <= result.metric("accuracy")[0] <= 1 + 1e-6
        assert 0 < result.metric("log_loss")[0] < 64 * 4 * 2


def test_a_job_that_does_not_diverge_is_rarely_limited() -> None:
    task = examples.task("breast_cancer", standardize=True, momentum=0.9, l2=1e-3)
    assert bounds(task).period > 5
    assert bounds(task).weight <= 2 * task.weight_bound


def lr(count: int, features: int, batch: int, **changes: Any) -> Task:
    """Logistic regression on so many rows."""
    fields: dict[str, Any] = {
        "name": "job",
        "parties": 2,
        "kind": "logistic",
        "tables": (Table("a", count, features, 1),),
        "stacked": True,
        "feature_bounds": (1.0,) * features,
        "training_rows": count,
        "validation_rows": 0,
        "holdout_rows": 0,
        "learning_rates": (0.1,),
        "momentum": 0.9,
        "batch_size": batch,
    }
    return Task(**fields | changes)


@pytest.mark.parametrize(
    ("task", "most"),
    [
        (lr(10_000, 100, 128), 6),
        (lr(10_000, 100, 128, parties=5, l2=0.01), 6),
        (lr(10_000, 100, 128, standardize=True), 7),
        (lr(569, 30, 32, standardize=True, l2=1e-3), 7),
        (lr(1_000_000, 30, 128, standardize=True), 8),
        (lr(1_000_000, 30, 1024), 8),
    ],
)
def test_a_step_of_logistic_regression_has_few_rounds(task: Task, most: int) -> None:
    calls = Descent(task, bounds(task)).calls(0, 0, 3)
    assert max(call.block.rounds for call in calls) <= most


# -- what cannot be done -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"momentum": 1 - 1e-9}, "training.optimizer.momentum"),
        ({"weight_bound": 65536.0, "momentum": 0.9999}, "model.weight_bound"),
        ({"feature_bounds": (2.0**20,) * 30}, "model.weight_bound"),
    ],
)
def test_a_range_error_names_the_field_to_change(changes: dict[str, Any], field: str) -> None:
    table = np.zeros((60_000, 31))
    with pytest.raises(RangeError) as caught:
        build(examples.task_on(table, "linear", 1, batch_size=32, **changes))
    assert caught.value.where["field"] == field
    assert field in str(caught.value)


def test_too_many_classes_are_refused_by_name() -> None:
    table = np.zeros((200, 1 + 65))
    with pytest.raises(SpecError, match="65 classes") as caught:
        build(examples.task_on(table, "softmax", 65))
    assert caught.value.where["field"] == "data.label"


def test_room_leaves_at_least_eight_bits() -> None:
    assert room(2.0**30, 16, 24, "a score") == 15
    assert room(1.0, 16, 24, "a score") == 24
    assert room(2.0**37.9, 16, 24, "a score") == LEAST_SCALE
    with pytest.raises(RangeError, match="a score of this job"):
        room(2.0**38, 16, 24, "a score")
