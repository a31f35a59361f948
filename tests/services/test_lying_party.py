"""A party that lies to the coordinator: it is named, the job ends or waits, and nothing grows.

Everything is real but what party 2 says: a rogue with its certificate stands before it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from masque.client import jobs, opening
from masque.errors import JobFailed, MasqueError
from masque.v1.party_pb2 import (
    Dataset,
    ListDatasetsReply,
    PreparePartyReply,
    RoundProgress,
    SealedChunk,
)
from tests.client.networks import Running, running
from tests.services.rogue import (
    Change,
    Rogue,
    between,
    changed,
    counting,
    endless,
    said,
    silent,
)

LEASE = 2.0

WITHIN = 60.0
GROWTH = 128 << 20
"""Bytes that the coordinator may have more after a lie."""

PEAK = 256 << 20
"""Bytes that it may have more at any time: a reply of the largest size, read."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("lying")) as made:
        yield made


@pytest.fixture(scope="module")
def rogue(net: Running) -> Iterator[Rogue]:
    with between(net, "party-2", LEASE) as made:
        for job_id in (net.submit(), net.submit()):  # two at once: room for both is counted
            assert jobs.finished(net.services, job_id).state == "succeeded"
        yield made


@pytest.fixture(autouse=True)
def honest(net: Running, rogue: Rogue) -> Iterator[None]:
    """It tells no lie before and after; the coordinator has not grown."""
    process = psutil.Process(net.pid("coordinator"))
    before = process.memory_info().rss
    peak = _peak(process.pid)
    yield
    rogue.lies.clear()
    assert process.is_running()
    assert process.memory_info().rss - before < GROWTH
    assert _peak(process.pid) - max(peak, before) < PEAK
    log = net.place("coordinator").log.read_text()
    assert '"incident"' not in log, log[-3000:]


def _peak(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def failed(net: Running) -> JobFailed:
    """How a job ends to which the rogue lies."""
    with pytest.raises(MasqueError) as raised:
        jobs.finished(net.services, net.submit())
    assert isinstance(raised.value, JobFailed), raised.value
    return raised.value


def waits(net: Running) -> str:
    """Why a job to which the rogue lies waits for party 2; then it is cancelled."""
    job_id, end = net.submit(), time.monotonic() + WITHIN
    for event in jobs.watch(net.services, job_id):
        assert not event.ended, event.error
        assert time.monotonic() < end, "nobody is named"
        if event.state == "waiting":
            assert event.progress.culprit == "party-2", event
            jobs.cancel(net.services, job_id)
            return event.progress.reason
    raise AssertionError("a watch that ends says so")


def test_a_rogue_that_tells_the_truth_changes_nothing(net: Running, rogue: Rogue) -> None:
    assert jobs.finished(net.services, net.submit()).state == "succeeded"


NONE = "tells of {} training rounds, or of names that are none"
ENDS: dict[str, tuple[str, Change, str]] = {
    "another job": (
        "Prepare",
        changed(PreparePartyReply, job_digest=bytes(32)),
        "party-2 has read another job",
    ),
    "no answer at all": ("Prepare", said(), "party-2 has read another job"),
    "no round": ("Prepare", changed(PreparePartyReply, rounds=[]), NONE.format(0)),
    "a million rounds": (
        "Prepare",
        changed(PreparePartyReply, rounds=[f"round {k}" for k in range(10**6)]),
        NONE.format(10**6),
    ),
    "a million rounds without names": (
        "Prepare",
        changed(PreparePartyReply, rounds=[""] * 10**6),
        NONE.format(10**6),
    ),
    "a name without end": (
        "Prepare",
        changed(PreparePartyReply, rounds=["x" * (8 << 20)]),
        NONE.format(1),
    ),
    "a round that is not done": ("RunRound", said(RoundProgress(doing="x")), "that it is done"),
    "a round without a word": ("RunRound", said(), "without saying that it is done"),
    "items that break off": (
        "FetchSealed",
        changed(SealedChunk, more=True),
        "sent sealed results that break off or mix",
    ),
}


@pytest.mark.parametrize("lie", ENDS)
def test_a_lie_ends_the_job_and_names_the_liar(net: Running, rogue: Rogue, lie: str) -> None:
    method, change, words = ENDS[lie]
    rogue.lies[method] = change
    error = failed(net)
    assert "(party-2)" in str(error), error
    assert words in str(error)


def test_another_program_ends_the_job(net: Running, rogue: Rogue) -> None:
    """Who is right, nobody can say who has not compiled it."""
    rogue.lies["Prepare"] = changed(PreparePartyReply, program_digest=bytes(32))
    assert "another program than the others" in str(failed(net))


WAITS: dict[str, tuple[Change, str]] = {
    "silence": (silent(), "no sign of life"),
    "endless progress": (endless(RoundProgress(doing="x" * 900)), ""),
    "endless progress that counts": (counting(), ""),
    "done and committed, and nothing was": (
        said(RoundProgress(done=True, committed=True)),
        "",
    ),
    "told to stop early, and nobody was": (said(RoundProgress(done=True, stopped=True)), ""),
}


@pytest.mark.parametrize("lie", WAITS)
def test_a_job_waits_for_a_party_that_does_not_compute(
    net: Running, rogue: Rogue, lie: str
) -> None:
    rogue.lies["RunRound"], words = WAITS[lie]
    assert words in waits(net)


def test_items_that_never_end_break_off_with_the_job(net: Running, rogue: Rogue) -> None:
    """Empty pieces, as fast as they are taken: see `test_sealed_items` for their end."""
    chunk = SealedChunk(output="weights", recipient="analyst", more=True)
    rogue.lies["FetchSealed"] = endless(chunk)
    job_id, until = net.submit(), time.monotonic() + 1.0
    for event in jobs.watch(net.services, job_id):
        assert not event.ended
        if event.state == "finishing":
            break
    time.sleep(max(0.0, until - time.monotonic()))
    jobs.cancel(net.services, job_id)


def fetched(net: Running) -> opening.Result:
    job_id = net.submit()
    jobs.finished(net.services, job_id)
    return opening.fetch(net.services, job_id)


def test_what_is_sealed_for_somebody_else_is_no_result(net: Running, rogue: Rogue) -> None:
    rogue.lies["FetchSealed"] = changed(SealedChunk, recipient="mallory")
    with pytest.raises(MasqueError, match="party-2"):
        fetched(net)


LISTS: dict[str, Change] = {
    "what is no table": said(ListDatasetsReply(datasets=[Dataset(table_json="[" * 5000)])),
    "a name that is none": changed(ListDatasetsReply, datasets=[Dataset(name="../../left")]),
    "more than may be": said(ListDatasetsReply(datasets=[Dataset(conditions="x" * (65 << 20))])),
}


@pytest.mark.parametrize("lie", LISTS)
def test_a_list_of_data_sets_that_lies_is_told_at_once(
    net: Running, rogue: Rogue, lie: str
) -> None:
    rogue.lies["ListDatasets"] = LISTS[lie]
    with pytest.raises(MasqueError, match="party-2"):
        net.submit()


def test_all_is_well_after_the_liar(net: Running, rogue: Rogue) -> None:
    assert jobs.finished(net.services, net.submit()).state == "succeeded"
