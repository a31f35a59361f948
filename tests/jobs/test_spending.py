"""What has been disclosed of each data set, added up from a ledger."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import InputError
from masque.jobs.chain import ACCEPTED
from masque.jobs.compile import compile_job
from masque.jobs.disclosed import ENDLESS, NOTHING, Disclosed, by_program
from masque.jobs.ledger import Ledger
from masque.jobs.spending import Spending
from tests.jobs.examples import bound, job
from tests.jobs.test_conditions import private
from tests.jobs.test_ledger import opened as open_ledger

ENDLESSLY = (ENDLESS, ENDLESS)
PRIVATE = {"epsilon": 0.5, "delta": 1e-7}


def accept(
    ledger: Ledger, name: str, attempt: int, *data: str, owner: str = "clinic", **more: Any
) -> None:
    fields = {"client": "analyst", "privacy": None} | more
    used = [{"name": each, "owner": owner, "upload": "u"} for each in data]
    ledger.note(ACCEPTED, job=name, attempt=attempt, data=used, **fields)


def test_bits_count_for_every_data_set_of_the_job_and_for_no_other(tmp_path: Path) -> None:
    ledger, spending = open_ledger(tmp_path), Spending()
    ledger.follow(spending)
    accept(ledger, "job", 1, "a", "b")
    assert spending.given("clinic", "a") == NOTHING, "nothing was opened yet"
    ledger.record("job", 1, "stop", 1, ["parties"])
    ledger.record("job", 1, "share of weights, sealed", 640, ["analyst"])
    ledger.record("other", 1, "stop", 1, ["parties"])
    assert spending.given("clinic", "a") == Disclosed(641, *ENDLESSLY)
    assert spending.given("clinic", "b") == spending.given("clinic", "a")
    assert spending.given("clinic", "c") == spending.given("somebody", "a") == NOTHING


def test_a_second_attempt_counts_again_and_one_that_opened_nothing_does_not(
    tmp_path: Path,
) -> None:
    ledger, spending = open_ledger(tmp_path), Spending()
    ledger.follow(spending)
    for attempt in (1, 2, 3):
        accept(ledger, "job", attempt, "a", privacy=PRIVATE)
        if attempt != 2:
            ledger.record("job", attempt, "release", 0, ["analyst"])
            ledger.record("job", attempt, "share of weights, sealed", 64, ["analyst"])
    assert spending.given("clinic", "a") == Disclosed(128, Decimal("1.0"), Decimal("2e-7"))


def test_what_is_under_way_counts_with_the_most_that_it_may_disclose(tmp_path: Path) -> None:
    ledger, spending = open_ledger(tmp_path), Spending()
    ledger.follow(spending)
    accept(ledger, "job", 1, "a", privacy=PRIVATE)
    most = Disclosed(100, Decimal("0.5"), Decimal("1e-7"))
    spending.reserve(("job", 1), most)
    assert spending.given("clinic", "a") == most
    ledger.record("job", 1, "stop", 1, ["parties"])
    assert spending.given("clinic", "a") == most, "not twice"
    spending.let_go(("job", 1))
    assert spending.given("clinic", "a") == Disclosed(1, most.epsilon, most.delta)
    spending.let_go(("never", 1))


ATTEMPTS = st.tuples(st.sampled_from(["x", "y"]), st.integers(1, 3))
EVENTS = st.one_of(
    st.tuples(st.just("accept"), ATTEMPTS, st.sets(st.sampled_from("abc"), min_size=1)),
    st.tuples(st.just("open"), ATTEMPTS, st.integers(0, 50)),
)


@given(st.lists(EVENTS, max_size=12), st.integers(0, 12))
def test_a_restart_anywhere_changes_no_count(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], at: int
) -> None:
    """The counts are those of the ledger's lines, whoever has read which of them when."""
    folder = tmp_path_factory.mktemp("spent")
    ledger, spending = open_ledger(folder), Spending()
    ledger.follow(spending)
    datasets: dict[Any, Any] = {}
    bits: dict[Any, int] = defaultdict(int)
    for number, (what, attempt, content) in enumerate(events):
        if number == at:  # the party is started again
            ledger, spending = open_ledger(folder), Spending()
            ledger.follow(spending)
        if what == "accept":
            accept(ledger, *attempt, *sorted(content))
            datasets[attempt] = (
                datasets.get(attempt, set()) | content
            )  # a lost note takes none away
        elif attempt in datasets:  # nothing is opened before it is accepted
            ledger.record(attempt[0], attempt[1], "value", content, ["parties"])
            bits[attempt] += content
    for name in "abc":
        expected = sum(bits[a] for a, used in datasets.items() if name in used)
        assert spending.given("clinic", name).bits == expected


def test_a_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.note(ACCEPTED, job="job", attempt=1, data="nothing")
    with pytest.raises(InputError, match=r"line 2: what it notes as 'accepted' cannot be read"):
        ledger.follow(Spending())


# -- the most that a program discloses -----------------------------------------------------------


def test_the_most_is_what_is_opened_and_what_is_sealed_to_each() -> None:
    plain = bound(job(data__holdout=0.2))
    program = compile_job(plain)
    sealed = {name: output for name, output in program.outputs.items() if output.to}
    numbers = sum(prod(output.shape) for output in sealed.values())
    opened = sum(opening.bits for opening in program.openings)
    assert by_program(program, None) == Disclosed(opened + 64 * numbers, *ENDLESSLY)
    kept = compile_job(bound(job(reveal={}, data__holdout=0.0, model_output={"keep_shares": "m"})))
    assert by_program(kept, None) == NOTHING, "shares that stay with the parties say nothing"


def test_the_most_of_a_private_job_has_its_epsilon_and_delta() -> None:
    made = private(0.3)
    found = by_program(compile_job(made), made.spec.privacy)
    assert (found.epsilon, found.delta) == (Decimal("0.3"), Decimal("0.000001"))
    assert found.bits > 0
