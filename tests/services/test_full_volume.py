"""Volumes that run full: what was acknowledged stays, the rest is refused, and it mends."""

from __future__ import annotations

import json
import queue
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from masque.client import jobs, processes
from masque.errors import MasqueError, Refused
from masque.jobs.bound import BoundJob
from tests.client.networks import LONG, Running, running
from tests.services.handmade import STEPS, gram
from tests.services.village import CALL, Village, patients, upload_messages
from tests.services.volumes import entering, fill, inside, missing
from tests.waiting import until

LINES = 100
"""More entries of a ledger than a page of a file holds."""


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    """Party a keeps its data on a volume of its own, of 80 MiB."""
    root = tmp_path_factory.mktemp("full")
    if why := missing(root):
        pytest.skip(f"no volume can be mounted here: {why}")
    made = Village(root, ("party-a", "party-b"))
    service = made.services["party-a"]
    (service.directory / "data").mkdir()
    service.entering = entering("80m", service.directory / "data")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def volume(village: Village) -> Iterator[Path]:
    """Where party a keeps its data; what fills it is removed at the end."""
    service = village.services["party-a"]
    assert service.process is not None
    directory = inside(service.process.pid, service.directory / "data")
    yield directory
    (directory / "filler").unlink(missing_ok=True)


def a_job(village: Village, **changes: Any) -> BoundJob:
    matrix, info = patients()
    return village.bound([village.share(matrix, info, "patients")], training__epochs=1, **changes)


def still_works(village: Village) -> None:
    job = a_job(village)
    village.run(job)
    assert np.array_equal(village.result(job, "gram"), gram(patients()[0], STEPS))


def upload(village: Village, messages: Iterator[Any]) -> Any:
    with village.party("party-a", "client", "owner") as stub:
        return stub.Upload(messages, timeout=CALL)


def test_an_upload_that_does_not_fit(village: Village, volume: Path) -> None:
    """Neither one that begins, nor one that was under way; nothing of them is left."""
    matrix, info = patients(rows=20_000, name="many")
    first, *rest = upload_messages("many", "upload-1", info, matrix, rows=1000)
    before = set((volume / "shares").iterdir())
    line: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(upload, village, iter(line.get, None))
        line.put(first)
        until(lambda: set((volume / "shares").iterdir()) != before, "it does not begin")
        filler = fill(volume)
        for message in (*rest, None):
            line.put(message)
        with pytest.raises(Refused, match=r"cannot store .* No space left on device"):
            reply.result()
    assert set((volume / "shares").iterdir()) == before
    with pytest.raises(Refused, match=r"cannot store .* its disk is full"):
        upload(village, iter(upload_messages("few", "upload-2", *patients()[::-1])))
    filler.unlink()
    assert upload(village, iter([first, *rest])).rows == len(matrix)
    still_works(village)


def test_an_attempt_that_cannot_be_noted_is_not_taken(village: Village, volume: Path) -> None:
    job = a_job(village)
    fill(volume)
    with pytest.raises(MasqueError, match=rf"{job.job_id}\.json cannot be written: No space left"):
        village.prepare_party("party-a", job)
    (volume / "filler").unlink()
    village.run(job)
    still_works(village)


def test_nothing_is_opened_that_the_ledger_cannot_hold(village: Village, volume: Path) -> None:
    """The last page of the ledger's file may have room for a line or more: then once again."""
    for _ in range(LINES):
        job = a_job(village, model_output={"open_to_all": True})
        rounds = village.prepare(job)["party-a"].rounds
        village.run_rounds(job, range(len(rounds) - 1))
        fill(volume)
        failures = village.run_round(job, len(rounds) - 1)
        (volume / "filler").unlink()
        told = str(failures["party-a"])
        assert "No space left on device" in told
        if "ledger" in told:
            break
    assert re.search(r"the disclosure ledger \S+ cannot be written: No space", told)
    assert failures["party-b"].where["service"] == "party-a"
    assert not list((volume / "opened").glob("*.json"))
    still_works(village)


def test_a_model_that_cannot_be_kept(village: Village, volume: Path) -> None:
    job = a_job(village, model_output={"keep_shares": "kept-model"})
    rounds = village.prepare(job)["party-a"].rounds
    village.run_rounds(job, range(len(rounds) - 1))
    fill(volume)
    error = village.run_round(job, len(rounds) - 1)["party-a"]
    assert "'kept-model' could not be kept: No space left on device" in str(error)
    (volume / "filler").unlink()
    assert not list((volume / "kept").iterdir()), "not even half of it"
    still_works(village)


# -- the coordinator -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The coordinator keeps its jobs on a volume of 2 MiB."""
    root = tmp_path_factory.mktemp("network")
    if why := missing(root):
        pytest.skip(f"no volume can be mounted here: {why}")
    with running(root) as made:
        place = made.place("coordinator")
        state = place.config.parent / "state"
        state.mkdir()
        values = yaml.safe_load(place.config.read_text())
        place.config.write_text(yaml.safe_dump(values | {"store": str(state / "jobs.sqlite")}))
        processes.stop([place])
        begun = processes.start(place, bound_to_us=True, entering=entering("2m", state))
        processes.wait_until_ready([place], [begun])
        yield made


def test_a_coordinator_without_room_waits_for_it_and_goes_on(net: Running) -> None:
    state = inside(net.pid("coordinator"), net.place("coordinator").config.parent / "state")
    done = net.submit()
    jobs.finished(net.services, done)
    job_id = net.submit(LONG)
    net.until_training(job_id)
    filler = fill(state)
    log = net.place("party-1").log
    until(lambda: f'"{job_id}"' in log.read_text() and "job aborted" in log.read_text(), "goes on")
    with pytest.raises(MasqueError, match=r"job store cannot be written: .*full") as caught:
        any(net.submit() == "" for _ in range(10_000))  # what the file has room for is taken
    assert "Free space" in caught.value.hint and "incident" not in str(caught.value)
    filler.unlink()
    last = jobs.finished(net.services, job_id)
    assert (last.state, last.progress.attempt > 1) == ("succeeded", True)
    assert {view.job_id: view.state for view in jobs.listed(net.services)}[done] == "succeeded"
    assert jobs.finished(net.services, net.submit()).state == "succeeded"
    assert json.loads(log.read_text().splitlines()[-1])["service"] == "party-1"
