"""Results wait on disk at a party until they are fetched, and leave it in one attempt only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masque.errors import Conflict, JobFailed, MasqueError, ProtocolError, Refused
from masque.jobs.bound import Resume
from masque.jobs.compile import compile_job
from masque.jobs.states import State
from masque.v1 import party_pb2
from services.party.deliveries import Deliveries
from services.party.preparing import check_released_once
from services.party.results import Sealed
from tests.jobs.test_ledger import opened as a_ledger
from tests.jobs.test_privacy import private
from tests.services.handmade import STEPS, gram
from tests.services.test_dealer import a_job as a_bound_job
from tests.services.test_job import Workshop, jobs_in, new_job
from tests.services.test_party import a_job, ledger
from tests.services.village import CALL, Village, patients

ITEMS = (Sealed("weights", "analyst", b"\x00\xff"), Sealed("receipt", "", b"{}"))


def forget(village: Village, name: str, job_id: str) -> None:
    with village.party(name) as stub:
        stub.Forget(party_pb2.ForgetJobRequest(job_id=job_id), timeout=CALL)


def waiting(village: Village, name: str) -> list[str]:
    folder = village.services[name].directory / "data" / "results"
    return sorted(path.name for path in folder.iterdir())


def test_a_party_that_was_killed_hands_over_what_it_had_computed(village: Village) -> None:
    job = a_job(village)
    village.run(job)
    before = {name: ledger(village, name, job) for name in village.names}
    for name in village.names:
        village.services[name].kill()
    for name in village.names:
        village.revive(name)
    assert np.array_equal(village.result(job, "gram"), gram(patients()[0], 3 * STEPS))
    assert {name: ledger(village, name, job) for name in village.names} == before
    for name in village.names:
        forget(village, name, job.job_id)
        assert waiting(village, name) == []
        with pytest.raises(JobFailed, match="the job has ended"):
            village.fetch(name, job)


def test_a_job_whose_results_were_fetched_is_never_run_again(village: Village) -> None:
    """Else a coordinator gets fresh noise of a private job as often as it likes."""
    job = a_job(village)
    village.run(job)
    village.fetch("party-a", job)
    again = (job.at_attempt(2), job.at_attempt(3, Resume(attempt=1, round=2, stopped=False)))
    for later in again:
        with pytest.raises(ProtocolError, match="which has ended"):
            village.prepare_party("party-a", later)
    village.services["party-a"].kill()
    village.revive("party-a")
    village.fetch("party-a", job)
    forget(village, "party-a", job.job_id)
    for later in again:
        with pytest.raises(ProtocolError, match="which has ended"):
            village.prepare_party("party-a", later)
    forget(village, "party-b", job.job_id)
    with pytest.raises(ProtocolError, match="which has ended"):
        village.prepare_party("party-b", job.at_attempt(2))


def test_what_nobody_has_fetched_goes_with_a_later_attempt(village: Village) -> None:
    job = a_job(village)
    village.run(job)
    later = job.at_attempt(2)
    village.run(later)
    with pytest.raises(ProtocolError, match="in attempt 2"):
        village.fetch("party-a", job)
    assert np.array_equal(village.result(later, "gram"), gram(patients()[0], 3 * STEPS))
    for name in village.names:
        forget(village, name, job.job_id)


def test_two_jobs_at_once_do_not_keep_models_under_one_name(village: Village) -> None:
    keep: dict[str, Any] = {"model_output": {"keep_shares": "twice"}}
    first = a_job(village, **keep)
    second = village.bound(list(first.tables), training__epochs=3, **keep)
    village.prepare(first)
    with pytest.raises(Conflict, match=f"job {first.job_id} is under way") as error:
        village.prepare_party("party-a", second)
    assert error.value.where["field"] == "model_output.keep_shares"
    for name in village.names:
        forget(village, name, first.job_id)


# -- without processes ---------------------------------------------------------------------------


def test_a_delivery_is_what_was_stored(tmp_path: Path) -> None:
    deliveries = Deliveries(tmp_path / "results")
    assert deliveries.find("job-1") is None
    deliveries.store("job-1", 2, b"digest", ITEMS)
    assert deliveries.read("job-1", 2) == ITEMS and deliveries.jobs() == ["job-1"]
    with pytest.raises(MasqueError, match="attempt 1, cannot be read") as error:
        deliveries.read("job-1", 1)
    assert error.value.where["results"] == "lost"
    deliveries.discard("job-1")
    deliveries.discard("job-1")
    assert deliveries.jobs() == []


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{}",
        b"[]",
        b'{"attempt": 1}',
        b"[" * 100_000,
        b'{"attempt": 1, "digest": "00", "items": [["a", "b", "!"]]}',
        b'{"attempt": 1, "digest": "0", "items": []}',
        b'{"attempt": 1, "digest": "00", "items": [1]}',
    ],
)
def test_damaged_results_are_computed_again(tmp_path: Path, damaged: bytes) -> None:
    """At a start as well: the party serves."""
    deliveries = Deliveries(tmp_path / "results")
    (tmp_path / "results" / "job-1.json").write_bytes(damaged)
    assert deliveries.find("job-1") is None
    jobs_in(tmp_path, Workshop())
    assert deliveries.jobs() == []


def test_results_of_an_attempt_that_was_given_up_are_gone_after_a_start(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, Workshop())
    deliveries = Deliveries(tmp_path / "results")
    deliveries.store("job-1", 1, b"digest", ITEMS)
    job = jobs.take_up("job-1")
    job.prepare(a_bound_job(2), "coordinator")
    assert jobs_in(tmp_path, Workshop()).all() == [] and deliveries.jobs() == []


def test_what_comes_too_late_is_not_published() -> None:
    """The worker of an attempt that was given up meanwhile."""
    job, workshop = new_job()
    job.prepare(a_bound_job(), "coordinator")
    attempt = job._attempt
    assert attempt is not None
    job.abort("coordinator", 1, "changed my mind")
    with pytest.raises(JobFailed, match="changed my mind"):
        job._finish(attempt)
    assert workshop.stored == {}


def test_a_private_model_is_opened_to_all_once(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    job = private(model_output={"open_to_all": True})
    program = compile_job(job)
    assert program.release is not None
    later = job.at_attempt(3)
    check_released_once(later, program, ledger, "party-0")
    ledger.record(job.job_id, 2, str(program.release), 0, program.release.to)
    with pytest.raises(Refused, match="other noise") as error:
        check_released_once(later, program, ledger, "party-0")
    assert error.value.where["rule"] == "privacy"
    sealed = private()
    check_released_once(sealed.at_attempt(3), compile_job(sealed), ledger, "party-0")


def test_results_that_are_lost_end_no_job() -> None:
    """Nothing was handed over: another attempt may compute them again."""
    job, workshop = new_job()
    job.prepare(a_bound_job(), "coordinator")
    job.state = replace(job.state, state=State.FINISHING)
    job._stored = True
    with pytest.raises(KeyError):
        job.fetch("coordinator", 1)
    assert not job.state.over and workshop.stored == {}
    assert job.prepare(a_bound_job(2), "coordinator").rounds
