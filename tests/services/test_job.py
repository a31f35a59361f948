"""A job's life at a party, with time and network in the test's hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from masque.data.checkpoints import Checkpoint, Checkpoints
from masque.data.keys import StoreKey
from masque.errors import (
    JobFailed,
    MasqueError,
    NotFound,
    ProtocolError,
    Refused,
    Unavailable,
    passing,
)
from masque.jobs.bound import BoundJob, Resume
from masque.jobs.computing import ComputedJob
from masque.jobs.states import State
from services.party.attempt import Account, Attempt
from services.party.deliveries import Deliveries
from services.party.job import Job
from services.party.jobs import Jobs, Memory
from services.party.results import Outcome, Sealed
from tests.services.handmade import compile_handmade
from tests.services.test_dealer import a_job

SEED = bytes(range(32))


class Doors:
    """The doors of an attempt that never computes."""

    def __init__(self) -> None:
        self.stock: Any = self
        self.exchange: Any = self
        self.source: Any = None
        self.ledger: Any = None
        self.checkpoints: Any = self
        self.ended: list[str] = []
        self.told: MasqueError | None = None
        self.rounds, self.waited, self.received = 0, 0.0, 0
        self.traffic: dict[str, Any] = {}

    def start(self) -> None:
        self.ended.append("started")

    def begin(self, job: str, attempt: int) -> None:
        """It writes no checkpoints."""

    def end(self, job: str, attempt: int) -> None:
        """It writes no checkpoints."""

    def abort(self, error: MasqueError) -> None:
        self.ended.append(f"aborted: {error}")
        self.told = error

    def close(self, error: MasqueError | None = None) -> None:
        self.ended.append("closed")

    def let_go(self) -> None:
        self.ended.append("let go")


class Workshop:
    """Compiles to an attempt without peers; can be made to wait and to fail."""

    def __init__(self) -> None:
        self.doors = Doors()
        self.compiled = 0
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None
        self.remembered: list[ComputedJob] = []
        self.numbers: list[Account] = []
        self.stored: dict[int, Sequence[Sealed]] = {}

    def remember(self, job: ComputedJob) -> None:
        self.remembered.append(job)

    def compile(
        self, job: BoundJob, sender: str, failed: Callable[[MasqueError], object]
    ) -> Attempt:
        self.compiled += 1
        self.go.wait(5)
        if self.error is not None:
            raise self.error
        program = compile_handmade(job)
        return Attempt(job, program, 0, [[]] * len(program.rounds), {}, cast(Any, self.doors))

    def finish(self, attempt: Attempt) -> Outcome:
        return Outcome((Sealed("weights", "analyst", b"sealed"),))

    def publish(self, attempt: Attempt, outcome: Outcome) -> None:
        self.stored = {attempt.job.attempt: outcome.sealed}

    def results(self, job_id: str, attempt: int) -> Sequence[Sealed]:
        return self.stored[attempt]

    def discard(self, job_id: str) -> None:
        self.stored = {}

    def closed(self, attempt: Attempt, *, computed: bool) -> None:
        self.numbers.append(attempt.account())


def kept_in(directory: Path) -> Checkpoints:
    return Checkpoints(directory / "checkpoints", StoreKey(bytes(32)))


def jobs_in(directory: Path, workshop: Workshop, capacity: int = 2) -> Jobs:
    """A party's jobs after a start in a directory."""
    memory, deliveries = Memory(directory / "jobs"), Deliveries(directory / "results")
    return Jobs(memory, workshop, kept_in(directory), deliveries, capacity)


def new_job() -> tuple[Job, Workshop]:
    workshop = Workshop()
    return Job(ComputedJob("job-1"), workshop), workshop


def test_whoever_asks_twice_waits_for_one_answer() -> None:
    job, workshop = new_job()
    workshop.go.clear()
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(job.prepare, a_job(), "coordinator") for _ in range(4)]
        time.sleep(0.1)
        workshop.go.set()
        found = {answer.result(5) for answer in answers}
    assert len(found) == 1 and workshop.compiled == 1
    assert [known.attempt for known in workshop.remembered] == [1]
    assert job.state.state is State.READY and workshop.doors.ended == ["started"]


def test_a_refusal_is_the_answer_to_all_and_burns_the_attempt() -> None:
    job, workshop = new_job()
    workshop.error = Refused("the policy says no.", party="party-0")
    with pytest.raises(Refused, match="policy"):
        job.prepare(a_job(), "coordinator")
    with pytest.raises(JobFailed, match="the policy says no"):
        job.prepare(a_job(), "coordinator")
    workshop.error = None
    assert job.prepare(a_job(2), "coordinator").rounds
    assert [known.attempt for known in workshop.remembered] == [1, 2]


def test_an_accident_tells_a_number_and_no_more() -> None:
    job, workshop = new_job()
    workshop.error = RuntimeError("0x1337 is a share")
    with pytest.raises(MasqueError, match="incident") as raised:
        job.prepare(a_job(), "coordinator")
    assert "share" not in str(raised.value) and "share" not in job.state.reason


def test_an_abort_while_compiling_leaves_nothing_behind() -> None:
    job, workshop = new_job()
    workshop.go.clear()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(job.prepare, a_job(), "coordinator")
        time.sleep(0.1)
        job.abort("coordinator", 1, "changed my mind")
        workshop.go.set()
        with pytest.raises(JobFailed, match="changed my mind"):
            answer.result(5)
    assert workshop.doors.ended[-1] == "let go" and "started" not in workshop.doors.ended


def test_what_fails_while_nobody_asks_is_told_when_somebody_does() -> None:
    job, workshop = new_job()
    job.prepare(a_job(), "coordinator")
    job._break(1, Unavailable("the dealer is gone.", service="dealer"))
    assert workshop.doors.ended == ["started", "aborted: the dealer is gone.", "closed", "let go"]
    with pytest.raises(JobFailed, match="the dealer is gone") as raised:
        job.begin("coordinator", 1, 0)
    assert raised.value.where["service"] == "dealer" and len(workshop.numbers) == 1


@pytest.mark.parametrize(
    ("error", "again"), [(Unavailable("the dealer is gone."), True), (Refused("no."), False)]
)
def test_peers_hear_whether_another_attempt_may_go_well(error: MasqueError, again: bool) -> None:
    job, workshop = new_job()
    job.prepare(a_job(), "coordinator")
    job._break(1, error)
    assert workshop.doors.told is not None and passing(workshop.doors.told) is again


def test_a_silent_coordinator_loses_its_job() -> None:
    job, workshop = new_job()
    assert not job.overdue(0.0, 900.0)
    job.prepare(a_job(), "coordinator")
    assert not job.overdue(10.0, 900.0)
    assert job.overdue(0.0, 900.0) and workshop.doors.ended[-1] == "let go"
    with pytest.raises(JobFailed, match="silent"):
        job.begin("coordinator", 1, 0)


def test_a_coordinator_that_renews_its_lease_keeps_its_job() -> None:
    job, _ = new_job()
    job.prepare(a_job(), "coordinator")
    job.touched -= 100
    job.renew("coordinator", 1)
    assert not job.overdue(50.0, 900.0)
    job.touched -= 100
    with pytest.raises(ProtocolError, match="belongs to coordinator"):
        job.renew("stranger", 1)
    with pytest.raises(ProtocolError, match="attempt 2"):
        job.renew("coordinator", 2)
    assert job.overdue(50.0, 900.0), "others renew nothing"
    with pytest.raises(JobFailed, match="silent"):
        job.renew("coordinator", 1)


def test_the_end_of_a_job_destroys_its_checkpoints_but_not_at_a_strangers_word(
    tmp_path: Path,
) -> None:
    checkpoints = kept_in(tmp_path)
    jobs = jobs_in(tmp_path, Workshop())
    taken = ComputedJob("job-1", State.PREPARING, "coordinator", 1, subject=a_job().subject())
    Memory(tmp_path / "jobs").store(taken)
    shares = {"w": np.arange(4, dtype=np.uint64)}
    checkpoint = Checkpoint("job-1", 1, 2, False, a_job().subject(), shares)
    checkpoints.begin("job-1", 1)
    checkpoints.write(checkpoint, a_job().canonical(), None)
    jobs.forget("job-1", "stranger")
    assert checkpoints.read("job-1", 1, 2).subject == a_job().subject()
    jobs.forget("unknown", "coordinator")
    jobs.forget("job-1", "coordinator")
    assert checkpoints.jobs() == {}


class Trained:
    """An interpreter that has just run a training round."""

    stopped, round = False, 2

    def run_round(self, k: int) -> None:
        """Opens the bit that says so."""
        self.stopped, self.round = True, k + 1

    def skip_round(self, k: int) -> None:
        self.round = k + 1

    def state(self) -> dict[str, Any]:
        return {"gram": np.arange(4, dtype=np.uint64)}


def trained(checkpoints: Checkpoints, resume: Resume | None = None) -> Attempt:
    """An attempt of which a training round can be committed."""
    doors = Doors()
    doors.checkpoints = checkpoints
    job = a_job().at_attempt(2 if resume else 1, resume)
    program = compile_handmade(job)
    attempt = Attempt(job, program, 0, [[]] * len(program.rounds), {}, cast(Any, doors))
    attempt._party = cast(Any, Trained())
    attempt.start()
    return attempt


def test_what_is_committed_tells_that_training_had_stopped_before(tmp_path: Path) -> None:
    """The interpreter of a later attempt is not told the bit again."""
    checkpoints = kept_in(tmp_path)
    attempt = trained(checkpoints, Resume(attempt=1, round=1, stopped=True))
    assert attempt.stopped and attempt.skips(2) and not attempt.skips(1)
    assert attempt.commit(1)
    assert checkpoints.read(attempt.job.job_id, 2, 2).stopped
    assert not trained(checkpoints).stopped


def test_the_round_that_stops_training_is_committed_and_none_after_it(tmp_path: Path) -> None:
    """Though it is one of those that are left out once training has stopped."""
    checkpoints = kept_in(tmp_path)
    attempt = trained(checkpoints)
    assert not attempt.skips(2)
    assert attempt.run(2) and attempt.skips(2) and attempt.commit(2)
    assert checkpoints.read(attempt.job.job_id, 1, 3).stopped
    assert not attempt.run(3)


def test_a_commit_that_meets_the_end_of_its_job_leaves_nothing_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is about to write as the coordinator says that all of it is over."""
    checkpoints = kept_in(tmp_path)
    attempt = trained(checkpoints)
    write = checkpoints.write

    def late(*arguments: Any) -> bool:
        attempt.abort(JobFailed("cancelled by analyst"))
        checkpoints.forget(attempt.job.job_id)
        return write(*arguments)

    monkeypatch.setattr(checkpoints, "write", late)
    with pytest.raises(JobFailed, match="cancelled by analyst"):
        attempt.commit(1)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_commit_that_meets_the_end_of_its_attempt_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints = kept_in(tmp_path)
    attempt = trained(checkpoints)
    assert attempt.commit(1)
    party = attempt._party
    attempt.abort(JobFailed("party-1 is gone"))
    attempt._party = party  # its worker was just about to write
    with pytest.raises(JobFailed, match="party-1 is gone"):
        attempt.commit(2)
    assert checkpoints.read(attempt.job.job_id, 1, 2).shares["gram"].tolist() == [0, 1, 2, 3]
    with pytest.raises(NotFound):
        checkpoints.read(attempt.job.job_id, 1, 3)


def test_a_later_attempt_ends_the_earlier_one() -> None:
    job, workshop = new_job()
    job.prepare(a_job(), "coordinator")
    job.prepare(a_job(2), "coordinator")
    assert workshop.doors.ended[:2] == ["started", "aborted: a later attempt has begun."] or (
        "let go" in workshop.doors.ended
    )
    with pytest.raises(ProtocolError, match="attempt 1"):
        job.begin("coordinator", 1, 0)
    assert job.state.state is State.READY and job.state.attempt == 2


def test_a_party_remembers_attempts_through_a_crash(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "jobs")
    jobs = jobs_in(tmp_path, Workshop())
    assert memory.recall("job-1").state is State.ABSENT
    taken = ComputedJob("job-1", State.PREPARING, "coordinator", 3, subject=a_job().subject())
    memory.store(taken)
    found = jobs.take_up("job-1")
    assert found.state.state is State.FAILED and found.state.attempt == 3
    with pytest.raises(ProtocolError, match="attempt 2"):
        found.prepare(a_job(2), "coordinator")
    with pytest.raises(JobFailed, match="restarted"):
        found.prepare(a_job(3), "coordinator")
    assert found.prepare(a_job(4), "coordinator").rounds
    (tmp_path / "jobs" / "job-2.json").write_text("{")
    with pytest.raises(MasqueError, match="another id"):
        jobs.take_up("job-2")


def test_there_is_room_for_so_many_jobs(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, Workshop(), capacity=1)
    jobs.take_up("job-1").prepare(a_job(), "coordinator")
    assert jobs.busy == 1 and jobs.take_up("job-1").busy
    with pytest.raises(Refused, match="busy with 1 jobs"):
        jobs.take_up("job-2")
    jobs.find("job-1").abort("coordinator", 1, "enough")
    assert not jobs.take_up("job-2").busy


def test_the_numbers_of_an_attempt_are_counted_once() -> None:
    job, workshop = new_job()
    job.prepare(a_job(), "coordinator")
    attempt = job._attempt
    assert attempt is not None and attempt.close() and not attempt.close()
    job.abort("coordinator", 1, "late")
    assert not workshop.numbers
    assert not attempt.abort(JobFailed("again"))
