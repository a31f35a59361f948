"""What an owner allows: how it is written, and what it refuses."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import Refused, SpecError
from masque.jobs import policy
from masque.jobs.conditions import Conditions, load, parse
from masque.jobs.disclosed import NOTHING, Disclosed
from masque.jobs.limits import Approval, Case
from masque.jobs.policy import Policy
from masque.mpc.program import Opening
from tests.jobs.examples import bound, job

OPENINGS = [Opening("stop", 1, ("parties",)), Opening("accuracy", 32, ("analyst",))]
JOB = bound()
NOON = dt.datetime(2027, 12, 31, 12, tzinfo=dt.UTC)


def private(epsilon: float) -> Any:
    spec = job(
        reveal={},
        data__standardize=False,
        data__holdout=0.0,
        training__optimizer={"kind": "sgd", "learning_rate": 0.05},
        privacy={"epsilon": epsilon, "delta": 1e-6},
    )
    return bound(spec)


def refusal(rules: str, case: Case | None = None, now: dt.datetime = NOON) -> Refused:
    with pytest.raises(Refused) as caught:
        parse(rules).check(case or Case(JOB, OPENINGS), "hospital-a", "clinic", now, "party-0")
    where = caught.value.where
    assert (where["party"], where["dataset"], where["owner"]) == ("party-0", "hospital-a", "clinic")
    assert f"({where['rule']})" in caught.value.message
    assert "the conditions of 'clinic' for the data set 'hospital-a'" in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("rules", "part"),
    [
        ("clients: [other]", "do not allow 'analyst' (clients). Allowed: other."),
        ("models: [sequential]", "'logistic_regression' (models). Allowed: sequential."),
        ("metrics: [accuracy]", "'auc' (metrics). Allowed: accuracy."),
        ("outputs: [kept, open]", "'sealed' (outputs). Allowed: kept, open."),
        ("recipients: []", "'analyst' (recipients). Allowed: nothing."),
        ("maximum_opened_bits: 32", "33 opened bits (maximum_opened_bits). Allowed: 32 or fewer."),
        ("maximum_epsilon: 1", "a job without privacy (maximum_epsilon)."),
        ("maximum_delta: 1e-5", "a job without privacy (maximum_delta)."),
        ("expires: 2027-12-30", "any job any more (expires). Allowed: until 2027-12-30."),
    ],
)
def test_each_rule_names_itself_and_whose_it_is(rules: str, part: str) -> None:
    error = refusal(rules)
    assert part in str(error)
    assert error.where["rule"] == rules.partition(":")[0]


def test_what_everything_in_the_job_fits() -> None:
    rules = parse(
        """
        purpose: a study
        expires: 2027-12-31
        clients: [analyst]
        models: [logistic_regression]
        metrics: [accuracy, auc]
        outputs: [sealed]
        recipients: [analyst]
        maximum_opened_bits: 33
        maximum_dataset_bits: 1000
        """
    )
    case = Case(JOB, OPENINGS, Disclosed(900), {"hospital-a": Disclosed(100)})
    rules.check(case, "hospital-a", "clinic", NOON, "party-0")
    assert rules.in_words().startswith("clients: analyst; models: logistic_regression; metrics: ")
    assert rules.in_words().endswith("purpose: a study; expires: 2027-12-31")


def test_the_last_day_is_over_at_midnight_in_utc() -> None:
    rules = Conditions(expires="2027-12-31")
    east = dt.timezone(dt.timedelta(hours=9))
    for text, over in (
        ("2027-12-31T23:59:59.999999+00:00", False),
        ("2028-01-01T00:00:00+00:00", True),
        ("2028-01-01T08:59:59+09:00", False),
        ("2028-01-01T09:00:00+09:00", True),
    ):
        assert rules.expired(dt.datetime.fromisoformat(text)) is over
    assert rules.expired(dt.datetime(2028, 1, 1, 9, tzinfo=east))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the file is empty"),
        ("{}", "has no condition"),
        ("expires: 2027-02-30", "line 1: expires must be a day, not '2027-02-30'."),
        ("expires: 20271231", "expires must be text"),
        ("expires: '20271231'", "expires must be a day"),
        ('purpose: "a\\nb"', "purpose must be one line of printable characters"),
        ("clients: analyst", "clients must be a list, not 'analyst'. Write [analyst]."),
        ("coordinators: [a]", "coordinators is not a known key"),
        ("minimum_rows: 5", "minimum_rows is not a known key"),
        ("maximum_dataset_epsilon: 0", "maximum_dataset_epsilon must be more than 0"),
        ("approval: {outputs: [open]}", "approval.by is missing"),
        ("approval: {by: []}", "approval.by has fewer than 1 entries"),
        ("approval: {by: [a], model: [sequential]}", "Did you mean 'models'?"),
    ],
)
def test_a_mistake_in_conditions_is_named(tmp_path: Any, text: str, part: str) -> None:
    path = tmp_path / "conditions.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load(path)
    assert "conditions.yaml" in str(caught.value) and part in str(caught.value)


# -- what a data set may give in all -------------------------------------------------------------


def total(before: Disclosed, gives: Disclosed, made: Any = JOB) -> Case:
    return Case(made, [], gives, {"hospital-a": before})


@pytest.mark.parametrize(
    ("rule", "case", "part"),
    [
        (
            "maximum_dataset_bits: 100",
            total(Disclosed(60), Disclosed(41)),
            "bits 41 of 'hospital-a' after 60 of earlier jobs (maximum_dataset_bits). "
            "Allowed: 100 over all jobs, of which 40 is left.",
        ),
        (
            "maximum_dataset_epsilon: 1.0",
            total(Disclosed(1, Decimal("0.7")), Disclosed(1, Decimal("0.4"))),
            "epsilon 0.4 of 'hospital-a' after 0.7 of earlier jobs",
        ),
        (
            "maximum_dataset_delta: 1e-6",
            total(NOTHING, Disclosed(1, Decimal(1), Decimal("2e-06"))),
            "delta 2e-06 of 'hospital-a' after 0 of earlier jobs",
        ),
        (
            "maximum_dataset_epsilon: 100",
            total(NOTHING, Disclosed(1, Decimal("Infinity"), Decimal("Infinity"))),
            "a job without privacy on 'hospital-a'",
        ),
        (
            "maximum_dataset_epsilon: 100",
            total(Disclosed(1, Decimal("Infinity"), Decimal("Infinity")), Disclosed(1, Decimal(1))),
            "of which a job has disclosed without privacy (maximum_dataset_epsilon). "
            "Allowed: 100 over all jobs, of which 0 is left.",
        ),
    ],
)
def test_a_total_says_what_was_and_what_is_left(rule: str, case: Case, part: str) -> None:
    assert part in str(refusal(rule, case))
    with pytest.raises(Refused) as caught:
        policy.parse(rule).check(case, "party-0")
    assert caught.value.where["rule"] == rule.partition(":")[0]
    assert "its policy's" in str(caught.value)


def test_an_owners_total_is_of_its_own_data_set_and_a_partys_of_every_one() -> None:
    case = Case(JOB, [], Disclosed(10), {"hospital-b": Disclosed(95)})
    parse("maximum_dataset_bits: 100").check(case, "hospital-a", "clinic", NOON, "party-0")
    with pytest.raises(Refused, match="of 'hospital-b' after 95"):
        policy.parse("maximum_dataset_bits: 100").check(case, "party-0")


def test_ten_tenths_are_one() -> None:
    tenth = Disclosed(1, Decimal(repr(0.1)), Decimal(repr(1e-7)))
    given = NOTHING
    for _ in range(9):
        given += tenth
    rules = parse("maximum_dataset_epsilon: 1\nmaximum_dataset_delta: 1e-6")
    made = private(0.1)
    rules.check(total(given, tenth, made), "hospital-a", "clinic", NOON, "party-0")
    refusal("maximum_dataset_epsilon: 1", total(given + tenth, tenth, made))
    refusal("maximum_dataset_delta: 1e-6", total(given + tenth, tenth, made))


BITS = st.integers(0, 200)


@given(st.lists(BITS, max_size=6), BITS, BITS)
def test_jobs_pass_one_by_one_until_the_total_is_reached_and_never_beyond(
    jobs: list[int], most: int, last: int
) -> None:
    """Whatever is accepted stays within the total; what is refused would exceed it."""
    rules, spent = Policy(maximum_dataset_bits=most), 0
    for bits in [*jobs, last]:
        case = Case(JOB, [], Disclosed(bits), {"hospital-b": Disclosed(spent)})
        breaches = [b for b in rules.breaches(case) if b.rule == "maximum_dataset_bits"]
        accepted = not breaches
        assert accepted == (spent + bits <= most)
        spent += bits if accepted else 0
    assert spent <= most


# -- who must say yes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lists", "needed"),
    [
        ({}, True),
        ({"outputs": ["open"]}, False),
        ({"outputs": ["open", "sealed"]}, True),
        ({"clients": ["somebody"]}, False),
        ({"clients": ["analyst"]}, True),
        ({"models": ["sequential"], "outputs": ["sealed"]}, True),
        ({"models": ["sequential"], "outputs": ["open"]}, False),
        ({"clients": []}, False),
    ],
)
def test_which_jobs_need_a_yes(lists: dict[str, list[str]], needed: bool) -> None:
    rule = Approval.model_validate({"by": ["dr-weber"], **lists})
    assert rule.needed(JOB) is needed


# -- conditions and policies use the same rules ---------------------------------------------------

NAMES = st.lists(st.sampled_from(["analyst", "party-0", "x"]), max_size=2).map(tuple)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "clients": NAMES,
        "models": st.sampled_from([(), ("logistic_regression",), ("linear_regression",)]),
        "metrics": st.sampled_from([(), ("accuracy",), ("accuracy", "auc")]),
        "outputs": st.sampled_from([(), ("sealed",), ("open", "kept")]),
        "recipients": NAMES,
        "maximum_opened_bits": st.integers(0, 64),
        "maximum_dataset_bits": st.integers(0, 200),
        "maximum_epsilon": st.sampled_from([0.5, 2.0]),
    },
)


@given(RULES, BITS)
def test_what_a_policy_would_refuse_by_a_rule_conditions_refuse_by_it(
    rules: dict[str, Any], given_before: int
) -> None:
    case = Case(JOB, OPENINGS, Disclosed(33), {"hospital-a": Disclosed(given_before)})
    by_owner = list(Conditions(**rules).breaches(case, "hospital-a", NOON))
    loose: dict[str, Any] = {"outputs": ("sealed", "kept", "open"), "minimum_rows": 1, **rules}
    by_operator = [b for b in Policy(**loose).breaches(case) if "hospital-b" not in b.value]
    assert by_owner == by_operator
