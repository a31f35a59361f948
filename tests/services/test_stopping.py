"""SIGTERM: health says so first, what can end in time ends, the rest ends in good order."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from masque.client import jobs, opening, processes
from masque.errors import JobFailed, MasqueError, Unavailable
from masque.jobs import spec
from masque.jobs.bound import BoundJob
from masque.v1 import party_pb2
from masque.wire import preflight
from masque.wire.identity import Identity, Role
from tests.client.networks import Running, job_text, running
from tests.services.handmade import STEPS, gram
from tests.services.village import PROJECT, Service, Village, patients, upload_messages
from tests.waiting import PATIENCE, until

ENDLESS = 10_000
"""Epochs: minutes of training, and more material than a dealer deals ahead."""

SERVICES = ("dealer", "party-2", "coordinator")


# -- whole networks ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Services with time to spare, and parties that hold little material in advance."""
    with running(tmp_path_factory.mktemp("stopping")) as made:
        for place in made.network.places:
            limits = {"prefetch_bytes": 1 << 20} if place.role == "party" else {}
            configure(place.config, stop_seconds=30.0, **({"limits": limits} if limits else {}))
        made.revive(*(place.name for place in made.network.places))
        yield made


def configure(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def first(net: Running, job_id: str, so: Callable[[jobs.JobEvent], bool]) -> jobs.JobEvent:
    """The first event of a job under way that is so."""
    for event in jobs.watch(net.services, job_id):
        assert not event.ended, event.error
        if so(event):
            return event
    raise AssertionError("a watch that ends says so")


def trains(event: jobs.JobEvent) -> bool:
    """Past what every attempt begins with."""
    return event.state == "training" and event.progress.round > 1


def gone(net: Running, name: str) -> bool:
    return processes.pid_of(net.place(name)) is None


@pytest.mark.parametrize("name", SERVICES)
def test_an_idle_service_ends_at_once(net: Running, name: str) -> None:
    place = net.place(name)
    began = time.monotonic()
    os.kill(net.pid(name), signal.SIGTERM)
    until(lambda: gone(net, name), f"{name} does not end")
    assert time.monotonic() - began < 8, "there was nothing to be waited for"
    assert not place.ready.exists()
    last = place.log.read_text().splitlines()[-1]
    assert '"stopped"' in last, last
    net.revive(name)


@pytest.mark.parametrize("name", SERVICES)
def test_a_job_that_cannot_end_in_time_waits_and_goes_on(net: Running, name: str) -> None:
    """It names who was stopped; so with what waits at a coordinator that is stopped."""
    if name == "dealer":  # it knows no pace: it deals on for as long as it may
        configure(net.place(name).config, stop_seconds=1.0)
        net.revive(name)
    job_id, short = net.submit(ENDLESS), net.submit()
    net.until_training(job_id)
    began = time.monotonic()
    os.kill(net.pid(name), signal.SIGTERM)
    until(lambda: gone(net, name), f"{name} does not end")
    assert time.monotonic() - began < 25, "it did not use up its time"
    if name == "coordinator":
        net.revive(name)
    event = first(net, job_id, lambda event: event.state == "waiting")
    who = "the coordinator" if name == "coordinator" else name
    assert event.progress.reason == f"{who} was stopped"
    assert event.progress.culprit == ("" if name == "coordinator" else name)
    committed = event.progress.round
    assert committed > 0, "the rounds that all parties have done are not lost"
    if name != "coordinator":
        net.revive(name)
    again = first(net, job_id, lambda event: event.progress.attempt > 1 and trains(event))
    assert again.progress.round >= committed, "it goes on where it was"
    assert jobs.finished(net.services, short).state == "succeeded"
    assert jobs.cancel(net.services, job_id) == "cancelled"
    assert "incident" not in net.place(name).log.read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_a_job_that_can_end_in_time_ends_well(net: Running, name: str) -> None:
    configure(net.place(name).config, stop_seconds=60.0)
    net.revive(name)
    text = job_text(40).replace("name: small", f"name: short-{name}")
    job_id = jobs.submit(net.services, text, spec.parse(text))
    net.until_training(job_id)
    os.kill(net.pid(name), signal.SIGTERM)
    until(lambda: gone(net, name), f"{name} does not end")
    net.revive(name)
    assert jobs.finished(net.services, job_id).state == "succeeded"
    assert opening.fetch(net.services, job_id).has_model


# -- one service, and a test that holds its work in its hands ------------------------------------


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    made = Village(tmp_path_factory.mktemp("village"), ("party-a", "party-b"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def party(village: Village) -> Iterator[Service]:
    """Party a, which the test stops; it is there again for the next one."""
    service = village.services["party-a"]
    before = (service.directory / "config.yaml").read_text()
    yield service
    (service.directory / "config.yaml").write_text(before)
    if service.process is not None and service.process.poll() is not None:
        village.revive("party-a")


def restart(village: Village, name: str, stop_seconds: float) -> Service:
    service = village.services[name]
    service.stop()
    configure(service.directory / "config.yaml", stop_seconds=stop_seconds)
    village.revive(name)
    return service


def terminate(village: Village, name: str) -> None:
    """SIGTERM; returns once health says NOT_SERVING, at a service that still answers."""
    service = village.services[name]
    assert service.process is not None
    service.process.send_signal(signal.SIGTERM)
    who = Identity(PROJECT, Role(service.role), name)
    prober = village.credentials("client", "prober")
    until(lambda: not preflight.check(service.address, who, prober), f"{name} serves on")


def ended(service: Service, within: float = PATIENCE) -> None:
    assert service.process is not None
    assert service.process.wait(within) == 0, service.log()
    assert not (service.directory / "ready.json").exists()
    assert "Traceback" not in service.log()


def uploading(village: Village, messages: Iterator[Any]) -> Any:
    with village.party("party-a", "client", "owner") as stub:
        return stub.Upload(messages, timeout=PATIENCE)


def test_an_upload_under_way_is_finished_and_another_refused(
    village: Village, party: Service
) -> None:
    """And what was acknowledged is there for the next start."""
    matrix, info = patients()
    first, *rest = upload_messages("slow", "upload-1", info, matrix)
    line: queue.SimpleQueue[Any] = queue.SimpleQueue()
    line.put(first)
    store = party.directory / "data" / "shares"
    before = len(list(store.iterdir()))
    restart(village, "party-a", 3600)
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(uploading, village, iter(line.get, None))
        until(lambda: len(list(store.iterdir())) > before, "the upload does not begin")
        terminate(village, "party-a")
        with pytest.raises(Unavailable, match="party 'party-a' is being stopped"):
            uploading(village, iter(upload_messages("b", "upload-2", info, matrix)))
        for message in (*rest, None):
            line.put(message)
        assert reply.result().rows == len(matrix)
    ended(party)
    village.revive("party-a")
    with village.party("party-a", "client", "owner") as stub:
        listed = stub.ListDatasets(party_pb2.ListDatasetsRequest(), timeout=PATIENCE).datasets
    assert "slow" in [dataset.name for dataset in listed]


def test_an_upload_that_does_not_end_is_cut_off_and_leaves_nothing(
    village: Village, party: Service
) -> None:
    restart(village, "party-a", 0.5)
    matrix, info = patients()
    line: queue.SimpleQueue[Any] = queue.SimpleQueue()
    line.put(upload_messages("endless", "upload-1", info, matrix)[0])
    store = party.directory / "data" / "shares"
    before = set(store.iterdir())
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(uploading, village, iter(line.get, None))
        until(lambda: set(store.iterdir()) != before, "the upload does not begin")
        assert party.process is not None
        party.process.send_signal(signal.SIGTERM)
        with pytest.raises(Unavailable):
            reply.result()
        line.put(None)
    ended(party)
    village.revive("party-a")
    assert set(store.iterdir()) == before


def a_job(village: Village) -> BoundJob:
    matrix, info = patients()
    return village.bound([village.share(matrix, info, "patients")], training__epochs=1)


def run_alone(village: Village, job: BoundJob, begun: threading.Event) -> None:
    """The first training round at party a alone, which waits in vain for party b."""
    with village.party("party-a") as stub:
        request = party_pb2.RunRoundRequest(job_id=job.job_id, attempt=job.attempt, round=0)
        for _ in stub.RunRound(request, timeout=PATIENCE):
            begun.set()


def test_results_that_wait_are_handed_over(village: Village, party: Service) -> None:
    restart(village, "party-a", 3600)
    job = a_job(village)
    village.run(job)
    terminate(village, "party-a")
    assert np.array_equal(village.result(job, "gram"), gram(patients()[0], STEPS))
    ended(party)


def test_a_round_that_takes_longer_is_ended(village: Village, party: Service) -> None:
    restart(village, "party-a", 0.5)
    job, begun = a_job(village), threading.Event()
    village.prepare(job)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_alone, village, job, begun)
        assert begun.wait(PATIENCE)
        assert party.process is not None
        party.process.send_signal(signal.SIGTERM)
        with pytest.raises(JobFailed, match="party 'party-a' was stopped") as caught:
            running.result()
    assert caught.value.where["service"] == "party-a"
    ended(party)


def test_a_second_signal_ends_it_at_once(village: Village, party: Service) -> None:
    restart(village, "party-a", 3600)
    job, begun = a_job(village), threading.Event()
    village.prepare(job)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_alone, village, job, begun)
        assert begun.wait(PATIENCE)
        terminate(village, "party-a")
        assert party.process is not None
        party.process.send_signal(signal.SIGTERM)
        ended(party)
        with pytest.raises(MasqueError):
            running.result()


def test_a_dealer_deals_to_the_end_and_takes_no_other_job(village: Village) -> None:
    """Party b comes for its material when the dealer was told to stop already."""
    dealer = restart(village, "dealer", 3600)
    matrix, info = patients()
    shared = village.share(matrix, info, "patients")
    job, other = (village.bound([shared], training__epochs=1) for _ in range(2))
    village.prepare_dealer(job)
    rounds = village.prepare_party("party-a", job).rounds
    terminate(village, "dealer")
    with pytest.raises(Unavailable, match="dealer 'dealer' was stopped"):
        village.prepare_dealer(other)
    village.prepare_party("party-b", job)
    village.run_rounds(job, range(len(rounds)))
    ended(dealer)
    assert np.array_equal(village.result(job, "gram"), gram(matrix, STEPS))
    village.revive("dealer")
