"""`privacy` in job files and policies: what is refused, and what follows for the program."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from masque.data.table import FeatureColumn, describe
from masque.errors import Refused, SpecError
from masque.jobs import policy
from masque.jobs.bound import BoundJob
from masque.jobs.compile import compile_job, task_of
from masque.jobs.fit import SharedTable
from masque.jobs.limits import Case
from masque.jobs.spec import from_values, load
from masque.ml.privacy import rounded_up
from tests.jobs.examples import LABEL, bound, features, table, values

PRIVATE: dict[str, Any] = {
    "privacy": {"epsilon": 1.0, "delta": 1e-6},
    "data__standardize": False,
    "data__holdout": 0.0,
    "reveal": ...,
    "training__optimizer": {"kind": "sgd", "learning_rate": 0.1},
    "training__epochs": 3,
    "model__l2": 0.05,
}


def private(tables: list[SharedTable] | None = None, **changes: Any) -> BoundJob:
    return bound(from_values(values(**copy.deepcopy(PRIVATE | changes))), tables)


def test_a_private_job_says_what_it_releases() -> None:
    release = compile_job(private()).release
    assert release
    assert (release.epsilon, release.delta, release.to) == (1.0, 1e-6, ("analyst",))
    assert release.values == 3
    assert str(release).startswith("release of the model with epsilon 1, delta 1e-06, sensitivity")
    assert compile_job(bound()).release is None


def test_more_privacy_is_more_noise_and_another_program() -> None:
    one, other = compile_job(private()), compile_job(private(privacy__epsilon=0.5))
    assert one.release and other.release
    assert other.release.sensitivity == one.release.sensitivity
    assert other.release.sigma > 1.8 * one.release.sigma
    assert one.digest != other.digest


def test_a_job_that_one_row_moves_further_than_it_says_is_refused_with_both_numbers() -> None:
    found = compile_job(private()).release
    assert found
    shown = float(rounded_up(found.sensitivity))
    assert found.sensitivity <= shown < 1.001 * found.sensitivity
    for most in (found.sensitivity, shown, 1e9):
        allowed = compile_job(private(privacy__sensitivity=most))
        assert allowed.release == found, "noise follows from what is, not from what may be"
    less = math.nextafter(found.sensitivity, 0.0)
    more: dict[str, Any] = {"training__epochs": 4}
    cases: list[tuple[float, dict[str, Any]]] = [(less, {}), (1e-9, {}), (shown, more)]
    for most, changes in cases:
        with pytest.raises(SpecError) as refused:
            compile_job(private(privacy__sensitivity=most, **changes))
        assert refused.value.where["field"] == "privacy.sensitivity"
        assert f"and the job says that it moves them by {most} at most" in refused.value.message
        told = str(refused.value.hint).split("Raise privacy.sensitivity to ")[1].split(",")[0]
        assert f"One row may move the weights by {told}," in refused.value.message
        assert compile_job(private(privacy__sensitivity=float(told), **changes)).release


@pytest.mark.parametrize("value", [1e-12, 0.00012345, 0.052, 1.00001, 9.9999, 123456.0])
def test_a_sensitivity_is_shown_as_no_less_than_it_is(value: float) -> None:
    shown = float(rounded_up(value))
    assert value <= shown <= value * 1.001
    assert float(rounded_up(shown)) == shown


ANY = {"reveal": {"metrics": ["accuracy"], "to": ["analyst"]}, "data__holdout": 0.2}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("data.standardize", {"data__standardize": True}),
        ("reveal.metrics", ANY),
        ("training.early_stop", {"training__early_stop": {"metric": "log_loss"}}),
        ("training.optimizer.momentum", {"training__optimizer__momentum": 0.9}),
        (
            "model.kind",
            {"model": {"kind": "sequential", "layers": [{"kind": "dense", "units": 1}]}},
        ),
        ("privacy.epsilon", {"privacy__epsilon": 0}),
        ("privacy.delta", {"privacy__delta": 0.5}),
        ("privacy.delta", {"privacy": {"epsilon": 1.0}}),
        ("privacy.sensitivity", {"privacy__sensitivity": 0}),
        ("privacy.sensitivity", {"privacy__sensitivity": float("inf")}),
    ],
)
def test_what_does_not_go_with_privacy(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as refused:
        from_values(values(**copy.deepcopy(PRIVATE | changes)))
    assert field in str(refused.value)


def test_a_learning_rate_that_spreads_is_refused_with_one_that_does_not() -> None:
    with pytest.raises(SpecError) as refused:
        compile_job(private(training__optimizer={"kind": "sgd", "learning_rate": 3.0}))
    assert refused.value.where["field"] == "training.optimizer.learning_rate"
    assert "learning_rate to 1." in refused.value.hint  # 1 / (3/4 + 2 l2), roundings included


def test_identifiers_are_not_compared() -> None:
    tables = [
        table("bank", 100, "income", identifiers=True),
        table("shop", 100, "visits", label=None, identifiers=True),
    ]
    joined = {"data": {"columns": ["bank", "shop"], "label": "malignant"}}
    with pytest.raises(SpecError, match="identifiers: whether they match would be opened"):
        private(tables, **joined)
    private([table("bank", 100, "income"), table("shop", 100, "visits", label=None)], **joined)


def test_a_row_is_as_long_as_its_ranges_allow_and_a_category_counts_once() -> None:
    def colours(*names: str) -> tuple[FeatureColumn, ...]:
        return tuple(
            FeatureColumn(name=f"colour={name}", source="colour", kind="category") for name in names
        )

    raw = FeatureColumn(name="age", source="age", kind="number", bound=3.0)
    info = describe(100, (raw, *colours("red", "blue", "green")), LABEL, has_identifiers=False)
    tables = [SharedTable(name=f"hospital-{x}", upload=x, info=info) for x in "ab"]
    found = task_of(private(tables)).privacy
    assert found and found.row_norm == pytest.approx((9 + 1) ** 0.5)

    one = describe(100, colours("red"), LABEL, has_identifiers=False)
    other = describe(100, (*colours("blue"), *features("x")), None, has_identifiers=False)
    tables = [
        SharedTable(name="bank", upload="u", info=one),
        SharedTable(name="shop", upload="v", info=other),
    ]
    joined = {"data": {"columns": ["bank", "shop"], "label": "malignant"}}
    found = task_of(private(tables, **joined)).privacy
    assert found and found.row_norm == pytest.approx(3**0.5), "owners' columns are apart"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("maximum_epsilon: 0.5", "does not allow epsilon 1. Allowed: privacy with epsilon 0.5"),
        ("maximum_delta: 1e-7", "does not allow delta 1e-06. Allowed: privacy with delta 1e-07"),
    ],
)
def test_a_policy_refuses_too_little_privacy(text: str, part: str) -> None:
    with pytest.raises(Refused) as refused:
        policy.parse(text).check(Case(private(), ()), "party-0")
    assert part in str(refused.value)
    assert refused.value.where["rule"] == text.partition(":")[0]


@pytest.mark.parametrize("rule", ["maximum_epsilon: 100", "maximum_delta: 0.01"])
def test_a_policy_with_either_rule_refuses_jobs_without_privacy(rule: str) -> None:
    policy.parse(rule).check(Case(private(), ()), "party-0")
    with pytest.raises(Refused, match="a job without privacy"):
        policy.parse(rule).check(Case(bound(), ()), "party-0")


def test_the_example_of_the_page(tmp_path: Any) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: n\ndata: {rows: [a], label: l}\nmodel: {kind: linear_regression}\n"
        "training: {epochs: 1, batch_size: 8, optimizer: {kind: sgd, learning_rate: 0.1}}\n"
        "model_output: {keep_shares: m}\nprivacy: {epsilon: 2, delta: 1e-5}\n"
    )
    found = load(path).privacy
    assert found and (found.epsilon, found.delta) == (2.0, 1e-5)
