"""From bound jobs to programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from masque.data.table import LabelInfo
from masque.errors import RangeError, SpecError
from masque.jobs.bound import BoundJob
from masque.jobs.compile import compile_job, task_of
from masque.jobs.fit import SharedTable
from masque.jobs.spec import from_values

from . import examples

NUMBER = LabelInfo(name="malignant", kind="number")
CLASSES = LabelInfo(name="malignant", kind="classes", classes=("a", "b", "c"))


def bound(tables: list[SharedTable] | None = None, **changes: Any) -> BoundJob:
    """The job of the examples with changes to its fields."""
    return examples.bound(from_values(examples.values(**changes)), tables)


def hospitals(label: LabelInfo | None, **options: Any) -> list[SharedTable]:
    """Two tables of the same columns."""
    first = examples.table("hospital-a", 100, "age", "size", label=label, **options)
    return [first, examples.table("hospital-b", 150, "age", "size", label=label, **options)]


def test_the_task_says_what_the_job_does() -> None:
    task = task_of(bound(training__epochs=3))
    assert (task.kind, task.stacked, task.standardize) == ("logistic", True, True)
    assert [(t.name, t.rows, t.features, t.labels) for t in task.tables] == [
        ("hospital-a", 100, 2, 1),
        ("hospital-b", 150, 2, 1),
    ]
    assert (task.training_rows, task.validation_rows, task.holdout_rows) == (200, 0, 50)
    assert task.learning_rates == (0.1,) * 3
    assert (task.momentum, task.l2, task.batch_size, task.seed) == (0.9, 0.001, 32, 7)
    assert task.feature_bounds == (1.0, 1.0)
    assert task.model_to == task.metrics_to == ("analyst",)


def test_equal_jobs_give_equal_programs() -> None:
    job = bound(training__epochs=2)
    again = BoundJob.model_validate_json(job.canonical(), strict=False)
    assert compile_job(job).digest == compile_job(again).digest
    assert (
        compile_job(bound(training__epochs=2, training__seed=8)).digest != compile_job(job).digest
    )


def test_rounds_inputs_and_outputs() -> None:
    program = compile_job(bound(training__epochs=2))
    names = [training_round.name for training_round in program.rounds]
    assert names == [
        "prepare: sums",
        "prepare: spread",
        "prepare: standardize",
        "epoch 1",
        "epoch 2",
        "evaluate",
    ]
    assert {n: (i.rows, i.columns, i.scale) for n, i in program.inputs.items()} == {
        "hospital-a": (100, 3, 24),
        "hospital-b": (150, 3, 24),
    }
    assert {name: output.shape for name, output in program.outputs.items()} == {
        "weights": (2, 1),
        "intercept": (1,),
        "mean": (2,),
        "inverse_deviation": (2,),
        "metric:accuracy": (1,),
        "metric:auc": (1,),
    }
    assert all(output.to == ("analyst",) for output in program.outputs.values())
    assert program.openings == ()


@pytest.mark.parametrize(
    ("kind", "label", "columns"),
    [("linear_regression", NUMBER, 1), ("softmax_regression", CLASSES, 3)],
)
def test_kinds_of_models(kind: str, label: LabelInfo, columns: int) -> None:
    job = bound(hospitals(label), model__kind=kind, reveal=..., training__epochs=1)
    program = compile_job(job)
    assert program.outputs["weights"].shape == (2, columns)
    assert program.rounds[-1].name == "finish" or job.spec.reveal.metrics


def test_schedules_become_learning_rates() -> None:
    schedule = {"kind": "step", "every": 2, "factor": 0.5}
    task = task_of(bound(training__epochs=5, training__schedule=schedule))
    assert task.learning_rates == (0.1, 0.1, 0.05, 0.05, 0.025)


def test_what_becomes_of_the_model() -> None:
    opened = compile_job(bound(model_output={"open_to_all": True}, training__epochs=1))
    assert opened.outputs["weights"].to == ("all",)
    assert {o.name for o in opened.openings} == {
        "weights",
        "intercept",
        "mean",
        "inverse_deviation",
    }
    kept = compile_job(bound(model_output={"keep_shares": "mine"}, training__epochs=1))
    assert kept.outputs["weights"].to == ()
    assert kept.openings == ()


def test_early_stop_declares_a_bit_an_epoch() -> None:
    stop = {"metric": "log_loss", "patience": 2, "validation": 0.1}
    program = compile_job(bound(training__epochs=4, training__early_stop=stop))
    assert [o.name for o in program.openings] == [f"stop after epoch {k}" for k in range(1, 5)]
    assert [r.skippable for r in program.rounds] == [False] * 3 + [True] * 4 + [False]


def joined(*, identifiers: bool, label_first: bool) -> BoundJob:
    """Two tables joined by columns; one has the label."""
    labels = (examples.LABEL, None) if label_first else (None, examples.LABEL)
    tables = [
        examples.table("bank", 100, "income", label=labels[0], identifiers=identifiers),
        examples.table("shop", 100, "spent", "visits", label=labels[1], identifiers=identifiers),
    ]
    values = examples.values(data__columns=["bank", "shop"], training__epochs=1)
    del values["data"]["rows"]
    return examples.bound(from_values(values), tables)


@pytest.mark.parametrize("label_first", [True, False])
def test_tables_joined_by_columns(label_first: bool) -> None:
    task = task_of(joined(identifiers=False, label_first=label_first))
    assert (task.stacked, task.rows, task.features, task.classes) == (False, 100, 3, 1)
    assert [table.labels for table in task.tables] == [int(label_first), int(not label_first)]
    assert not task.identifiers


def test_identifiers_are_compared_first_where_there_are_any() -> None:
    program = compile_job(joined(identifiers=True, label_first=False))
    assert program.openings[0].name == "identifiers match"
    assert next(iter(program.rounds[0].calls())).block.name == "identifiers"
    assert program.inputs["bank:identifiers"].dataset == "bank"


def test_raw_ranges_reach_the_bounds() -> None:
    columns = (*examples.features("age"), *examples.features("size", bound=300.0))
    tables = [
        table.model_copy(update={"info": table.info.model_copy(update={"features": columns})})
        for table in hospitals(examples.LABEL)
    ]
    task = task_of(examples.bound(from_values(examples.values()), tables))
    assert task.feature_bounds == (1.0, 300.0)
    assert task.units == (0, 9)


def test_what_the_ring_cannot_hold_names_the_field() -> None:
    options = {"model__weight_bound": 65536.0, "training__optimizer__momentum": 0.99999}
    job = bound(
        hospitals(NUMBER),
        model__kind="linear_regression",
        reveal=...,
        training__epochs=1,
        **options,
    )
    with pytest.raises(RangeError, match=r"Lower model\.weight_bound"):
        compile_job(job)


def test_auc_of_a_large_holdout_names_the_field() -> None:
    tables = [examples.table("hospital-a", 30_000), examples.table("hospital-b", 30_000)]
    with pytest.raises(SpecError) as caught:
        compile_job(bound(tables, training__epochs=1))
    assert caught.value.where["field"] == "reveal.metrics"


def test_a_program_does_not_depend_on_who_compiles_it() -> None:
    programs = [compile_job(bound(training__epochs=1)) for _ in range(2)]
    calls = [[call for r in program.rounds for call in r.calls()] for program in programs]
    for one, other in zip(*calls, strict=True):
        assert one.block.digest == other.block.digest
        assert one.arguments.keys() == other.arguments.keys()
        assert all(np.array_equal(one.arguments[n], other.arguments[n]) for n in one.arguments)
