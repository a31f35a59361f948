"""The coordinator's calls to dealer and parties; every error names the service at fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masque.errors import MasqueError, ProtocolError, Unavailable
from masque.jobs.bound import BoundJob
from masque.jobs.fit import SharedTable
from masque.jobs.held import table_told
from masque.v1 import dealer_pb2, party_pb2
from masque.v1.dealer_pb2_grpc import DealerStub
from masque.v1.party_pb2_grpc import PartyStub
from masque.wire.failures import translating
from masque.wire.identity import Identity, Role
from masque.wire.outputs import LARGEST_RESULT
from masque.wire.pinned import Pinned
from masque.wire.preflight import explain
from masque.wire.settings import PeerSettings
from masque.wire.tls import Credentials
from services.coordinator.room import Lent
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.store import Sealed

BRIEF = 8.0
"""Seconds for what a service answers from memory."""

REVIEW = 60.0
"""Seconds to compile a job and hold it against policies."""

GLANCE = 3.0
"""Seconds to find out whether a service is there."""

ABORT = 5.0

OTHER_ROUNDS = 16
"""Rounds of a program beside those of its epochs, at most."""

LONGEST_NAME = 200
"""Characters in the name of a round."""

PIECE = 1024
"""Bytes that a piece of a sealed item is taken for, beside what is in it."""

Alive = Callable[[str, Any], None]
"""Hears of every sign of life: the peer, and what it said of its work, or None."""


class Peers:
    """Channels to the dealer and all parties, for one attempt of a job; close them after it."""

    def __init__(self, settings: CoordinatorSettings, credentials: Credentials) -> None:
        self._settings = settings
        self._credentials = credentials
        self._lock = threading.Lock()
        self._running: dict[Any, None] = {}  # calls, in the order in which they were made
        self.stopping: set[str] = set()
        self._channels: dict[str, Pinned] = {}
        self._revoked: dict[str, MasqueError] = {}
        self._identities: dict[str, Identity] = {}
        self._addresses: dict[str, str] = {}
        for role, peers in ((Role.DEALER, (settings.dealer,)), (Role.PARTY, settings.parties)):
            for peer in peers:
                self._open(role, peer)
        self._dealer = DealerStub(self._channels[settings.dealer.name].channel)
        self._parties = {
            p.name: PartyStub(self._channels[p.name].channel) for p in settings.parties
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The parties in order."""
        return tuple(self._parties)

    @property
    def dealer(self) -> str:
        """The name of the dealer."""
        return self._settings.dealer.name

    def heed(self) -> None:
        """From now on, enter into `stopping` who says that it is: NOT_SERVING comes first."""
        for peer, pinned in self._channels.items():
            arguments = (peer, pinned.channel)
            threading.Thread(target=self._heed, args=arguments, daemon=True).start()

    def tables(self, party: str) -> list[SharedTable]:
        """The data sets that a party holds."""
        with self._explaining(party):
            reply = self._parties[party].ListDatasets(
                party_pb2.ListDatasetsRequest(), timeout=BRIEF
            )
        return [
            table_told(party, d.name, d.upload_id, d.table_json, d.conditions)
            for d in reply.datasets
        ]

    def absent(self) -> MasqueError | None:
        """Why somebody is not there just now, with his name in `where["peer"]`; None: all are."""
        with ThreadPoolExecutor(len(self._channels)) as threads:
            found = threads.map(self._look, sorted(self._channels))
            return next((error for error in found if error is not None), None)

    def review(self, party: str, job: BoundJob) -> list[str]:
        """Who must say yes before a party computes a job. Raises what the party has against it."""
        with self._explaining(party):
            request = party_pb2.ReviewRequest(bound_job=job.canonical())
            return list(self._parties[party].Review(request, timeout=REVIEW).waits_for)

    def lent(self) -> dict[str, Lent]:
        """What each party, and the dealer, lends to jobs. Raises for one that does not answer."""
        with self._explaining(self.dealer):
            dealer = self._dealer.Describe(dealer_pb2.DescribeDealerRequest(), timeout=BRIEF)
        found = {self.dealer: Lent(int(dealer.jobs_lent))}
        for party, stub in self._parties.items():
            with self._explaining(party):
                reply = stub.Describe(party_pb2.DescribePartyRequest(), timeout=BRIEF)
            found[party] = Lent(int(reply.jobs_lent), int(reply.memory_lent))
        return found

    def prepare(
        self, peer: str, job: BoundJob, seconds: float, alive: Alive
    ) -> tuple[bytes, tuple[str, ...]]:
        """Let the dealer or a party compile the job: the program's digest and its rounds' names.

        The dealer tells no names. Raises ProtocolError if it has read another job than was sent.
        `seconds`: until the job has no time left; so with what follows.
        """
        text, reply = job.canonical(), None
        call: Any
        with self._explaining(peer):
            if peer == self.dealer:
                announce = dealer_pb2.PrepareDealerRequest(bound_job=text)
                call = self._dealer.Prepare(announce, timeout=seconds)
            else:
                request = party_pb2.PreparePartyRequest(bound_job=text)
                call = self._parties[peer].Prepare(request, timeout=seconds)
            for said in self._track(call):
                alive(peer, party_pb2.RoundProgress(doing=said.doing, worked=said.worked))
                reply = said
        if reply is None or reply.job_digest != job.digest():
            seen = reply.job_digest.hex()[:16] if reply is not None else "missing"
            raise ProtocolError(
                f"{peer} has read another job than it was sent: its job digest is {seen},"
                f" not {job.digest().hex()[:16]}.",
                hint="Check that all services run the same version of Masque.",
                peer=peer,
            )
        return reply.program_digest, () if peer == self.dealer else _rounds(peer, job, reply.rounds)

    def run_round(
        self, party: str, job: BoundJob, number: int, seconds: float, alive: Alive
    ) -> tuple[bool, bool]:
        """Let a party run training round `number`.

        Returns whether the party has been told to stop early, and whether it has committed.
        """
        request = party_pb2.RunRoundRequest(job_id=job.job_id, attempt=job.attempt, round=number)
        last = None
        with self._blaming(party):
            for last in self._track(self._parties[party].RunRound(request, timeout=seconds)):
                alive(party, last)
        if last is None or not last.done:
            raise ProtocolError(
                f"{party} ended training round {number} without saying that it is done.",
                peer=party,
            )
        return bool(last.stopped), bool(last.committed)

    def fetch(self, party: str, job: BoundJob, seconds: float, alive: Alive) -> tuple[Sealed, ...]:
        """What a party sealed for the recipients of the job."""
        request = party_pb2.FetchSealedRequest(job_id=job.job_id, attempt=job.attempt)

        def chunks() -> Iterator[Any]:
            for chunk in self._track(self._parties[party].FetchSealed(request, timeout=seconds)):
                alive(party, None)
                yield chunk

        with self._blaming(party):
            return tuple(_items(party, chunks()))

    def renew(self, party: str, job: BoundJob) -> None:
        """We still want this attempt of it, though we ask for nothing; raises if it does not."""
        request = party_pb2.RenewLeaseRequest(job_id=job.job_id, attempt=job.attempt)
        with self._blaming(party):
            self._parties[party].Renew(request, timeout=BRIEF)

    def forget(self, party: str, job_id: str, *, refused: bool = False) -> None:
        """The job has ended: nothing of it is needed to go on; raises if it does not answer.

        `refused`: it was not accepted, though the party may have put it before people.
        """
        request = party_pb2.ForgetJobRequest(job_id=job_id, refused=refused)
        with self._blaming(party):
            self._parties[party].Forget(request, timeout=ABORT)

    def abort(self, peer: str, job: BoundJob, reason: str) -> None:
        """Tell a service that an attempt is over; raises if it does not answer."""
        with self._blaming(peer):
            if peer == self.dealer:
                told = dealer_pb2.AbortDealingRequest(
                    job_id=job.job_id, attempt=job.attempt, reason=reason
                )
                self._dealer.Abort(told, timeout=ABORT)
            else:
                request = party_pb2.AbortJobRequest(
                    job_id=job.job_id, attempt=job.attempt, reason=reason
                )
                self._parties[peer].Abort(request, timeout=ABORT)

    def cancel(self) -> None:
        """Break off every call that is under way."""
        with self._lock:
            running = list(self._running)
        for call in running:
            call.cancel()

    def close(self) -> None:
        """Close all channels, which breaks off what is under way."""
        for channel in self._channels.values():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self, role: Role, peer: PeerSettings) -> None:
        identity = Identity(self._settings.project, role, peer.name)
        self._identities[peer.name] = identity
        self._addresses[peer.name] = peer.address
        self._channels[peer.name] = Pinned(
            peer.address,
            identity,
            self._credentials,
            on_revoked=lambda error: self._revoke(peer.name, error),
        )

    def _revoke(self, peer: str, error: MasqueError) -> None:
        """The certificate of a service was revoked: what we asked it ends, and says why."""
        error.where["peer"] = peer
        self._revoked[peer] = error

    def _look(self, peer: str) -> MasqueError | None:
        stub = health_pb2_grpc.HealthStub(self._channels[peer].channel)
        try:
            with self._explaining(peer):
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=GLANCE)
        except MasqueError as error:
            error.where["peer"] = peer
            return error
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return None
        return Unavailable(f"{peer} is starting or stopping.", peer=peer)

    def _heed(self, peer: str, channel: grpc.Channel) -> None:
        request = health_pb2.HealthCheckRequest()
        try:
            for answer in health_pb2_grpc.HealthStub(channel).Watch(request):
                if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                    self.stopping.add(peer)
        except (grpc.RpcError, MasqueError, ValueError):
            return  # it does not answer, or the channel is closed: the calls say so

    def _track(self, call: Any) -> Any:
        with self._lock:
            self._running[call] = None
        call.add_done_callback(self._untrack)
        return call

    def _untrack(self, call: Any) -> None:
        with self._lock:
            self._running.pop(call, None)

    @contextmanager
    def _blaming(self, peer: str) -> Iterator[None]:
        """While a job runs: what a broken call means, told at once."""
        try:
            with translating(self._identities[peer], self._addresses[peer]):
                yield
        except MasqueError as error:
            raise self._revoked.get(peer, error) from None

    @contextmanager
    def _explaining(self, peer: str) -> Iterator[None]:
        """Before it runs: with another look at a connection that failed without a reason."""
        try:
            yield
        except grpc.RpcError as error:
            if peer in self._revoked:
                raise self._revoked[peer] from None
            identity, address = self._identities[peer], self._addresses[peer]
            raise explain(error, address, identity, self._credentials) from error


def _rounds(party: str, job: BoundJob, names: Sequence[str]) -> tuple[str, ...]:
    """The names of a program's rounds. Raises ProtocolError unless they can be those of the job."""
    training = job.spec.training
    batches = -(-job.rows // training.batch_size)
    epoch = -(-batches // min(batches, training.batches_per_round or batches))
    most = training.epochs * epoch + OTHER_ROUNDS
    if not 0 < len(names) <= most or max(map(len, names)) > LONGEST_NAME:
        raise ProtocolError(
            f"{party} tells of {len(names)} training rounds, or of names that are none.",
            hint="Check that all services run the same version of Masque.",
            peer=party,
        )
    return tuple(names)


def _items(party: str, chunks: Iterator[Any]) -> Iterator[Sealed]:
    """Whole items from chunks; ProtocolError if one changes its name, or if they never end."""
    parts: list[bytes] = []
    begun: tuple[str, str] | None = None
    size = 0
    for chunk in chunks:
        place = (chunk.output, chunk.recipient)
        size += len(chunk.sealed) + PIECE  # empty pieces without end are a flood as well
        if (begun is not None and place != begun) or size > LARGEST_RESULT:
            raise _broken(party)
        begun = place
        parts.append(chunk.sealed)
        if not chunk.more:
            yield Sealed(party, *place, b"".join(parts))
            parts, begun = [], None
    if begun is not None:
        raise _broken(party)


def _broken(party: str) -> ProtocolError:
    return ProtocolError(f"{party} sent sealed results that break off or mix.", peer=party)
