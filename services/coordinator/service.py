"""The coordinator's gRPC service; the work is in `conductor`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from masque.errors import Conflict, MasqueError, NotFound
from masque.jobs.bound import BoundJob
from masque.jobs.conducting import ConductedJob
from masque.jobs.states import State
from masque.v1 import coordinator_pb2 as messages
from masque.v1.coordinator_pb2_grpc import CoordinatorServicer
from masque.version import __version__
from masque.wire import preflight
from masque.wire.authorise import Permissions, caller
from masque.wire.failures import unpack
from masque.wire.identity import ROLES, Identity, Role
from masque.wire.metrics import Metric
from masque.wire.settings import PeerSettings
from masque.wire.tls import Credentials
from services.coordinator.board import Board
from services.coordinator.conductor import Conductor
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.store import Sealed, Store, StoredJob, attempt_of, bound_of
from services.coordinator.submitting import read_request

_CLIENT = {Role.CLIENT}
PERMISSIONS: Permissions = {
    "/masque.v1.Coordinator/Submit": _CLIENT,
    "/masque.v1.Coordinator/Watch": _CLIENT,
    "/masque.v1.Coordinator/List": _CLIENT,
    "/masque.v1.Coordinator/Cancel": _CLIENT,
    "/masque.v1.Coordinator/Result": _CLIENT,
    "/masque.v1.Coordinator/Describe": ROLES,
}
"""Who may call what."""

CHUNK = 1 << 20
MOST_LISTED = 1000
LISTED = 100
_GLANCE = 2.0


class CoordinatorService(CoordinatorServicer):
    """See the proto file for what each call promises."""

    def __init__(self, settings: CoordinatorSettings, credentials: Credentials) -> None:
        self._settings, self._credentials = settings, credentials
        self._store = Store(settings.store)
        self._board = Board(self._store)
        self._conductor = Conductor(settings, credentials, self._store, self._board)

    def start(self) -> None:
        """Begin to run jobs."""
        self._conductor.start()

    def drain(self, seconds: float) -> None:
        """Accept no job and begin none; the one that runs may end within `seconds`."""
        self._conductor.drain(seconds)

    def busy(self) -> bool:
        """Whether a job runs."""
        return self._conductor.busy

    def figures(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        return self._conductor.figures()

    def close(self) -> None:
        """Interrupt what runs and let watchers go."""
        self._conductor.close()
        self._board.close()

    def Submit(
        self, request: messages.SubmitRequest, context: grpc.ServicerContext
    ) -> messages.SubmitReply:
        """Bind and queue a job; the same request again gets the same answer."""
        job = self._conductor.submit(read_request(request, caller(context).name))
        return messages.SubmitReply(job_id=job.job_id)

    def Watch(
        self, request: messages.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.Event]:
        """What happened, what happens, and at last how it ended."""
        job = self._conductor.job(request.job_id)
        for event in self._board.watch(job.job_id, context.is_active):
            yield messages.Event(
                job_id=job.job_id,
                state=event.state,
                progress_json=event.progress,
                ended=event.ended,
                error_json=event.error,
            )

    def List(
        self, request: messages.ListJobsRequest, context: grpc.ServicerContext
    ) -> messages.ListJobsReply:
        """The latest jobs, the newest first."""
        limit = min(request.limit or LISTED, MOST_LISTED)
        return messages.ListJobsReply(jobs=[_job(job) for job in self._store.jobs(limit)])

    def Cancel(
        self, request: messages.CancelRequest, context: grpc.ServicerContext
    ) -> messages.CancelReply:
        """End a job of the caller's own."""
        state = self._conductor.cancel(request.job_id, caller(context).name)
        return messages.CancelReply(state=state.value)

    def Result(
        self, request: messages.ResultRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.ResultChunk]:
        """The bound job, then every sealed item of one recipient, cut to chunks.

        Without a recipient, the bound job and what the parties signed for its receipt. Raises
        Conflict for a job that has not ended, JobFailed for one without a result, NotFound for
        somebody who was promised nothing.
        """
        job = self._conductor.job(request.job_id)
        _check_succeeded(job)
        bound = attempt_of(bound_of(job), job.conducted)
        yield messages.ResultChunk(bound_job=bound.canonical())
        items = self._store.sealed(job.job_id, job.conducted.attempt, request.recipient)
        if not items and request.recipient:
            raise _nothing_for(request.recipient, bound)
        for item in items:
            yield from _chunks(item)

    def Describe(
        self, request: messages.DescribeCoordinatorRequest, context: grpc.ServicerContext
    ) -> messages.DescribeCoordinatorReply:
        """Who the dealer and the parties are, and whether each of them serves."""
        settings = self._settings
        asked = [(Role.DEALER, settings.dealer), *((Role.PARTY, p) for p in settings.parties)]
        with ThreadPoolExecutor(len(asked)) as threads:
            dealer, *parties = threads.map(lambda pair: self._look(*pair), asked)
        return messages.DescribeCoordinatorReply(
            name=settings.name, version=__version__, dealer=dealer, parties=parties
        )

    def _look(self, role: Role, peer: PeerSettings) -> messages.Service:
        who = Identity(self._settings.project, role, peer.name)
        try:
            serving = preflight.check(peer.address, who, self._credentials, patience=_GLANCE)
        except MasqueError:
            serving = False
        return messages.Service(name=peer.name, address=peer.address, serving=serving)


def _job(job: StoredJob) -> messages.Job:
    return messages.Job(
        job_id=job.job_id,
        name=job.name,
        state=job.conducted.state.value,
        attempt=job.conducted.attempt,
        submitted=job.submitted,
        ended=job.ended,
        client=job.client,
        progress_json=job.progress,
        error_json=job.error,
    )


def _check_succeeded(job: StoredJob) -> None:
    conducted: ConductedJob = job.conducted
    if conducted.state is State.SUCCEEDED:
        return
    if conducted.ended:
        raise unpack(job.error.encode()) or MasqueError(f"Job {job.job_id} has no result.")
    raise Conflict(
        f"Job {job.job_id} has no result yet: it is {conducted.state.value}.",
        hint=f"Wait for it: masque watch {job.job_id}",
        job=job.job_id,
    )


def _nothing_for(recipient: str, bound: BoundJob) -> NotFound:
    promised = [r.name for r in bound.recipients]
    names = ", ".join(promised)
    return NotFound(
        f"Job {bound.job_id} sealed nothing for {recipient!r}.",
        hint=f"It sealed results for {names}." if names else "It promised nobody a sealed result.",
        job=bound.job_id,
        recipient=recipient,
    )


def _chunks(item: Sealed) -> Iterator[messages.ResultChunk]:
    content = item.content
    for start in range(0, max(1, len(content)), CHUNK):
        yield messages.ResultChunk(
            party=item.party,
            output=item.output,
            sealed=content[start : start + CHUNK],
            more=start + CHUNK < len(content),
        )
