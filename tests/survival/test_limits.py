"""What services lend, and how long a job may take: jobs wait for memory, and end at their time."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from masque.client import jobs
from masque.jobs import spec
from masque.jobs.states import State
from tests.client.networks import LONG
from tests.survival.villages import Village, text_of, village

LENT = 80 << 20
"""Bytes that each party lends: two small jobs declare 64 MiB and a little, three too much."""

BUDGET = 10.0
"""Seconds that a job may take, in the last test."""

LATE = 4.0
"""Seconds more in which everybody must know that it is over."""

RUNNING = {State.PREPARING.value, State.TRAINING.value, State.FINISHING.value}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    settings = {"party": {"limits": {"memory_bytes": LENT}}}
    with village(tmp_path_factory.mktemp("limits"), settings=settings) as made:
        yield made


def test_jobs_wait_for_the_memory_that_they_declare(place: Village) -> None:
    with ThreadPoolExecutor(6) as threads:
        mine = list(threads.map(lambda _: place.submit("logistic", 12), range(6)))
    most, waits = 0, set[tuple[str, str]]()
    while True:
        views = [view for view in place.states() or () if view.job_id in mine]
        most = max(most, sum(view.state in RUNNING for view in views))
        waits |= {(v.progress.culprit, v.progress.reason) for v in views if v.state == "submitted"}
        if len(views) == 6 and all(view.ended for view in views):
            break
        time.sleep(0.05)
    assert [(view.state, view.attempt) for view in views] == [("succeeded", 1)] * 6
    assert most == 2, "as many as there is room for"
    told = [reason for party, reason in waits if party == "party-1"]
    assert any(re.fullmatch(r"waits for room: it needs 3\d MiB, and 1\d are free", r) for r in told)


def test_a_job_that_no_party_can_hold_is_refused_with_what_to_change(place: Village) -> None:
    text = (
        text_of("network", 1)
        .replace("units: 4", "units: 1200")
        .replace("{kind: relu}", "{kind: relu}, {kind: dense, units: 1200}, {kind: relu}")
    )
    job_id = jobs.submit(place.net.services, text, spec.parse(text))
    view = place.ended(job_id)
    assert (view.state, view.attempt) == ("failed", 1)
    assert view.progress.culprit in ("party-1", "party-2")
    said = rf"party '{view.progress.culprit}' lends 80 MiB to jobs, of which 0 are taken, and"
    assert re.search(rf"{said} job {job_id} needs \d+", str(view.error)), view.error
    assert "Its operator can raise limits.memory_bytes" in str(view.error)
    assert place.ended(place.submit("logistic", 1)).state == "succeeded", "others fit"


def test_a_hang_at_the_end_of_a_jobs_time_is_named_with_round_and_operation(
    place: Village,
) -> None:
    """So late that nobody knows yet that the connection is dead."""
    config = place.net.place("coordinator").config
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"job_seconds": BUDGET}))
    place.net.revive("coordinator")
    begun = time.monotonic()
    job_id = place.submit("logistic", LONG)
    place.net.until_training(job_id)
    time.sleep(max(0.0, begun + BUDGET - 2.5 - time.monotonic()))
    pid = place.net.pid("party-2")
    os.kill(pid, signal.SIGSTOP)
    try:
        *_, last = jobs.watch(place.net.services, job_id)
        took = time.monotonic() - begun
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (last.state, last.ended) == ("failed", True)
    assert BUDGET - 1 < took < BUDGET + LATE
    reason = last.progress.reason
    assert "party-2" in last.progress.culprit
    assert re.match("its time was used up while training round 'epoch \\d+[^']*': ", reason), reason
    assert re.search("party-1 waits for party-2 in exchange \\d+", reason), reason
