"""Where an attempt may go on, and what of it is kept: from the bound job alone."""

from __future__ import annotations

import pytest

from masque.errors import ProtocolError
from masque.jobs.bound import BoundJob, Resume, read_bound
from masque.jobs.compile import compile_job
from masque.jobs.resuming import commits, program_of
from masque.mpc.program import Program
from tests.jobs.examples import bound

EPOCHS = 30


@pytest.fixture(scope="module")
def job() -> BoundJob:
    return bound()


@pytest.fixture(scope="module")
def whole(job: BoundJob) -> Program:
    return compile_job(job)


def first_epoch(whole: Program) -> int:
    return sum(each.prepares for each in whole.rounds)


def resumed(job: BoundJob, round: int, **changes: bool) -> BoundJob:
    return job.at_attempt(2, Resume(attempt=1, round=round, **changes))


def test_an_attempt_that_begins_anew_runs_the_whole_program(job: BoundJob, whole: Program) -> None:
    assert program_of(job.at_attempt(7), whole) is whole


def test_there_is_nothing_to_go_on_from_in_preparation_or_behind_the_end(
    job: BoundJob, whole: Program
) -> None:
    assert first_epoch(whole) > 1
    for round in (1, first_epoch(whole), len(whole.rounds), len(whole.rounds) + 1, 10**9):
        with pytest.raises(ProtocolError, match=r"wants job .* no place for it") as caught:
            program_of(resumed(job, round), whole)
        assert caught.value.where["peer"] == job.coordinator


def test_every_other_round_is_a_place_to_go_on(job: BoundJob, whole: Program) -> None:
    digests = {whole.digest}
    for round in range(first_epoch(whole) + 1, len(whole.rounds)):
        program = program_of(resumed(job, round), whole)
        assert len(program.rounds) == len(whole.rounds)
        digests.add(program.digest)
    assert len(digests) == len(whole.rounds) - first_epoch(whole), "no two of them are alike"


def test_what_trains_is_committed_and_nothing_else(job: BoundJob, whole: Program) -> None:
    kept = [k for k in range(len(whole.rounds)) if commits(job, whole, k)]
    assert kept == list(range(first_epoch(whole), len(whole.rounds) - 1))
    assert len(kept) == EPOCHS
    for round in (first_epoch(whole) + 1, first_epoch(whole) + 9, len(whole.rounds) - 1):
        later = resumed(job, round)
        program = program_of(later, whole)
        again = [k for k in range(len(whole.rounds)) if commits(later, program, k)]
        assert again == list(range(round, len(whole.rounds) - 1)), "neither restored nor over"


def test_where_it_goes_on_is_agreed_on_and_is_no_other_job(job: BoundJob) -> None:
    later = resumed(job, 9)
    assert read_bound(later.canonical(), "coordinator") == later
    others = [job.at_attempt(2), resumed(job, 10), resumed(job, 9, stopped=True)]
    assert later.digest() not in {other.digest() for other in others}
    assert {other.subject() for other in others} == {later.subject()} == {job.subject()}


@pytest.mark.parametrize("attempt", [2, 3])
def test_it_goes_on_from_an_earlier_attempt(job: BoundJob, attempt: int) -> None:
    lie = job.at_attempt(2, Resume(attempt=attempt, round=9))
    with pytest.raises(ProtocolError, match=f"is {attempt}, no earlier attempt"):
        read_bound(lie.canonical(), "coordinator")


@pytest.mark.parametrize("field", ['"attempt":0', '"round":0', '"round":-1'])
def test_attempts_and_rounds_are_counted_from_one(job: BoundJob, field: str) -> None:
    text = resumed(job, 9).canonical().decode()
    key = field.partition(":")[0]
    start = text.index(key, text.index('"resume":'))
    end = min(text.index(c, start) for c in ",}")
    with pytest.raises(ProtocolError, match="coordinator sent a job that cannot be accepted"):
        read_bound(text[:start] + field + text[end:], "coordinator")
