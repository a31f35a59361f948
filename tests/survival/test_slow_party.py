"""A party that is suspended now and then: the others wait for it, and their memory does not grow.

Far more material passes than any service may hold, while one party takes none of it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from masque.client import jobs, sharing
from masque.client.processes import pid_of
from masque.jobs import spec
from tests.client.networks import SCHEMA, write_small
from tests.client.observed import Series, scrape
from tests.survival.soak import resident
from tests.survival.villages import Village, until, village

BUDGET = 1 << 20
"""Bytes that the dealer keeps for one party, and that a party keeps of one job."""

UNITS, BATCH = 64, 250
LARGEST = 16 * UNITS * BATCH
"""Bytes of one correction, at most: one may come on top of a budget."""

GROWTH = 12 << 20
"""Bytes that a process may grow by while it waits: connections' buffers, and the noise of it."""

STOPS = 4

JOB = f"""\
name: wide
data: {{rows: [wide], label: y, holdout: 0.2}}
model: {{kind: sequential, layers: [{{kind: dense, units: {UNITS}}}, {{kind: relu}}, \
{{kind: dense, units: 1}}]}}
training: {{epochs: 60, batch_size: {BATCH}, optimizer: {{kind: sgd, learning_rate: 0.01}}}}
model_output: {{sealed_to: [analyst]}}
"""

SETTINGS = {
    "dealer": {"limits": {"queue_bytes": BUDGET}, "metrics": {"listen": "127.0.0.1:0"}},
    "party": {
        "limits": {"prefetch_bytes": BUDGET, "jobs": 1},
        "metrics": {"listen": "127.0.0.1:0"},
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    with village(tmp_path_factory.mktemp("slow"), settings=SETTINGS) as made:
        table = write_small(made.net.files / "wide.csv", rows=1250)
        (made.net.files / "schema.yaml").write_text(SCHEMA)
        sharing.share(made.net.services.parties, table, made.net.files / "schema.yaml", "wide")
        yield made


def test_a_slow_party_slows_the_others_and_nobodys_memory_grows(place: Village) -> None:
    job_id = jobs.submit(place.net.services, JOB, spec.parse(JOB))
    place.net.until_training(job_id)
    others = ("dealer", "party-1")
    for _ in range(STOPS):
        before = {name: memory(place, name) for name in others}
        dealt, _ = counted(place)
        with suspended(place, "party-2"):
            assert until(lambda: stands_still(place), 30), "who is not slow waits"
            waiting = {name: figures(place, name) for name in others}
            grown = {name: memory(place, name) - before[name] for name in others}
        for name, found in waiting.items():
            for (what, _), size in found.samples.items():
                if what == "masque_material_waiting_bytes":
                    assert size <= BUDGET + LARGEST, f"{name} has {size} bytes of material"
            assert grown[name] < GROWTH, f"{name} has grown by {grown[name]} bytes"
        assert until(partial(more_than, place, dealt + 8 * BUDGET), 60), "and goes on"
    view = place.ended(job_id)
    assert (view.state, view.attempt) == ("succeeded", 1), "slow is not lost"


def test_a_job_waits_for_parties_that_do_one_at_a_time_without_wasting_attempts(
    place: Village,
) -> None:
    first, second = place.submit("logistic", 100), place.submit("logistic", 2)
    for job_id in (first, second):
        view = place.ended(job_id)
        assert (view.state, view.attempt) == ("succeeded", 1), view.progress.reason


def stands_still(place: Village) -> bool:
    """Does nothing happen at dealer and first party for a moment?"""
    seen = [counted(place)]
    time.sleep(0.5)
    seen.append(counted(place))
    return seen[0] == seen[1]


def more_than(place: Village, dealt: float) -> bool:
    return counted(place)[0] > dealt


def counted(place: Village) -> tuple[float, float]:
    dealer, party = figures(place, "dealer"), figures(place, "party-1")
    return dealer.total("masque_material_bytes_total"), party["masque_protocol_rounds_total"]


def figures(place: Village, name: str) -> Series:
    return scrape(json.loads(place.net.place(name).ready.read_text())["metrics"])


def memory(place: Village, name: str) -> int:
    return resident(place.net.pid(name))


@contextmanager
def suspended(place: Village, name: str) -> Iterator[None]:
    pid = pid_of(place.net.place(name))
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
