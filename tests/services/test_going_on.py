"""A job that goes on from checkpoints at real parties, and a coordinator that lies about it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masque.data.checkpoints import Checkpoint, Checkpoints
from masque.data.keys import StoreKey
from masque.errors import JobFailed, MasqueError, NotFound, ProtocolError, Refused, passing
from masque.jobs.bound import BoundJob, Resume
from masque.jobs.resuming import program_of
from masque.v1 import party_pb2
from services.party.preparing import checkpoint_of
from tests.services.handmade import STEPS, compile_handmade, gram
from tests.services.test_dealer import a_job as a_bound_job
from tests.services.test_lying_coordinator import (
    OPEN,
    abort,
    an_open_job,
    assert_nothing_opened,
)
from tests.services.test_party import EARLY_STOP, a_job, assert_usable, ledger
from tests.services.village import CALL, COORDINATOR, Village, patients

EPOCHS = 3
EXACT = EPOCHS * STEPS


def broken_off(village: Village, job: BoundJob, rounds: int) -> BoundJob:
    """The job, of which so many rounds are done, and its first attempt over."""
    village.prepare(job)
    village.run_rounds(job, range(rounds))
    for name in village.names:
        abort(village, name, job)
    return job


def on(job: BoundJob, round: int, attempt: int = 2, last: int = 1, **more: bool) -> BoundJob:
    """The job as an attempt that goes on at `round`, from what attempt `last` has left."""
    return job.at_attempt(attempt, Resume(attempt=last, round=round, **more))


def checkpoints(village: Village, name: str, job: BoundJob) -> set[str]:
    folder = village.services[name].directory / "data" / "checkpoints" / job.job_id
    return {path.name for path in folder.glob("*")} if folder.exists() else set()


# -- as it should be -----------------------------------------------------------------------------


def test_a_job_goes_on_after_every_party_was_killed(village: Village) -> None:
    """And again from there: the result is right to the last bit, and rounds are done once."""
    job = broken_off(village, a_job(village, training__epochs=EPOCHS), 2)
    for name in village.names:
        village.services[name].kill()
    for name in village.names:
        village.revive(name)
    second = on(job, 2)
    rounds = village.prepare(second)["party-a"].rounds
    assert list(rounds) == ["", "step 1, restored", "step 2", "step 3", "finish"]
    replies = village.run_rounds(second, [1, 2])
    assert all(reply.committed for reply in replies.values())
    for name in village.names:
        abort(village, name, second)
    third = on(job, 3, attempt=3, last=2)
    village.run(third)
    assert np.array_equal(village.result(third, "gram"), gram(patients()[0], EXACT))


def test_parties_tell_what_they_have_committed(village: Village) -> None:
    """All but the last round, whose outputs are handed over; and two of them are kept."""
    job = a_job(village, training__epochs=EPOCHS)
    rounds = len(village.prepare(job)["party-a"].rounds)
    for k in range(rounds):
        committed = {r.committed for r in village.run_rounds(job, [k]).values()}
        assert committed == {k + 1 < rounds}
    for name in village.names:
        assert checkpoints(village, name, job) == {"job.json", "1-3.share", "1-4.share"}
    second = on(job, 3)
    village.prepare(second)
    for k, kept in ((2, False), (3, True)):
        replies = village.run_rounds(second, [k])
        assert {reply.committed for reply in replies.values()} == {kept}
    for name in village.names:
        assert checkpoints(village, name, job) == {"job.json", "1-3.share", "2-4.share"}


def test_an_early_stop_is_not_forgotten(village: Village) -> None:
    job = a_job(village, training__epochs=EPOCHS, training__early_stop=EARLY_STOP)
    broken_off(village, job, 2)
    second = on(job, 2, stopped=True)
    rounds = list(village.prepare(second)["party-a"].rounds)
    assert rounds == ["", "step 1, restored", "", "", "finish"]
    village.run_rounds(second, [1, 4])
    assert np.array_equal(village.result(second, "gram"), gram(patients()[0], EPOCHS))
    told = [entry["what"] for entry in ledger(village, "party-a", job)]
    assert told.count("stop") == 1, "the bit was not opened again"


def test_two_attempts_from_one_checkpoint_disclose_twice_and_both_are_noted(
    village: Village,
) -> None:
    """Each is masked anew; what the job opens is opened by each, and nothing else."""
    job = broken_off(village, an_open_job(village, training__epochs=EPOCHS), 3)
    for attempt in (2, 3):
        village.run(on(job, 3, attempt))
    for name in village.names:
        noted = ledger(village, name, job)
        assert [(entry["what"], entry["attempt"]) for entry in noted] == [("gram", 2), ("gram", 3)]


# -- lies ----------------------------------------------------------------------------------------


def refusals(village: Village, told: dict[str, BoundJob]) -> dict[str, BaseException]:
    """Tell each its own job, and ask whoever accepts it for every round; what they said."""

    def party(name: str) -> None:
        rounds = village.prepare_party(name, told[name]).rounds
        for k in range(len(rounds)):
            village.run_at(name, told[name], k)

    with ThreadPoolExecutor() as pool:
        asked: dict[str, Future[Any]] = {name: pool.submit(party, name) for name in village.names}
        asked["dealer"] = pool.submit(village.prepare_dealer, told["dealer"])
        found = {name: future.exception(timeout=CALL) for name, future in asked.items()}
    return {name: error for name, error in found.items() if error is not None}


def all_told(village: Village, job: BoundJob, **others: BoundJob) -> dict[str, BoundJob]:
    told = dict.fromkeys((*village.names, "dealer"), job)
    return told | {name.replace("_", "-"): other for name, other in others.items()}


DIFFERENT: dict[str, Callable[[BoundJob], BoundJob]] = {
    "another round": lambda job: on(job, 2),
    "another attempt": lambda job: on(job, 3, attempt=3, last=2),
    "a job that begins anew": lambda job: job.at_attempt(2),
    "that training had stopped": lambda job: on(job, 3, stopped=True),
}


ELSEWHERE = [(lie, "dealer") for lie in DIFFERENT]
ELSEWHERE += [(lie, "party_b") for lie in ("another round", "a job that begins anew")]
"""The other two a party refuses by itself, below; its peer would wait for it in vain."""


@pytest.mark.parametrize(("lie", "victim"), ELSEWHERE)
def test_one_is_told_to_go_on_elsewhere(village: Village, lie: str, victim: str) -> None:
    """Whoever compares digests notices: parties with one another, and with the dealer."""
    job = broken_off(village, an_open_job(village, training__epochs=EPOCHS), 3)
    told = all_told(village, on(job, 3), **{victim: DIFFERENT[lie](job)})
    errors = refusals(village, told)
    assert errors.keys() >= set(village.names), "both parties noticed"
    assert all(isinstance(error, MasqueError) for error in errors.values()), errors
    assert_nothing_opened(village, job)
    for name in village.names:
        abort(village, name, told[name])
    assert_usable(village)


@pytest.mark.parametrize(
    ("round", "last", "said"),
    [
        (4, 1, "no checkpoint 1-4.share of job"),
        (1, 1, "no checkpoint 1-1.share of job"),
        (3, 2, "no checkpoint 2-3.share of job"),
    ],
)
def test_what_was_never_committed_is_not_gone_on_from(
    village: Village, round: int, last: int, said: str
) -> None:
    """The newest two are kept, of the attempts that there were."""
    job = broken_off(village, an_open_job(village, training__epochs=EPOCHS), 3)
    errors = refusals(village, all_told(village, on(job, round, 3, last)))
    for name in village.names:
        error = errors[name]
        assert isinstance(error, Refused) and said in str(error)
        assert error.where["party"] == name and error.where["checkpoint"] == "lost"
    assert_nothing_opened(village, job)
    assert_usable(village)


def test_that_training_had_stopped_is_not_believed(village: Village) -> None:
    """The rounds that it would leave out could be those that keep a job from overfitting to one."""
    job = an_open_job(village, training__epochs=EPOCHS, training__early_stop=EARLY_STOP)
    broken_off(village, job, 1)
    errors = refusals(village, all_told(village, on(job, 1, stopped=True)))
    for name in village.names:
        assert isinstance(errors[name], Refused)
        assert f"is not what {COORDINATOR!r} says of it" in str(errors[name])
        assert not passing(errors[name]), "no other attempt makes it true"  # type: ignore[arg-type]
    assert_nothing_opened(village, job)
    assert_usable(village)


@pytest.mark.parametrize("round", [5, 6, 10**6])
def test_behind_the_end_there_is_nothing(village: Village, round: int) -> None:
    job = broken_off(village, an_open_job(village, training__epochs=EPOCHS), 3)
    errors = refusals(village, all_told(village, on(job, round)))
    assert set(errors) == {*village.names, "dealer"}
    for error in errors.values():
        assert isinstance(error, ProtocolError) and "which is no place for it" in str(error)
        assert error.where["peer"] == COORDINATOR
    assert_nothing_opened(village, job)
    assert_usable(village)


def test_an_attempt_goes_on_from_one_place(village: Village) -> None:
    job = broken_off(village, an_open_job(village, training__epochs=EPOCHS), 3)
    village.prepare(on(job, 3))
    for other in (on(job, 2), job.at_attempt(2), on(job, 3, stopped=True)):
        for name in village.names:
            with pytest.raises(
                ProtocolError, match=r"let attempt 2 of job .* go on from two"
            ) as no:
                village.prepare_party(name, other)
            assert no.value.where["peer"] == COORDINATOR
        with pytest.raises(MasqueError, match="two specs for one job id"):
            village.prepare_dealer(other)
    village.run_rounds(on(job, 3), [0])  # nothing was harmed
    assert_nothing_opened(village, on(job, 3))
    for name in village.names:
        abort(village, name, on(job, 3))


def test_a_checkpoint_of_another_job_is_no_checkpoint(village: Village) -> None:
    """Not even for who can move files at a party: it is sealed to its place."""
    job = broken_off(village, an_open_job(village, training__epochs=EPOCHS), 3)
    other = village.bound(list(job.tables), **OPEN, training__epochs=EPOCHS)
    broken_off(village, other, 3)
    for name in village.names:
        kept = village.services[name].directory / "data" / "checkpoints"
        mine, theirs = (kept / each.job_id / "1-3.share" for each in (job, other))
        mine.write_bytes(theirs.read_bytes())
    errors = refusals(village, all_told(village, on(job, 3)))
    for name in village.names:
        assert "is damaged, or was moved there from elsewhere" in str(errors[name])
    assert_nothing_opened(village, job)
    assert_usable(village)


# -- leases and the end --------------------------------------------------------------------------


def renew(village: Village, job: BoundJob, who: str = COORDINATOR) -> None:
    with village.party("party-a", "coordinator", who) as stub:
        request = party_pb2.RenewLeaseRequest(job_id=job.job_id, attempt=job.attempt)
        stub.Renew(request, timeout=CALL)


def forget(village: Village, job_id: str, who: str = COORDINATOR) -> None:
    for name in village.names:
        with village.party(name, "coordinator", who) as stub:
            stub.Forget(party_pb2.ForgetJobRequest(job_id=job_id), timeout=CALL)


def test_a_lease_is_renewed_for_the_attempt_under_way_by_its_coordinator(
    village: Village,
) -> None:
    job = a_job(village)
    with pytest.raises(NotFound, match="has no job"):
        renew(village, job)
    village.prepare(job)
    renew(village, job)
    with pytest.raises(ProtocolError, match=r"intruder spoke about job .* belongs to coordinator"):
        renew(village, job, "intruder")
    with pytest.raises(ProtocolError, match=r"attempt 2 of job .* which is in attempt 1"):
        renew(village, job.at_attempt(2))
    village.run_rounds(job, [0])  # nothing was harmed
    abort(village, "party-a", job)
    with pytest.raises(JobFailed, match=r"has failed .*coordinator.*: over"):
        renew(village, job)
    with pytest.raises(JobFailed):
        village.run_at("party-a", job, 1)


def test_a_job_that_was_refused_once_gives_up_nothing_that_has_begun(village: Village) -> None:
    """It was submitted twice at once, and only one of the two was refused."""
    job = broken_off(village, a_job(village, training__epochs=EPOCHS), 2)
    for name in village.names:
        with village.party(name) as stub:
            stub.Forget(party_pb2.ForgetJobRequest(job_id=job.job_id, refused=True), timeout=CALL)
    village.run(on(job, 2))
    assert np.array_equal(village.result(on(job, 2), "gram"), gram(patients()[0], EXACT))


def test_who_may_say_that_a_job_has_ended(village: Village) -> None:
    job = broken_off(village, a_job(village, training__epochs=EPOCHS), 2)
    kept = {"job.json", "1-1.share", "1-2.share"}
    forget(village, job.job_id, "intruder")
    forget(village, "unknown-job")
    for name in village.names:
        assert checkpoints(village, name, job) == kept
    forget(village, job.job_id)
    forget(village, job.job_id)
    for name in village.names:
        assert checkpoints(village, name, job) == set()
    errors = refusals(village, all_told(village, on(job, 2)))
    assert all("which has ended" in str(error) for error in errors.values()), errors


@pytest.mark.parametrize("job_id", ["", "../datasets", "..", "a/b", "x" * 300, "A\0"])
def test_no_name_leads_out_of_the_checkpoints(village: Village, job_id: str) -> None:
    before = sorted((village.services["party-a"].directory / "data").rglob("*"))
    with pytest.raises(MasqueError):
        forget(village, job_id)
    assert sorted((village.services["party-a"].directory / "data").rglob("*")) == before


def test_a_job_that_has_ended_is_over_even_in_the_middle(village: Village) -> None:
    job = a_job(village)
    village.prepare(job)
    village.run_rounds(job, [0, 1])
    forget(village, job.job_id)
    for name in village.names:
        assert checkpoints(village, name, job) == set()
        with pytest.raises(JobFailed, match="the job has ended"):
            village.run_at(name, job, 2)
    assert_usable(village)


# -- what a party holds against the coordinator's word -------------------------------------------

SHAPES = {"x": (40, 4), "gram": (4, 4)}


def held(tmp_path: Path, job: BoundJob, **changes: Any) -> Checkpoints:
    """The checkpoint before round 2 of attempt 1 of a job."""
    kept = Checkpoints(tmp_path / "checkpoints", StoreKey(bytes(32)))
    shares = {name: np.zeros(shape, np.uint64) for name, shape in SHAPES.items()}
    fields: dict[str, Any] = {"stopped": False, "subject": job.subject(), "shares": shares}
    kept.begin(job.job_id, 1)
    kept.write(Checkpoint(job.job_id, 1, 2, **(fields | changes)), job.canonical(), None)
    return kept


def checked(job: BoundJob, kept: Checkpoints) -> Checkpoint | None:
    return checkpoint_of(job, program_of(job, compile_handmade(job)), kept, "party-0")


def test_the_checkpoint_that_everybody_agreed_on_is_taken(tmp_path: Path) -> None:
    job = a_bound_job()
    kept = held(tmp_path, job)
    assert checked(job, kept) is None, "an attempt that begins anew needs none"
    found = checked(on(job, 2), kept)
    assert found is not None
    assert {name: share.shape for name, share in found.shares.items()} == SHAPES


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": bytes(32)},
        {"stopped": True},
        {"shares": {}},
        {"shares": {"gram": np.zeros((4, 4), np.uint64)}},
        {"shares": {n: np.zeros((4, 4), np.uint64) for n in SHAPES}},
        {"shares": {n: np.zeros(s, np.uint64) for n, s in (SHAPES | {"more": (1,)}).items()}},
    ],
    ids=["of another job", "stopped", "empty", "a part", "other shapes", "more"],
)
def test_a_checkpoint_that_is_not_what_was_agreed_is_refused_for_good(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    job = a_bound_job()
    with pytest.raises(Refused, match=r"round 2 of attempt 1 is not what 'coordinator'") as caught:
        checked(on(job, 2), held(tmp_path, job, **changes))
    assert caught.value.where["party"] == "party-0"
    assert "checkpoint" not in caught.value.where and not passing(caught.value)


@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "forged"])
def test_a_checkpoint_that_is_lost_is_said_to_be(tmp_path: Path, damage: str) -> None:
    job = a_bound_job()
    kept = held(tmp_path, job)
    path = tmp_path / "checkpoints" / job.job_id / "1-2.share"
    content = {"cut": path.read_bytes()[:-1], "empty": b"", "forged": bytes(500)}
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[damage])
    with pytest.raises(Refused, match="cannot go on with job") as caught:
        checked(on(job, 2), kept)
    assert caught.value.where["checkpoint"] == "lost"
