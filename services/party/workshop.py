"""What a party's jobs need done, with the real parts: store, policy, registry, dealer, peers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from masque.data.store import Store
from masque.errors import MasqueError
from masque.jobs.bound import BoundJob
from masque.jobs.computing import ComputedJob
from masque.jobs.ledger import Ledger
from masque.jobs.policy import Policy
from masque.mpc.program import Program
from masque.v1.dealer_pb2 import CorrelationsRequest, Material
from masque.v1.dealer_pb2_grpc import DealerStub
from masque.wire import memory
from masque.wire.binding import Binding
from masque.wire.exchange import PeerExchange
from masque.wire.failures import translate
from masque.wire.hub import Hub
from masque.wire.identity import Identity, Role
from masque.wire.pinned import Pinned
from masque.wire.streams import peer_options
from masque.wire.tls import Credentials
from services.party import preparing
from services.party.attempt import Attempt, Doors
from services.party.figures import COMPUTED, FAILED, Totals
from services.party.jobs import Memory
from services.party.results import Results, Sealed
from services.party.settings import PartyLimits
from services.party.stock import Listener, Stock

DAY = 86_400.0
"""Deadline of a job's streams, in seconds."""


@dataclass(frozen=True)
class Surroundings:
    """Who this party is, and where everybody else is: addresses by name."""

    credentials: Credentials
    peers: dict[str, str]
    dealer: str
    dealer_address: str
    coordinator: str

    @property
    def name(self) -> str:
        """This party."""
        return self.credentials.identity.name

    def identity(self, role: Role, name: str) -> Identity:
        """Somebody else of this project."""
        return Identity(self.credentials.identity.project, role, name)


class PartyWorkshop:
    """`services.party.job.Workshop` for one party."""

    def __init__(
        self,
        around: Surroundings,
        store: Store,
        policy: Policy,
        recipients: Path,
        memory: Memory,
        ledger: Ledger,
        results: Results,
        hub: Hub,
        limits: PartyLimits,
        compile: preparing.Compile,
    ) -> None:
        self._around, self._store, self._policy = around, store, policy
        self._recipients, self._memory, self._ledger = recipients, memory, ledger
        self._results, self._hub, self._limits = results, hub, limits
        self._compile = compile
        self._lock = threading.Lock()
        self._open: set[Attempt] = set()
        self._ended = Totals()

    def remember(self, job: ComputedJob) -> None:
        """See `Workshop`."""
        self._memory.store(job)

    def compile(self, job: BoundJob, sender: str, failed: Listener) -> Attempt:
        """See `Workshop`; the checks are those of `preparing`."""
        around, name = self._around, self._around.name
        index = self.check_named(job, sender)
        preparing.check_data(job, self._store, name)
        trust = around.credentials.renewed().trust
        recipients = preparing.trusted_recipients(job, self._recipients, trust, name)
        self._results.check_free(job)
        program = self._compile(job)
        assert program.parties == len(job.parties), "one seat for every party"
        preparing.check_policy(self._policy, job, program, name)
        preparing.check_outputs(job, program)
        openings = preparing.openings_by_round(program)
        doors = self._doors(job, program, index, failed)
        attempt = Attempt(job, program, index, openings, recipients, doors)
        attempt.commitments = {
            table.name: self._store.entry(table.name).commitment for table in job.shared
        }
        with self._lock:
            self._open.add(attempt)
        return attempt

    def check_named(self, job: BoundJob, sender: str) -> int:
        """This party's place in the job; Refused if `sender` or a named service is not ours."""
        around = self._around
        neighbourhood = preparing.Neighbourhood(
            around.name, frozenset(around.peers), around.dealer, around.coordinator
        )
        return neighbourhood.check(job, sender)

    def finish(self, attempt: Attempt) -> list[Sealed]:
        """See `Workshop`."""
        party = attempt.complete()
        job, program = attempt.job, attempt.program
        sealed = self._results.make(job, program, party, attempt.recipients)
        return [*sealed, self._results.receipt(job, program, attempt.commitments)]

    def closed(self, attempt: Attempt, *, computed: bool) -> None:
        """See `Workshop`."""
        with self._lock:
            self._open.discard(attempt)
            self._ended.add(attempt)
            self._ended.ended[COMPUTED if computed else FAILED] += 1
        memory.give_back_soon()

    def totals(self, *, ended: bool = False) -> Totals:
        """What all attempts have seen and sent since the start; `ended`: those that are over."""
        with self._lock:
            totals = self._ended.copy()
            for attempt in () if ended else self._open:
                totals.add(attempt)
        return totals

    def _doors(self, job: BoundJob, program: Program, index: int, failed: Listener) -> Doors:
        around, limits = self._around, self._limits
        channels = {name: self._reach(name, failed) for name in job.parties if name != around.name}
        binding = Binding(job.job_id, job.attempt, job.parties, index, job.digest(), program.digest)
        exchange = PeerExchange(
            self._hub,
            binding,
            {name: pinned.channel for name, pinned in channels.items()},
            patience=limits.patience_seconds,
            opening=limits.connect_seconds,
            lifetime=DAY,
            meaning=lambda name, error: channels[name].meaning(error),
        )
        stock = Stock(
            around.dealer,
            lambda: DealerStream(around, job, program, failed),
            failed,
            budget=limits.prefetch_bytes,
            patience=limits.patience_seconds,
        )

        def let_go() -> None:
            for pinned in channels.values():
                pinned.close()

        source = preparing.source_of(job, program, self._store)
        return Doors(stock, exchange, source, self._ledger, let_go, self._store.spool)

    def _reach(self, name: str, failed: Listener) -> Pinned:
        """The way to another party; the job ends if that one's certificate is revoked."""
        around, identity = self._around, self._around.identity(Role.PARTY, name)

        def revoked(error: MasqueError) -> None:
            error.where["party"] = name
            failed(error)

        return Pinned(
            around.peers[name], identity, around.credentials, peer_options(identity), revoked
        )


class DealerStream:
    """`services.party.stock.Source`: this party's `Correlations` call."""

    def __init__(
        self, around: Surroundings, job: BoundJob, program: Program, failed: Listener
    ) -> None:
        self._dealer = around.identity(Role.DEALER, around.dealer)
        self._address = around.dealer_address
        self._channel = Pinned(
            self._address,
            self._dealer,
            around.credentials,
            on_revoked=lambda error: failed(self._named(error)),
        )
        request = CorrelationsRequest(
            job_id=job.job_id,
            attempt=job.attempt,
            job_digest=job.digest(),
            program_digest=program.digest,
        )
        stub: Any = DealerStub(self._channel.channel)
        self._call = stub.Correlations(request, timeout=DAY)
        self._cancelled = False

    def _named(self, error: MasqueError) -> MasqueError:
        if error.where.get("service") == str(self._dealer):
            error.where["service"] = self._dealer.name
        return error

    def messages(self) -> Iterator[Material]:
        """The stream, its errors named after the dealer unless it names somebody itself."""
        try:
            yield from self._call
        except grpc.RpcError as error:
            ours = self._cancelled
            meant = translate(error, service=self._dealer) if ours else self._channel.meaning(error)
            raise self._named(meant) from error
        except MasqueError as error:
            raise self._named(error) from None
        finally:
            self._channel.close()

    def cancel(self) -> None:
        """End it; the dealer will tell the others that this party has left."""
        self._cancelled = True
        self._call.cancel()
