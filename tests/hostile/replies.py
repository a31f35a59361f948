"""What services answer, as their callers read it: clients, the doctor, the coordinator, a scrape.

Every reply comes through the generated stub over a channel that answers every call with one text.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any

from masque.client import approvals, datasets, jobs, opening
from masque.client.doctor.findings import Limits
from masque.client.doctor.peer import Examination
from masque.client.doctor.subject import Peer as Called
from masque.client.services import Peer
from masque.errors import Unavailable
from masque.jobs.record import Progress
from masque.v1 import coordinator_pb2, dealer_pb2, host_pb2, party_pb2
from masque.v1.coordinator_pb2_grpc import CoordinatorStub
from masque.v1.dealer_pb2_grpc import DealerStub
from masque.v1.party_pb2_grpc import PartyStub
from masque.wire.failures import pack
from masque.wire.identity import Identity, Role
from masque.wire.measuring import describe
from masque.wire.metrics import MetricsServer
from masque.wire.protocol import protocol_digest
from masque.wire.server import split_address
from services.coordinator.leases import Leases
from services.coordinator.peers import Peers
from services.coordinator.settings import CoordinatorSettings
from tests.hostile.decoder import Decode, Decoder, of_message
from tests.jobs import examples
from tests.wire.conftest import PROJECT, Project

COORDINATOR = {
    "name": "coordinator",
    "project": PROJECT,
    "listen": "127.0.0.1:0",
    "tls": {"directory": "certificates"},
    "store": "jobs.sqlite",
    "dealer": {"name": "dealer", "address": "127.0.0.1:1"},
    "parties": [
        {"name": f"party-{x}", "address": f"127.0.0.1:{p}"} for x, p in (("a", 2), ("b", 3))
    ],
}
"""A coordinator's settings; nobody is there."""

PARTS = 3
"""Messages of a stream."""


Read = Callable[[bytes], Any]


class Said:
    """A channel whose every call, and every message of a stream, is answered by `raw`."""

    raw = b""

    def unary_unary(self, path: str, *, response_deserializer: Read, **_: Any) -> Any:
        return lambda request, timeout=None, **__: response_deserializer(self.raw)

    stream_unary = unary_unary

    def unary_stream(self, path: str, *, response_deserializer: Read, **_: Any) -> Any:
        return lambda request, timeout=None, **__: _Call(response_deserializer, self.raw)

    stream_stream = unary_stream


class _Call:
    def __init__(self, read: Read, raw: bytes) -> None:
        self._parts = iter([raw] * PARTS)
        self._read = read

    def __iter__(self) -> Iterator[Any]:
        return map(self._read, self._parts)

    def add_done_callback(self, callback: Any) -> None:
        """It is never done."""

    def cancel(self) -> None:
        """Nobody minds."""


def decoders(trusted: Project, folder: Path) -> Iterator[Decoder]:
    """All of them, with certificates of `trusted`."""
    yield from _clients(trusted)
    yield from _coordinator(trusted, folder / "replies")
    yield _scrape()


def _after(said: Said, read: Callable[[], object]) -> Decode:
    def decode(raw: bytes) -> object:
        said.raw = raw
        return read()

    return decode


def _clients(trusted: Project) -> Iterator[Decoder]:
    own, said = trusted.credentials("client", "analyst"), Said()

    def peer(role: Role, name: str, stub: Any) -> Peer:
        who = Identity(PROJECT, role, name)
        return Peer(who, "127.0.0.1:1", stub(said), own, lambda: None)

    party = peer(Role.PARTY, "party-a", PartyStub)
    services: Any = SimpleNamespace(coordinator=peer(Role.COORDINATOR, "c", CoordinatorStub))
    bound = examples.bound()
    word = party_pb2.Word(by="ben", yes=False, reason="why")
    waits = party_pb2.WaitingJob(
        job_id=bound.job_id,
        subject=bound.subject(),
        bound_job=bound.canonical(),
        waits_for=["analyst"],
        said=[word],
    )
    waiting = party_pb2.ListApprovalsReply(jobs=[waits], more=2)

    def asked() -> object:
        found, _ = approvals.waiting([party, party])
        return [list(approvals.lines(approvals.described(each))) for each in found]

    told = examples.HOSPITALS[0]
    held = party_pb2.Dataset(
        name=told.name, upload_id=told.upload, owner="o", table_json=told.info.model_dump_json()
    )
    progress = Progress("job-1", 1, "training", "epoch 1", 2, 9, 0.5).to_json()
    problem = pack(Unavailable("Gone.", hint="Wait.")).decode()
    event = coordinator_pb2.Event(
        state="failed", progress_json=progress, error_json=problem, ended=True
    )
    job = coordinator_pb2.Job(
        job_id="j", name="n", state="failed", progress_json=progress, error_json=problem
    )
    value = party_pb2.OpenedValue(output="w", shape=[4], scale=24, values=bytes(32))
    opened = party_pb2.FetchOpenedReply(bound_job=bound.canonical(), values=[value])
    services.parties = (party, party)
    yield of_message(
        "opened results", _after(said, lambda: opening.opened(services, bound)), opened
    )
    yield of_message("waiting jobs", _after(said, asked), waiting, 500)
    sets, list_of_jobs = party_pb2.ListDatasetsReply(datasets=[held] * 2), [job] * 2
    listed = coordinator_pb2.ListJobsReply(jobs=list_of_jobs)
    yield of_message("data sets", _after(said, lambda: datasets.datasets([party, party])), sets)
    yield of_message("job events", _after(said, lambda: list(jobs.watch(services, "j"))), event)
    yield of_message("job list", _after(said, lambda: jobs.listed(services)), listed)
    yield _described(trusted, party, said)


def _described(trusted: Project, party: Peer, said: Said) -> Decoder:
    """What the doctor reads of a service."""
    at = Called(party.identity, party.address)
    looks: Any = Examination(at, None, Limits(), Lock(), 0.0)
    channel: Any = said
    reply = host_pb2.DescribeHostReply(
        name="party-a",
        role="party",
        project=PROJECT,
        version="1",
        protocol=protocol_digest(),
        clock=time.time_ns(),
        certificate_ends=int(time.time()) + 10**6,
        serving=True,
        keeps=True,
        free_bytes=1 << 40,
    )

    def read() -> object:
        return [str(finding) for finding in looks._told(describe(channel, timeout=1.0))]

    return of_message("described host", _after(said, read), reply)


def _coordinator(trusted: Project, folder: Path) -> Iterator[Decoder]:
    """What parties and dealer answer the coordinator, one call after the other."""
    own, said = trusted.credentials("coordinator", "coordinator"), Said()
    channel: Any = said
    settings = CoordinatorSettings.model_validate(COORDINATOR)
    peers: Any = Peers(settings, own)
    peers._dealer = DealerStub(channel)
    peers._parties = dict.fromkeys(peers.names, PartyStub(channel))
    leases, bound = Leases(1.0), examples.bound(parties=peers.names)

    def alive(peer: str, progress: Any) -> None:
        leases.alive(peer, progress)
        leases.late(frozenset(peers.names))

    table = examples.HOSPITALS[0]
    held = party_pb2.Dataset(
        name=table.name, upload_id=table.upload, table_json=table.info.model_dump_json()
    )
    reviewed = party_pb2.ReviewReply(waits_for=["ben"])
    ready = party_pb2.PreparePartyReply(
        job_digest=bound.digest(), program_digest=bytes(32), rounds=["a", "b"]
    )
    dealt = dealer_pb2.PrepareDealerReply(job_digest=bound.digest(), program_digest=bytes(32))
    doing = party_pb2.RoundProgress(
        progress_json=Progress("j", 1, "training").to_json(),
        done=True,
        committed=True,
        doing="waits",
        waits_for="party-b",
        traffic=party_pb2.Traffic(exchanges=3, sent=100),
    )
    sealed = party_pb2.SealedChunk(output="weights", recipient="analyst", sealed=bytes(32))
    lent = party_pb2.DescribePartyReply(name="party-a", memory_lent=1 << 30, jobs_lent=8)
    asked: list[tuple[Any, str, Callable[[], object]]] = [
        (party_pb2.ListDatasetsReply(datasets=[held]), "tables", lambda: peers.tables("party-a")),
        (reviewed, "review", lambda: peers.review("party-a", bound)),
        (lent, "lent", peers.lent),
        (ready, "prepared", lambda: peers.prepare("party-a", bound, 1.0, alive)),
        (dealt, "announced", lambda: peers.prepare("dealer", bound, 1.0, alive)),
        (doing, "round", lambda: peers.run_round("party-a", bound, 0, 1.0, alive)),
        (sealed, "handed over", lambda: peers.fetch("party-a", bound, 1.0, alive)),
    ]
    for reply, name, read in asked:
        yield of_message(f"peer {name}", _after(said, read), reply)


def _scrape() -> Decoder:
    """What anybody sends to the listener of metrics; it lives as long as we do."""
    server = MetricsServer("127.0.0.1:0", lambda: b"# none\n").__enter__()
    accidents: list[BaseException | None] = []
    server._server.handle_error = lambda *_: accidents.append(sys.exc_info()[1])  # type: ignore[method-assign]

    def ask(raw: bytes) -> bytes:
        with socket.create_connection(split_address(server.address), 10.0) as plain:
            answer = b""
            try:
                plain.sendall(raw)
                plain.shutdown(socket.SHUT_WR)
                while part := plain.recv(65536):
                    answer += part
            except ConnectionError:
                pass  # it had heard enough
        assert answer[:5] in (b"HTTP/", b"<!DOC", b"# non", b""), answer[:100]  # of HTTP/0.9 too
        found = [error for error in accidents if not isinstance(error, OSError)]
        assert not found, found
        return answer

    good = b"GET /metrics HTTP/1.0\r\nHost: here\r\nAccept: text/plain\r\n\r\n"
    return Decoder("scrape", ask, [good, b"GET /metrics?a=b HTTP/1.1\r\n\r\n"], 500)
