from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import Refused, SpecError
from masque.jobs.bound import Recipient
from masque.jobs.limits import Case
from masque.jobs.policy import Policy, load, parse
from masque.mpc.program import Opening
from tests.jobs.examples import KEYS, bound, job, table

METRICS = [Opening("accuracy", 32, ("analyst",)), Opening("auc", 64, ("analyst",))]
STOP = Opening("stop", 1, ("party-0", "party-1"))
JOB = bound()


def refusal(policy: str, made: Any = JOB, openings: Any = METRICS) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        parse(policy).check(Case(made, openings), "party-0")
    assert caught.value.where["party"] == "party-0"
    rule, text = caught.value.where["rule"], str(caught.value)
    assert isinstance(rule, str)
    assert f"party-0 refuses job job-1: its policy's {rule} does not allow" in text
    return rule, text


@pytest.mark.parametrize(
    ("policy", "part"),
    [
        ("coordinators: [other]", "does not allow 'coordinator'. Allowed: other."),
        ("clients: []", "does not allow 'analyst'. Allowed: nothing."),
        ("models: [linear_regression]", "'logistic_regression'. Allowed: linear_regression"),
        ("metrics: [accuracy]", "'auc'. Allowed: accuracy"),
        ("outputs: [kept]", "'sealed'. Allowed: kept"),
        ("recipients: [auditor]", "'analyst'. Allowed: auditor"),
        (f"recipient_keys: {{analyst: {'ee' * 32}}}", "does not allow the key of 'analyst'"),
        ("minimum_rows: 101", "does not allow 100 rows in 'hospital-a'. Allowed: 101 or more"),
        ("minimum_held_out_rows: 51", "does not allow 50 held-out rows. Allowed: 51 or more"),
        ("minimum_batch_rows: 9", "a batch of 8 (200 rows in batches of 32). Allowed: 9 or more"),
        ("maximum_opened_bits: 95", "does not allow 96 opened bits. Allowed: 95 or fewer"),
    ],
)
def test_each_rule_names_itself_and_what_breaks_it(policy: str, part: str) -> None:
    rule, text = refusal(policy)
    assert rule == policy.partition(":")[0]
    assert part in text


def test_a_policy_that_allows_everything_in_the_job() -> None:
    policy = parse(
        f"""
        coordinators: [coordinator]
        clients: [analyst]
        models: [logistic_regression]
        metrics: [auc, accuracy]
        outputs: [sealed]
        recipients: [analyst]
        recipient_keys: {{analyst: {KEYS["analyst"]}}}
        minimum_rows: 100
        minimum_held_out_rows: 50
        maximum_opened_bits: 97
        """
    )
    policy.check(Case(JOB, [*METRICS, STOP]), "party-0")


def test_what_no_policy_means() -> None:
    Policy().check(Case(JOB, METRICS), "party-0")
    assert parse("# nothing") == parse("") == Policy()
    everybody = bound(job(model_output={"open_to_all": True}))
    assert refusal("", everybody)[0] == "outputs"
    parse("outputs: [sealed, kept, open]").check(Case(everybody, METRICS), "party-0")
    small = bound(job(training__batch_size=1), [table("hospital-a", 19), table("hospital-b", 100)])
    assert refusal("", small)[0] == "minimum_rows"
    single = bound(job(training__batch_size=1))  # with an l2 of 1/rate: weights are one row
    assert refusal("", single)[0] == "minimum_batch_rows"
    last = bound(job(training__batch_size=199))  # and its epochs end with a batch of one
    assert refusal("", last)[0] == "minimum_batch_rows"
    few = bound(job(data__holdout=0.01))
    assert refusal("", few)[0] == "minimum_held_out_rows"
    Policy().check(Case(bound(job(reveal={}, data__holdout=0.0)), []), "party-0")


def test_openings_to_somebody_the_job_does_not_mention_are_refused() -> None:
    hidden = [*METRICS, Opening("weights", 1920, ("coordinator",))]
    rule, text = refusal("recipients: [analyst]", openings=hidden)
    assert rule == "recipients"
    assert "'coordinator'" in text
    everybody = bound(job(reveal__to="all"))
    assert "'all'" in refusal("recipients: [analyst]", everybody)[1]
    parse("recipients: [analyst, all]").check(Case(everybody, METRICS), "party-0")


def test_what_parties_see_needs_no_recipient_and_what_a_namesake_gets_does() -> None:
    seen = Case(JOB, [Opening("match", 1, ("parties",)), STOP])
    parse("recipients: [analyst]").check(seen, "party-0")
    people = [Recipient(name=name, key=KEYS["analyst"]) for name in ("analyst", "party-0")]
    namesake = job(model_output__sealed_to=["party-0"])
    rule, text = refusal("recipients: [analyst]", bound(namesake, recipients=people))
    assert (rule, "'party-0'" in text) == ("recipients", True)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("client: [x]", "line 1: client is not a known key. Did you mean 'clients'?"),
        ("\nmodels: [logistic]", "line 2: models[0] cannot be 'logistic'. Did you mean"),
        ("outputs: sealed", "outputs must be a list, not 'sealed'. Write [sealed]."),
        ("outputs: [sealed_to]", "Did you mean 'sealed'?"),
        ("minimum_rows: 0", "at least 1"),
        ("recipient_keys: {a: x}", "recipient_keys.a must be 64 digits 0-9, a-f"),
        ("recipient_keys: [a]", "must be a group"),
        ("hello", "is not a list of `key: value` lines"),
    ],
)
def test_a_mistake_in_a_policy_file_is_named(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load(path)
    assert "policy.yaml" in str(caught.value)
    assert part in str(caught.value)


NAMES = st.lists(st.sampled_from(["coordinator", "analyst", "party-0", "x"]), max_size=3)
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "coordinators": NAMES.map(tuple),
        "clients": NAMES.map(tuple),
        "models": st.sampled_from([(), ("logistic_regression",), ("linear_regression",)]),
        "metrics": st.sampled_from([(), ("accuracy",), ("accuracy", "auc")]),
        "outputs": st.sampled_from([(), ("sealed",), ("open", "kept")]),
        "recipients": NAMES.map(tuple),
        "minimum_rows": st.integers(1, 200),
        "minimum_held_out_rows": st.integers(1, 100),
        "maximum_opened_bits": st.integers(0, 200),
    },
)


def allows(policy: Policy) -> bool:
    try:
        policy.check(Case(JOB, METRICS), "party-0")
    except Refused:
        return False
    return True


@given(POLICIES, POLICIES)
def test_a_policy_of_two_policies_allows_what_both_allow(
    one: dict[str, Any], two: dict[str, Any]
) -> None:
    both = dict(one)
    for rule, value in two.items():
        if rule not in both:
            both[rule] = value
        elif isinstance(value, tuple):
            both[rule] = tuple(name for name in both[rule] if name in value)
        else:
            both[rule] = (min if rule.startswith("maximum") else max)(both[rule], value)
    expected = allows(Policy(**one)) and allows(Policy(**two))
    assert allows(Policy(**both)) is expected
