"""The dealer's gRPC service: who may ask for what, and nothing else; the work is in `dealing`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import grpc
import structlog

from masque.errors import IdentityError, JobFailed, MasqueError, Refused, Unavailable
from masque.jobs.bound import BoundJob, read_bound
from masque.jobs.resuming import program_of
from masque.mpc.program import Program
from masque.v1 import dealer_pb2 as messages
from masque.v1.dealer_pb2_grpc import DealerServicer
from masque.version import __version__
from masque.wire.authorise import Permissions, caller
from masque.wire.heartbeat import beating
from masque.wire.identity import ROLES, Role
from masque.wire.metrics import Metric
from services.dealer.dealing import Dealing, Pace
from services.dealer.figures import DEALT, FAILED, Tally, figures
from services.dealer.register import Entry, Register, not_announced

Compile = Callable[[BoundJob], Program]

PERMISSIONS: Permissions = {
    "/masque.v1.Dealer/Prepare": {Role.COORDINATOR},
    "/masque.v1.Dealer/Abort": {Role.COORDINATOR},
    "/masque.v1.Dealer/Correlations": {Role.PARTY},
    "/masque.v1.Dealer/Describe": ROLES,
}
"""Who may call what. A party comes for its own material only: the certificate says whose."""

_log = structlog.get_logger("masque.dealer")


def compile_job(job: BoundJob) -> Program:
    """The real compiler; imported when it is first needed."""
    from masque.jobs.compile import compile_job as real

    return real(job)


class DealerService(DealerServicer):
    """Deals for jobs that a coordinator announces, to the parties that these name.

    `compile` makes a program of a bound job; `coordinator` is the only one it obeys, if given.
    """

    def __init__(
        self,
        name: str,
        *,
        coordinator: str | None = None,
        compile: Compile = compile_job,
        pace: Pace | None = None,
        jobs: int = 16,
    ) -> None:
        self._name, self._coordinator, self._compile = name, coordinator, compile
        self._pace = pace or Pace()
        self._changed = threading.Condition()
        self._register = Register(jobs)
        self._tally = Tally()
        self._stopping = False

    # -- the coordinator's side ------------------------------------------------------------------

    def Prepare(
        self, request: messages.PrepareDealerRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.PrepareDealerReply]:
        """Compile a job and answer its digests; asked again, the answer is the same."""
        sender = caller(context).name
        job = read_bound(request.bound_job, sender)
        structlog.contextvars.bind_contextvars(job=job.job_id)
        self._check_named(job, sender)
        yield from beating(lambda: self._prepare(job), messages.PrepareDealerReply)

    def _prepare(self, job: BoundJob) -> messages.PrepareDealerReply:
        with self._changed:
            entry = self._register.known(job)
            if entry is None and self._stopping:
                raise self._stopped(Unavailable)
        if entry is None:
            entry = self._admit(job, program_of(job, self._compile(job)))
        return messages.PrepareDealerReply(
            job_digest=entry.job_digest, program_digest=entry.program_digest
        )

    def Abort(
        self, request: messages.AbortDealingRequest, context: grpc.ServicerContext
    ) -> messages.AbortDealingReply:
        """Forget an attempt; of one that is over or unknown there is nothing to forget."""
        sender = caller(context).name
        try:
            with self._changed:
                entry = self._register.find(request.job_id, request.attempt)
        except MasqueError:
            entry = None
        if entry is not None and entry.dealing is not None:
            if entry.coordinator != sender:
                raise IdentityError(
                    f"job {entry.job_id} belongs to coordinator {entry.coordinator!r}, "
                    f"not to {sender!r}."
                )
            reason = request.reason[:300] or "no reason given"
            entry.dealing.fail(
                JobFailed(f"the coordinator ended job {entry.job_id}: {reason}", job=entry.job_id)
            )
        return messages.AbortDealingReply()

    def _check_named(self, job: BoundJob, sender: str) -> None:
        if job.coordinator != sender or self._coordinator not in (None, sender):
            raise Refused(
                f"coordinator {sender!r} may not announce job {job.job_id}: "
                f"its coordinator is {self._coordinator or job.coordinator!r}.",
                job=job.job_id,
            )
        if job.dealer != self._name:
            raise Refused(
                f"job {job.job_id} is for dealer {job.dealer!r}; this is {self._name!r}.",
                hint="Check the coordinator's configuration.",
                job=job.job_id,
            )

    def _admit(self, job: BoundJob, program: Program) -> Entry:
        assert program.parties == len(job.parties), "one seat for every party"
        digest = program.digest  # worked out here, and not under the lock
        with self._changed:
            entry = self._register.known(job)  # the same may have come twice at once
            if entry is not None:
                return entry
            dealing = Dealing(job, program, lambda error: self._end(job, error), pace=self._pace)
            entry = Entry(
                job_id=job.job_id,
                attempt=job.attempt,
                parties=job.parties,
                coordinator=job.coordinator,
                subject=job.subject(),
                job_digest=job.digest(),
                program_digest=digest,
                dealing=dealing,
            )
            earlier = self._register.admit(entry)
            self._changed.notify_all()
        if earlier is not None:
            earlier.fail(JobFailed("a later attempt has begun.", job=job.job_id))
        _log.info(
            "job announced",
            job=job.job_id,
            attempt=job.attempt,
            parties=list(job.parties),
            program_digest=digest.hex(),
        )
        dealing.start()
        return entry

    def _end(self, job: BoundJob, error: MasqueError | None) -> None:
        with self._changed:
            self._register.end(job.job_id, job.attempt, error)
            self._tally.ended[DEALT if error is None else FAILED] += 1
            self._changed.notify_all()
        if error is None:
            _log.info("job dealt", job=job.job_id, attempt=job.attempt)
        else:
            _log.warning("dealing ended", job=job.job_id, attempt=job.attempt, reason=str(error))

    # -- the parties' side -----------------------------------------------------------------------

    def Correlations(
        self, request: messages.CorrelationsRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.Material]:
        """The seed and the corrections of the party that asks, which its certificate names."""
        party = caller(context).name
        entry = self._announced(request.job_id, request.attempt, context)
        dealing = entry.dealing
        assert dealing is not None, "the register gives out what lasts"
        self._check_digests(entry, dealing, party, request)
        stream = dealing.join(party)
        if not context.add_callback(lambda: dealing.left(party)):
            dealing.left(party)
        _log.info("party connected", job=entry.job_id, attempt=entry.attempt, party=party)
        with self._changed:
            self._tally.streams += 1
        for message in stream:
            with self._changed:
                self._tally.sent[party] += len(message.corrections)
            yield message

    def _announced(self, job_id: str, attempt: int, context: grpc.ServicerContext) -> Entry:
        """The entry of an attempt; waits for it, since a party may be quicker than we are.

        Not for one whose caller has left: its thread is wanted by others.
        """
        found: list[Entry] = []

        def arrived() -> bool:
            entry = self._register.find(job_id, attempt)
            if entry is not None:
                found.append(entry)
            return entry is not None or not context.is_active()

        def left() -> None:
            with self._changed:
                self._changed.notify_all()

        context.add_callback(left)
        with self._changed:
            self._changed.wait_for(arrived, self._pace.patience)
        if not found:
            raise not_announced(job_id)
        return found[0]

    def _check_digests(
        self, entry: Entry, dealing: Dealing, party: str, request: messages.CorrelationsRequest
    ) -> None:
        if party not in entry.parties:
            raise IdentityError(
                f"party {party!r} has no part in job {entry.job_id}.",
                hint=f"Its parties are {', '.join(entry.parties)}.",
                job=entry.job_id,
            )
        for what, ours, theirs in (
            ("job", entry.job_digest, request.job_digest),
            ("program", entry.program_digest, request.program_digest),
        ):
            if ours != theirs:
                error = Refused(
                    f"the digest of the {what} differs for job {entry.job_id}: dealer "
                    f"{self._name!r} has {ours.hex()[:16]}, party {party!r} {theirs.hex()[:16]}.",
                    hint="Check that all services run the same version of Masque, and that the "
                    "coordinator told all of them the same.",
                    job=entry.job_id,
                    service=party,
                )
                dealing.fail(error)
                raise error

    # -- anybody's -------------------------------------------------------------------------------

    def Describe(
        self, request: messages.DescribeDealerRequest, context: grpc.ServicerContext
    ) -> messages.DescribeDealerReply:
        """Name, version, and what has been sent to whom, in bytes."""
        with self._changed:
            return messages.DescribeDealerReply(
                name=self._name,
                version=__version__,
                jobs=len(self._register.active),
                bytes_sent=self._tally.sent.total(),
                bytes_by_party=self._tally.sent,
                streams=self._tally.streams,
                jobs_lent=self._register.capacity,
            )

    def figures(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        with self._changed:
            tally, active = self._tally.copy(), self._register.active
        return figures(tally, active)

    def drain(self, seconds: float) -> None:
        """Admit no job any more; what is being dealt goes on."""
        del seconds
        with self._changed:
            self._stopping = True

    def busy(self) -> bool:
        """Whether anything is being dealt."""
        with self._changed:
            return bool(self._register.active)

    def close(self) -> None:
        """End what is still being dealt: the service is stopping."""
        with self._changed:
            self._stopping = True
            active = self._register.active
        for dealing in active:
            dealing.fail(self._stopped(JobFailed))

    def _stopped(self, kind: type[MasqueError]) -> MasqueError:
        text = f"dealer {self._name!r} was stopped."
        return kind(text, service=self._name)
