"""The real parties against the plain twin: results, traffic and openings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from masque.errors import Refused
from masque.ml.task import Table, Task
from masque.ml.training import build
from masque.mpc.types import Ring

from . import examples

AGREE = 5e-4
"""Parties against the plain twin: roundings of 2^-24 and of smooth functions, over a whole job."""


def breast_cancer(parties: int) -> Task:
    return examples.task(
        "breast_cancer",
        parties=parties,
        standardize=True,
        momentum=0.9,
        l2=1e-3,
        batch_size=100,
        learning_rates=(0.3, 0.1),
        metrics=("accuracy", "auc", "log_loss", "confusion"),
    )


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_parties_agree_with_the_plain_twin(parties: int) -> None:
    task, table = breast_cancer(parties), examples.dataset("breast_cancer")
    got, _ = examples.together(task, table)
    plain = examples.plainly(task, table)
    assert got.opened == {}
    for name, value in plain.outputs.items():
        assert np.abs(got.outputs[name] - value).max() < AGREE, name
    assert np.array_equal(got.metric("confusion"), plain.metric("confusion"))


@pytest.mark.parametrize(
    ("name", "parties", "metric"), [("diabetes", 3, "r2"), ("wine", 2, "log_loss")]
)
def test_other_models_agree_as_well(name: str, parties: int, metric: str) -> None:
    table = examples.dataset(name)
    task = examples.task(name, parties=parties, learning_rates=(0.1,) * 2, metrics=(metric,))
    got, _ = examples.together(task, table)
    plain = examples.plainly(task, table)
    for output, value in plain.outputs.items():
        assert np.abs(got.outputs[output] - value).max() < AGREE, output


def test_what_is_for_everybody_is_opened_and_declared_and_nothing_else() -> None:
    table = examples.dataset("diabetes")
    changes = {"standardize": True, "metrics": ("r2",), "learning_rates": (0.05,)}
    task = examples.task("diabetes", **changes, model_to=("all",), metrics_to=("all",))
    got, _ = examples.together(task, table)
    assert set(got.opened) == {opening.name for opening in got.program.openings}
    assert set(got.opened) == set(got.program.outputs)
    for name, value in got.outputs.items():
        assert np.array_equal(examples.real(got.program, name, got.opened[name]), value)
    bits = {opening.name: opening.bits for opening in got.program.openings}
    assert bits == {name: 64 * value.size for name, value in got.outputs.items()}


def test_only_metrics_for_everybody() -> None:
    table = examples.dataset("wine")
    task = examples.task(
        "wine", metrics=("accuracy",), metrics_to=("all",), learning_rates=(0.1,), model_to=()
    )
    got, _ = examples.together(task, table)
    assert set(got.opened) == {"metric:accuracy"}
    assert got.program.outputs["weights"].to == ()


# -- tables joined by columns ------------------------------------------------------------------


def joined(tables: tuple[Table, ...], **changes: object) -> Task:
    task = examples.task("breast_cancer", standardize=True, learning_rates=(0.1,), batch_size=128)
    return replace(task, tables=tables, stacked=False, **changes)  # type: ignore[arg-type]


def words(*texts: int) -> Ring:
    return np.array([texts], dtype=np.uint64)


@pytest.mark.parametrize(
    "tables",
    [
        (Table("a", 569, 10, 0), Table("b", 569, 20, 1)),
        (Table("a", 569, 10, 1), Table("b", 569, 20, 0)),
        (Table("sums", 569, 30, 0), Table("labels", 569, 0, 1)),
        (Table("a", 569, 5, 0), Table("b", 569, 5, 1), Table("c", 569, 20, 0)),
    ],
)
def test_columns_joined_train_what_rows_stacked_do(tables: tuple[Table, ...]) -> None:
    table = examples.dataset("breast_cancer")
    stacked = examples.task(
        "breast_cancer", standardize=True, learning_rates=(0.1,), batch_size=128
    )
    got = examples.plainly(joined(tables), table)
    assert np.abs(got.weights() - examples.plainly(stacked, table).weights()).max() < 1e-5


def test_joined_parties_with_matching_identifiers() -> None:
    table = examples.dataset("breast_cancer")
    task = joined((Table("a", 569, 0, 1), Table("b", 569, 30, 0)), identifiers=True)
    digests = {name: words(1, 2**63, 3, 4) for name in ("a:identifiers", "b:identifiers")}
    got, _ = examples.together(task, table, **digests)
    assert {name: int(value[0]) for name, value in got.opened.items()} == {"identifiers match": 1}


@pytest.mark.parametrize("other", [(1, 2, 3, 5), (1, 2**63 + 2, 3, 4), (0, 2, 3, 4)])
def test_other_identifiers_are_refused_before_anything_else_is_opened(
    other: tuple[int, ...],
) -> None:
    table = examples.dataset("breast_cancer")
    task = joined((Table("a", 569, 10, 1), Table("b", 569, 20, 0)), identifiers=True)
    program = build(task)
    first = next(iter(program.rounds[0].calls())).block
    assert first.name == "identifiers"
    digests = {"a:identifiers": words(1, 2, 3, 4), "b:identifiers": words(*other)}
    with pytest.raises(Refused, match="identifiers match") as caught:
        examples.together(task, table, **digests)
    assert caught.value.where["check"] == "identifiers match"
