"""A dealer and parties as real processes with real certificates, and a coordinator's hands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml

from masque.client.ports import free_ports
from masque.data.chunks import checksum
from masque.data.table import TableInfo
from masque.jobs.bound import BoundJob, Recipient, bind
from masque.jobs.fit import SharedTable
from masque.jobs.spec import from_values
from masque.jobs.submission import submission_of
from masque.mpc import sharing
from masque.mpc.types import Ring
from masque.v1 import dealer_pb2, party_pb2
from masque.v1.dealer_pb2_grpc import DealerStub
from masque.v1.party_pb2_grpc import PartyStub
from masque.wire.authority import Authority, create_authority
from masque.wire.failures import translating
from masque.wire.identity import Identity, Role
from masque.wire.outputs import decode_output
from masque.wire.recipients import RecipientKey, create_recipient
from masque.wire.sealing import sealing_context, unseal
from masque.wire.tls import Credentials, find_credentials, open_channel
from tests.jobs.examples import table, values
from tests.services.submitted import submitted

PROJECT = "demo"
COORDINATOR = "coordinator"
CALL = 60.0


def last_of(messages: Iterable[Any]) -> Any:
    """The answer that follows signs of life."""
    *_, answer = messages
    return answer


@dataclass
class Service:
    """One service: its place on disk, its address, its process."""

    role: str
    name: str
    directory: Path
    address: str
    module: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    entering: tuple[str, ...] = ()

    def start(self) -> None:
        log = (self.directory / "log").open("ab")
        config = str(self.directory / "config.yaml")
        with log:
            self.process = subprocess.Popen(
                [*self.entering, sys.executable, "-m", *self.module, "--config", config],
                stderr=log,
                stdout=log,
            )

    def await_ready(self, patience: float = 120.0) -> None:
        until = time.monotonic() + patience
        while not (self.directory / "ready.json").exists():
            assert self.process is not None and self.process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.05)
        assert json.loads((self.directory / "ready.json").read_text())["address"] == self.address

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        (self.directory / "ready.json").unlink(missing_ok=True)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@dataclass
class Village:
    """All of it; `handmade` says whose programs run."""

    root: Path
    names: tuple[str, ...]
    handmade: bool = True
    authority: Authority = field(init=False)
    services: dict[str, Service] = field(default_factory=dict)
    recipient: RecipientKey = field(init=False)
    limits: dict[str, Any] = field(default_factory=dict)
    jobs: int = 0
    signed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.authority = create_authority(self.root / "authority", PROJECT)
        self.credentials("coordinator", COORDINATOR)
        analyst = self.credentials("client", "analyst")
        self.recipient = create_recipient(self.root / "recipients", analyst)
        ports = free_ports(len(self.names) + 1)
        addresses = dict(zip(("dealer", *self.names), ports, strict=True))
        peers = {name: f"127.0.0.1:{addresses[name]}" for name in self.names}
        self._add("dealer", "dealer", addresses["dealer"], {"coordinator": COORDINATOR})
        for name in self.names:
            others = {other: address for other, address in peers.items() if other != name}
            settings = {
                "peers": others,
                "dealer": {"name": "dealer", "address": f"127.0.0.1:{addresses['dealer']}"},
                "coordinator": COORDINATOR,
                "data": "data",
                "recipients": str(self.root / "recipients"),
                "policy": "policy.yaml",
                "limits": self.limits,
            }
            self._add("party", name, addresses[name], settings)
            policy = {"outputs": ["sealed", "kept", "open"]}
            (self.services[name].directory / "policy.yaml").write_text(yaml.safe_dump(policy))

    def _add(self, role: str, name: str, port: int, settings: dict[str, Any]) -> None:
        directory = self.root / name
        directory.mkdir()
        address = f"127.0.0.1:{port}"
        self.authority.issue(Identity(PROJECT, Role(role), name), directory / "certificates")
        common = {
            "name": name,
            "project": PROJECT,
            "listen": address,
            "ready_file": "ready.json",
            "tls": {"directory": "certificates"},
            "log_level": "debug",
            "stop_seconds": 1.0,
        }
        (directory / "config.yaml").write_text(yaml.safe_dump(common | settings))
        module = ("tests.services.handmade", role) if self.handmade else (f"services.{role}",)
        self.services[name] = Service(role, name, directory, address, module)

    def start(self) -> None:
        for service in self.services.values():
            service.start()
        for service in self.services.values():
            service.await_ready()

    def stop(self) -> None:
        for service in self.services.values():
            if service.process is not None and service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        for service in self.services.values():
            if service.process is not None:
                try:
                    service.process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    service.process.kill()
                    raise

    def revive(self, name: str) -> None:
        self.services[name].start()
        self.services[name].await_ready()

    # -- who calls -------------------------------------------------------------------------------

    def credentials(self, role: str, name: str) -> Credentials:
        identity = Identity(PROJECT, Role(role), name)
        directory = self.root / "people" / identity.stem
        if not directory.exists():
            self.authority.issue(identity, directory)
        return find_credentials(directory)

    def stolen(self, name: str) -> Credentials:
        """The certificate of a service of this village."""
        return find_credentials(self.services[name].directory / "certificates")

    @contextmanager
    def channel(self, name: str, credentials: Credentials) -> Iterator[grpc.Channel]:
        service = self.services[name]
        expected = Identity(PROJECT, Role(service.role), name)
        with open_channel(service.address, expected, credentials) as channel:
            yield channel

    @contextmanager
    def party(self, name: str, role: str = "coordinator", who: str = COORDINATOR) -> Iterator[Any]:
        with self.channel(name, self.credentials(role, who)) as channel, translating(name):
            yield PartyStub(channel)

    @contextmanager
    def dealer(self, role: str = "coordinator", who: str = COORDINATOR) -> Iterator[Any]:
        credentials = self.credentials(role, who)
        with self.channel("dealer", credentials) as channel, translating("dealer"):
            yield DealerStub(channel)

    # -- data ------------------------------------------------------------------------------------

    def share(
        self,
        matrix: Ring,
        info: TableInfo,
        name: str,
        *,
        owner: str = "owner",
        replace: bool = True,
    ) -> SharedTable:
        """Upload a matrix of clear fixed-point values as a data set."""
        shares = sharing.split(matrix, len(self.names), os.urandom)
        upload = f"upload-{os.urandom(8).hex()}"
        for party, share in zip(self.names, shares, strict=True):
            with self.party(party, "client", owner) as stub:
                messages = upload_messages(name, upload, info, share, replace=replace)
                stub.Upload(iter(messages), timeout=CALL)
        return SharedTable(name=name, upload=upload, info=info)

    # -- jobs ------------------------------------------------------------------------------------

    def bound(self, tables: Sequence[SharedTable], **changes: Any) -> BoundJob:
        """A job over these data sets, signed by its client.

        `changes`: `bind`'s arguments, and spec fields with `__` in them.
        """
        services = {key: changes.pop(key) for key in list(changes) if key in _BOUND}
        defaults = {"data__rows": [t.name for t in tables], "reveal": {}, "data__holdout": 0.0}
        spec = from_values(values(**(defaults | changes)))
        self.jobs += 1
        arguments: dict[str, Any] = {
            "parties": self.names,
            "recipients": [self.promised()],
            "job_id": f"job-{self.jobs}-{os.urandom(3).hex()}",
            "attempt": 1,
            "dealer": "dealer",
            "coordinator": COORDINATOR,
            "client": "analyst",
        } | services
        job = bind(spec, tables, **arguments)
        due = submission_of(job, PROJECT).model_dump_json()
        if due not in self.signed:  # the same job is signed once
            made = submitted(job, self.credentials("client", job.client))
            self.signed[due] = made.submission
        return job.model_copy(update={"submission": self.signed[due]})

    def promised(self) -> Recipient:
        public = self.recipient.recipient
        return Recipient(name="analyst", key=public.key.public_bytes_raw().hex(), proof=public.text)

    def prepare(self, job: BoundJob) -> dict[str, Any]:
        """Prepare dealer and parties at once; their replies by name."""
        with ThreadPoolExecutor() as pool:
            futures = {"dealer": pool.submit(self.prepare_dealer, job)}
            futures |= {name: pool.submit(self.prepare_party, name, job) for name in job.parties}
            return {name: future.result() for name, future in futures.items()}

    def prepare_dealer(self, job: BoundJob) -> Any:
        with self.dealer() as stub:
            request = dealer_pb2.PrepareDealerRequest(bound_job=job.canonical())
            return last_of(stub.Prepare(request, timeout=CALL))

    def prepare_party(self, name: str, job: BoundJob) -> Any:
        with self.party(name) as stub:
            request = party_pb2.PreparePartyRequest(bound_job=job.canonical())
            return last_of(stub.Prepare(request, timeout=CALL))

    def run_round(self, job: BoundJob, k: int) -> dict[str, Any]:
        """Training round `k` at all parties at once: the last message, or the error, by party."""
        with ThreadPoolExecutor() as pool:
            futures = {name: pool.submit(self.run_at, name, job, k) for name in job.parties}
        return {name: future.exception() or future.result() for name, future in futures.items()}

    def run_rounds(self, job: BoundJob, rounds: Iterable[int]) -> dict[str, Any]:
        """Training rounds one after the other; the last progress of every party."""
        replies: dict[str, Any] = {}
        for k in rounds:
            replies = self.run_round(job, k)
            for reply in replies.values():
                if isinstance(reply, BaseException):
                    raise reply
                assert reply.done
        return replies

    def run_at(self, name: str, job: BoundJob, k: int) -> Any:
        with self.party(name) as stub:
            request = party_pb2.RunRoundRequest(job_id=job.job_id, attempt=job.attempt, round=k)
            last = None
            for last in stub.RunRound(request, timeout=CALL):
                assert last.progress_json
            return last

    def run(self, job: BoundJob) -> dict[str, Any]:
        """A whole job; the last progress of every party."""
        rounds = self.prepare(job)[job.parties[0]].rounds
        return self.run_rounds(job, range(len(rounds)))

    def fetch(self, name: str, job: BoundJob) -> dict[tuple[str, str], bytes]:
        """The sealed items of a party, by output and recipient."""
        items = self.handed_over(name, job)
        return {key: content for key, content in items.items() if key[1]}

    def handed_over(self, name: str, job: BoundJob) -> dict[tuple[str, str], bytes]:
        """The same with what the party signs for the receipt, which has no recipient."""
        found: dict[tuple[str, str], bytes] = {}
        with self.party(name) as stub:
            request = party_pb2.FetchSealedRequest(job_id=job.job_id, attempt=job.attempt)
            for chunk in stub.FetchSealed(request, timeout=CALL):
                key = (chunk.output, chunk.recipient)
                found[key] = found.get(key, b"") + chunk.sealed
        return found

    def result(self, job: BoundJob, output: str, recipient: str = "analyst") -> Ring:
        """What the recipient reads: the sum of the shares of all parties."""
        shares = []
        for name in job.parties:
            sealed = self.fetch(name, job)[output, recipient]
            context = sealing_context(job.job_id, job.attempt, name, output, job.digest())
            sender = Identity(PROJECT, Role.PARTY, name)
            trust = self.authority.trust
            plain = unseal(sealed, self.recipient, context=context, sender=sender, trust=trust)
            shares.append(decode_output(plain, name)[0])
        return sharing.join(shares)


_BOUND = {"parties", "recipients", "job_id", "attempt", "dealer", "coordinator", "client"}


def upload_messages(
    name: str, upload: str, info: TableInfo, share: Ring, *, replace: bool = True, rows: int = 16
) -> list[Any]:
    """The messages of a good upload."""
    header = party_pb2.UploadHeader(
        name=name, upload_id=upload, table_json=info.model_dump_json(), replace=replace
    )
    messages = [party_pb2.UploadMessage(header=header)]
    for start in range(0, len(share), rows):
        part = share[start : start + rows].astype("<u8").tobytes()
        chunk = party_pb2.UploadChunk(
            first_row=start,
            rows=len(share[start : start + rows]),
            share=part,
            checksum=checksum(part),
        )
        messages.append(party_pb2.UploadMessage(chunk=chunk))
    return [*messages, party_pb2.UploadMessage(commit=True)]


def patients(rows: int = 40, name: str = "patients", seed: int = 1) -> tuple[Ring, TableInfo]:
    """Small clear values in fixed point, features in [-1, 1] and a 0/1 label."""
    shared = table(name, rows, "age", "size", "dose")
    random = np.random.default_rng(seed)
    clear = random.uniform(-1, 1, (rows, shared.info.columns))
    clear[:, -1] = random.integers(0, 2, rows)
    return np.round(clear * 2**24).astype(np.int64).view(np.uint64), shared.info
