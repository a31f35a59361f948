"""Whole jobs with real services, some of which are killed, stopped or missing."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator

import grpc
import pytest

from masque.client import datasets, jobs, opening, processes, sharing
from masque.client.services import Services
from masque.errors import (
    Conflict,
    IdentityError,
    JobFailed,
    NotFound,
    Refused,
    SpecError,
    Unavailable,
)
from masque.jobs import spec
from masque.v1 import coordinator_pb2 as messages
from masque.v1.coordinator_pb2_grpc import CoordinatorStub
from masque.wire.failures import translating
from masque.wire.identity import Identity, Role
from masque.wire.tls import find_credentials, open_channel
from tests.client.networks import LONG, Running, job_text, running, write_small
from tests.waiting import until

HUNG = "'?party-2'?.* stopped answering"
GONE = "'?party-2'?.* (closed the connection|stopped answering|does not answer|broke off)"
"""What is said of a party that is suspended, or killed, in the middle of a training round."""

WITHIN = 10.0
"""Seconds in which everybody must know who is at fault."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("coordinator")) as made:
        yield made


def finish(net: Running, job_id: str) -> jobs.JobEvent:
    return jobs.finished(net.services, job_id)


def test_a_job_runs_and_its_history_can_be_watched_again(net: Running) -> None:
    job_id = net.submit()
    last = finish(net, job_id)
    assert last.state == "succeeded"
    assert last.progress.of == last.progress.round > 2
    assert last.progress.exchanges > 0
    assert last.progress.bytes_sent > 0
    again = [event.state for event in jobs.watch(net.services, job_id)]
    assert again[0] == "submitted"
    assert again[1] == "preparing"
    assert again[-2:] == ["finishing", "succeeded"]
    result = opening.fetch(net.services, job_id)
    assert result.metrics["accuracy"] > 0.7
    assert result.model.features == ("x", "z")


def test_submitting_twice_the_same_is_submitting_once(net: Running) -> None:
    first = net.submit(job_id="once")
    assert net.submit(job_id="once") == first == "once"
    with pytest.raises(Conflict, match="There are two specs for one job id, once"):
        net.submit(epochs=3, job_id="once")
    assert [view.job_id for view in jobs.listed(net.services)].count("once") == 1
    finish(net, "once")
    assert net.submit(job_id="once") == "once", "also when it has ended"


def test_what_does_not_fit_is_refused_at_once(net: Running) -> None:
    before = len(jobs.listed(net.services))
    text = job_text().replace("left", "lefd")
    with pytest.raises(SpecError, match=r"data.rows.0. 'lefd' is not a shared data set") as caught:
        jobs.submit(net.services, text, spec.parse(text))
    assert "Did you mean 'left'?" in str(caught.value)
    text = job_text().replace("label: y", "label: x")
    with pytest.raises(SpecError, match="'x' is not the label of 'left'"):
        jobs.submit(net.services, text, spec.parse(text))
    assert len(jobs.listed(net.services)) == before


def test_a_recipients_key_needs_its_proof(net: Running) -> None:
    request = messages.SubmitRequest(spec_yaml=job_text(), job_id="forged")
    key = jobs.recipient_keys(net.services, ["analyst"])[0]
    request.recipients.append(messages.RecipientKey(name="analyst", key="ab" * 32, proof=key.proof))
    with (
        pytest.raises(IdentityError, match="that of another name or key"),
        net.services.coordinator.calling() as stub,
    ):
        stub.Submit(request, timeout=10)


def test_a_job_needs_its_clients_signature(net: Running) -> None:
    """At once, and before anybody else is asked."""
    text, before = job_text(), len(jobs.listed(net.services))
    good = jobs.submission_request(net.services, text, spec.parse(text), "signed")
    changes = {
        "its client 'analyst' has not signed it": {"submission": ""},
        "has signed it with other content": {"spec_yaml": job_text(epochs=3)},
        "has signed it under another id": {"job_id": "another"},
        "cannot be read": {"submission": good.submission.replace("AAAA", "")[:-9]},
    }
    for why, change in changes.items():
        request = messages.SubmitRequest()
        request.CopyFrom(good)
        for field, value in change.items():
            setattr(request, field, value)
        with (
            pytest.raises(Refused, match=why) as caught,
            net.services.coordinator.calling() as stub,
        ):
            stub.Submit(request, timeout=10)
        assert caught.value.where["rule"] == "submission"
    assert len(jobs.listed(net.services)) == before


def test_only_clients_are_served(net: Running) -> None:
    credentials = find_credentials(net.network.home / "party-1" / "certificates")
    who, address = net.services.coordinator.identity, net.services.coordinator.address
    calls = {
        "Submit": messages.SubmitRequest(),
        "List": messages.ListJobsRequest(),
        "Cancel": messages.CancelRequest(),
    }
    with open_channel(address, who, credentials) as channel:
        stub = CoordinatorStub(channel)
        for name, request in calls.items():
            refusal = f"may not call .*{name}: it serves the role"
            with pytest.raises(IdentityError, match=refusal), translating(who):
                getattr(stub, name)(request, timeout=5)
        described = stub.Describe(messages.DescribeCoordinatorRequest(), timeout=10)
    assert described.dealer.serving
    assert [party.name for party in described.parties] == ["party-1", "party-2"]
    assert all(party.serving for party in described.parties)


def test_results_before_the_end_and_for_strangers(net: Running) -> None:
    with pytest.raises(NotFound, match="There is no job 'nothing' at this coordinator"):
        opening.fetch(net.services, "nothing")
    job_id = net.submit(LONG)
    with pytest.raises(Conflict, match=f"Job {job_id} has no result yet: it is"):
        opening.fetch(net.services, job_id)
    assert jobs.cancel(net.services, job_id) == "cancelled"
    with pytest.raises(JobFailed, match=f"Job {job_id} was cancelled by analyst"):
        opening.fetch(net.services, job_id)
    short = net.submit()
    finish(net, short)
    with pytest.raises(NotFound, match="sealed nothing for 'mallory'") as caught:
        opening.fetch(net.services, short, "mallory")
    assert caught.value.hint == "It sealed results for analyst."


def test_cancelling_ends_a_job_everywhere(net: Running) -> None:
    job_id, waiting = net.submit(LONG), net.submit()
    net.until_training(job_id)
    started = time.monotonic()
    assert jobs.cancel(net.services, job_id) == "cancelled"
    with pytest.raises(JobFailed, match="was cancelled by analyst"):
        finish(net, job_id)
    with pytest.raises(Conflict, match=f"job {job_id} cannot be cancelled: it is cancelled"):
        jobs.cancel(net.services, job_id)
    finish(net, waiting)
    assert time.monotonic() - started < 20


def test_a_waiting_job_can_be_cancelled(net: Running) -> None:
    first, second = net.submit(LONG), net.submit()
    assert jobs.cancel(net.services, second) == "cancelled"
    assert jobs.cancel(net.services, first) == "cancelled"


def test_nobody_cancels_the_job_of_another(net: Running) -> None:
    from masque.wire.authority import open_authority

    job_id = net.submit(LONG)
    home = net.network.home
    other = Identity("local", Role.CLIENT, "other")
    open_authority(home / "authority").issue(other, home / "other")
    profile = net.services.profile
    credentials = find_credentials(home / "other")
    refusal = f"Job {job_id} was submitted by 'analyst'"
    with Services(profile, credentials) as stranger, pytest.raises(Refused, match=refusal):
        jobs.cancel(stranger, job_id)
    jobs.cancel(net.services, job_id)


def waits_for(net: Running, job_id: str, culprit: str) -> jobs.JobEvent:
    """The event by which a job that was broken off says whom it waits for."""
    started = time.monotonic()
    for event in jobs.watch(net.services, job_id):
        assert not event.ended, event.error
        if event.progress.culprit == culprit:
            assert time.monotonic() - started < WITHIN
            return event
    raise AssertionError("a watch that ends says so")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_party_gone_in_the_middle_is_named_and_the_job_goes_on_when_it_is_back(
    net: Running, how: signal.Signals
) -> None:
    job_id = net.submit(LONG)
    net.until_training(job_id)
    os.kill(net.pid("party-2"), how)
    try:
        event = waits_for(net, job_id, "party-2")
        assert event.state == "waiting"
        reason = event.progress.reason
        assert re.search(r"\(in training round 'epoch \d+[^']*'\)$", reason), reason
        said = HUNG if how == signal.SIGSTOP else GONE
        assert re.search(said, reason), reason
        assert event.progress.round > 0, "what it goes on from"
    finally:
        net.revive("party-2")
    last = finish(net, job_id)
    assert last.state == "succeeded"
    assert last.progress.attempt > 1
    assert opening.fetch(net.services, job_id).metrics["accuracy"] > 0.7
    assert finish(net, net.submit()).state == "succeeded", "the others stayed usable"


def test_a_dealer_that_is_down_is_waited_for_and_named(net: Running) -> None:
    os.kill(net.pid("dealer"), signal.SIGKILL)
    try:
        job_id, given_up = net.submit(), net.submit()
        event = waits_for(net, job_id, "dealer")
        assert event.state == "submitted", "no attempt was spent on it"
        assert jobs.cancel(net.services, given_up) == "cancelled"
    finally:
        net.revive("dealer")
    assert finish(net, job_id).progress.attempt == 1


def test_a_party_that_is_down_is_named_when_submitting(net: Running) -> None:
    os.kill(net.pid("party-1"), signal.SIGKILL)
    try:
        with pytest.raises(Unavailable, match=r"Party 'party-1' at .* (does not|closed)"):
            net.submit()
    finally:
        net.revive("party-1")


def test_a_party_that_dies_during_an_upload_leaves_nothing_anywhere(net: Running) -> None:
    table = write_small(net.files / "wide.csv", rows=120_000)

    def kill(phase: str, done: int, total: int | None) -> None:
        if phase == "share" and done < 60_000:
            place = net.place("party-2")
            pid = processes.pid_of(place)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)

    try:
        with pytest.raises(Unavailable, match=r"Party 'party-2' at "):
            sharing.share(
                net.services.parties, table, net.files / "schema.yaml", "wide", progress=kill
            )
        assert "wide" not in [held.table.name for held in datasets.held(net.services.parties[0])]
    finally:
        net.revive("party-2")
    shared = sharing.share(net.services.parties, table, net.files / "schema.yaml", "wide")
    assert shared.info.rows == 120_000
    assert datasets.delete(net.services.parties, "wide") == ("party-1", "party-2")


def test_a_killed_coordinator_remembers(net: Running) -> None:
    done = net.submit()
    finish(net, done)
    job_id, waiting = net.submit(LONG), net.submit()
    net.until_training(job_id)
    os.kill(net.pid("coordinator"), signal.SIGKILL)
    with pytest.raises(Unavailable):
        finish(net, job_id)
    net.revive("coordinator")
    last = finish(net, job_id)
    assert (last.state, last.progress.attempt) == ("succeeded", 2)
    states = [event.state for event in jobs.watch(net.services, job_id)]
    assert "waiting" in states, "its history says that it was broken off"
    assert opening.fetch(net.services, done).has_model
    assert finish(net, waiting).state == "succeeded", "what waited runs"


def test_a_party_that_was_away_at_the_end_of_a_job_destroys_its_checkpoints_when_it_is_back(
    net: Running,
) -> None:
    job_id = net.submit(LONG)
    net.until_training(job_id)
    kept = net.network.home / "party-2" / "data" / "checkpoints" / job_id
    until(kept.exists, "no checkpoint is kept")
    os.kill(net.pid("party-2"), signal.SIGKILL)
    try:
        assert jobs.cancel(net.services, job_id) == "cancelled"
        os.kill(net.pid("coordinator"), signal.SIGKILL)
    finally:
        net.revive("coordinator", "party-2")
    until(lambda: not kept.exists(), "the checkpoints stay")


def test_a_stopped_coordinator_parks_its_jobs_and_ends_quickly(net: Running) -> None:
    job_id = net.submit(LONG)
    net.until_training(job_id)
    watching = jobs.watch(net.services, job_id)
    assert next(watching).state == "submitted"
    started = time.monotonic()
    net.revive("coordinator")
    assert time.monotonic() - started < 20
    last = finish(net, job_id)
    assert (last.state, last.progress.attempt) == ("succeeded", 2)
    assert finish(net, net.submit()).state == "succeeded"


def test_nothing_secret_was_stored_or_logged(net: Running) -> None:
    log = net.place("coordinator").log.read_text()
    assert '"event": "job"' in log
    for word in ("Traceback", "incident"):
        assert word not in log
    with sqlite3.connect(net.network.home / "coordinator" / "jobs.sqlite") as database:
        items = list(database.execute("SELECT recipient, output, content FROM sealed"))
    database.close()
    sealed = [content for recipient, _, content in items if recipient]
    assert sealed
    assert all(content.startswith(b"masque-sealed-1") for content in sealed)
    signed = [json.loads(content) for recipient, _, content in items if not recipient]
    assert signed
    assert {output for recipient, output, _ in items if not recipient} == {"receipt"}
    for receipt in signed:
        assert receipt.keys() == {"statement", "certificate", "signature"}
        for disclosed in receipt["statement"]["disclosures"]:
            assert disclosed.keys() == {"what", "bits", "to"}


def test_grpc_is_not_confused_by_a_plain_text_client(net: Running) -> None:
    address = net.services.coordinator.address
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        CoordinatorStub(channel).List(messages.ListJobsRequest(), timeout=3)
    assert jobs.listed(net.services, 1)
