"""A party's gRPC service: who may ask for what; the work is in the modules beside it."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from concurrent.futures import TimeoutError as Late
from dataclasses import asdict

import grpc
import structlog

from masque.data.store import Store
from masque.errors import Unavailable
from masque.jobs.bound import read_bound
from masque.jobs.states import State
from masque.v1 import party_pb2 as messages
from masque.v1.party_pb2_grpc import PartyServicer
from masque.version import __version__
from masque.wire.authorise import Permissions, caller
from masque.wire.identity import ROLES, Role
from services.party import uploads
from services.party.attempt import Account
from services.party.job import Job, Task
from services.party.jobs import Jobs
from services.party.results import Results
from services.party.workshop import PartyWorkshop

PERMISSIONS: Permissions = {
    "/masque.v1.Party/Upload": {Role.CLIENT},
    "/masque.v1.Party/ListDatasets": {Role.CLIENT, Role.COORDINATOR},
    "/masque.v1.Party/DeleteDataset": {Role.CLIENT},
    "/masque.v1.Party/Prepare": {Role.COORDINATOR},
    "/masque.v1.Party/RunRound": {Role.COORDINATOR},
    "/masque.v1.Party/Abort": {Role.COORDINATOR},
    "/masque.v1.Party/FetchSealed": {Role.COORDINATOR},
    "/masque.v1.Party/FetchOpened": {Role.CLIENT},
    "/masque.v1.Party/Exchange": {Role.PARTY},
    "/masque.v1.Party/Describe": ROLES - {Role.DEALER},
}
"""Who may call what; a dealer nothing, since traffic tells when a job stopped early.

What somebody may do *as whom* is checked where the names are known.
"""

PROGRESS = 0.5
"""Seconds between two progress messages."""

PIECE = 1 << 20
"""Bytes of a sealed item in one message, at most."""

_log = structlog.get_logger("masque.party")


class PartyService(PartyServicer):
    """Keeps shares for clients, computes for its coordinator; `Exchange` is the hub's."""

    def __init__(
        self, name: str, store: Store, jobs: Jobs, results: Results, workshop: PartyWorkshop
    ) -> None:
        self._name, self._store, self._jobs = name, store, jobs
        self._results, self._workshop = results, workshop
        self._places = uploads.Places()
        self._stopping = self._closed = False

    # -- clients ---------------------------------------------------------------------------------

    def Upload(
        self, request: Iterator[messages.UploadMessage], context: grpc.ServicerContext
    ) -> messages.UploadReply:
        """Take in a share of a data set, in the name of the client that sends it."""
        owner = caller(context).name
        self._check_not_stopping()
        with self._places.taken(owner):
            reply = uploads.take_in(self._until_closed(request), self._store, owner)
        _log.info("data set stored", owner=owner, rows=reply.rows, bytes=reply.bytes)
        return reply

    def ListDatasets(
        self, request: messages.ListDatasetsRequest, context: grpc.ServicerContext
    ) -> messages.ListDatasetsReply:
        """Public metadata of every data set here."""
        return messages.ListDatasetsReply(
            datasets=[
                messages.Dataset(
                    name=entry.name,
                    upload_id=entry.upload_id,
                    owner=entry.owner,
                    table_json=entry.info.model_dump_json(),
                    created=dt.datetime.fromtimestamp(entry.created, dt.UTC).isoformat(
                        timespec="seconds"
                    ),
                )
                for entry in self._store.list()
            ]
        )

    def DeleteDataset(
        self, request: messages.DeleteDatasetRequest, context: grpc.ServicerContext
    ) -> messages.DeleteDatasetReply:
        """Delete a data set of the client that asks."""
        owner = caller(context).name
        self._store.delete(request.name, owner=owner)
        _log.info("data set deleted", dataset=request.name, owner=owner)
        return messages.DeleteDatasetReply()

    def FetchOpened(
        self, request: messages.FetchOpenedRequest, context: grpc.ServicerContext
    ) -> messages.FetchOpenedReply:
        """What a finished job has opened to everybody."""
        job_id = uploads.checked_job_id(request.job_id)
        bound, values = self._results.opened(job_id)
        return messages.FetchOpenedReply(
            bound_job=bound,
            values=[
                messages.OpenedValue(
                    output=value.output, shape=value.shape, scale=value.scale, values=value.values
                )
                for value in values
            ],
        )

    # -- the coordinator -------------------------------------------------------------------------

    def Prepare(
        self, request: messages.PreparePartyRequest, context: grpc.ServicerContext
    ) -> messages.PreparePartyReply:
        """Check and compile a job; asked again, the answer is the same."""
        sender = caller(context).name
        job = read_bound(request.bound_job, f"coordinator {sender!r}")
        structlog.contextvars.bind_contextvars(job=job.job_id)
        self._check_not_stopping()
        self._workshop.check_named(job, sender)  # a stranger must not take the job's id
        prepared = self._jobs.take_up(job.job_id).prepare(job, sender)
        return messages.PreparePartyReply(
            job_digest=prepared.job_digest,
            program_digest=prepared.program_digest,
            rounds=prepared.rounds,
        )

    def RunRound(
        self, request: messages.RunRoundRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.RoundProgress]:
        """Run the next training round; progress twice a second, `done` at the end."""
        job = self._jobs.find(request.job_id)
        task = job.begin(caller(context).name, request.attempt, request.round)

        def left() -> None:
            """In a thread of its own: gRPC's would wait here for a message that it is to send."""
            threading.Thread(target=job.left, args=(task,), name="left", daemon=True).start()

        if not context.add_callback(left):
            left()
        while True:
            try:
                stopped = task.future.result(PROGRESS)
            except Late:
                yield self._report(job, task, None)
                continue
            except Exception:
                if job.state.state is State.FAILED:
                    raise job.failure() from None
                raise
            yield self._report(job, task, stopped)
            return

    def Abort(
        self, request: messages.AbortJobRequest, context: grpc.ServicerContext
    ) -> messages.AbortJobReply:
        """Give an attempt up; of one that is over or unknown there is nothing to give up."""
        if self._jobs.knows(request.job_id):
            job = self._jobs.find(request.job_id)
            job.abort(caller(context).name, request.attempt, request.reason[:300])
            _log.info("job aborted", job=request.job_id, attempt=request.attempt)
        return messages.AbortJobReply()

    def FetchSealed(
        self, request: messages.FetchSealedRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.SealedChunk]:
        """Every sealed item of a finished job, in pieces."""
        job = self._jobs.find(request.job_id)
        for item in job.fetch(caller(context).name, request.attempt):
            size = len(item.content)
            for start in range(0, size, PIECE):
                yield messages.SealedChunk(
                    output=item.output,
                    recipient=item.recipient,
                    sealed=item.content[start : start + PIECE],
                    more=start + PIECE < size,
                )
        job.handed_over = True

    def _report(self, job: Job, task: Task, stopped: bool | None) -> messages.RoundProgress:
        progress, _ = job.progress()
        return messages.RoundProgress(
            progress_json=progress.to_json(),
            done=stopped is not None,
            stopped=bool(stopped),
            traffic=_traffic(task.attempt.account()),
        )

    # -- other parties ---------------------------------------------------------------------------

    def Exchange(
        self, request: messages.Hello, context: grpc.ServicerContext
    ) -> Iterator[messages.Frame]:
        """Never reached: the hub answers in its place (`services.party.main.mount_exchange`)."""
        raise AssertionError("the hub serves the exchange")

    # -- anybody ---------------------------------------------------------------------------------

    def Describe(
        self, request: messages.DescribePartyRequest, context: grpc.ServicerContext
    ) -> messages.DescribePartyReply:
        """Name, version, and what this party has seen and sent since its start, in numbers."""
        totals = self._workshop.totals(ended=True)
        entries = self._store.list()
        return messages.DescribePartyReply(
            name=self._name,
            version=__version__,
            jobs=self._jobs.busy,
            datasets=len(entries),
            bytes_sent=totals.account.sent,
            bytes_by_peer={name: link.sent for name, link in totals.links.items()},
            traffic=_traffic(totals.account),
            share_bytes=sum(entry.size for entry in entries),
        )

    def uploads_running(self) -> int:
        """Uploads under way."""
        return self._places.count

    # -- the end ---------------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Take no upload and no job any more; those under way may end within `seconds`."""
        self._stopping = True
        until = time.monotonic() + seconds
        for job in self._jobs.all():
            job.drain(self._name, until)

    def busy(self) -> bool:
        """Whether an upload is under way, or a job whose results have not been fetched."""
        return self._places.busy or any(job.unfinished for job in self._jobs.all())

    def close(self) -> None:
        """The service stops now: give up every job, telling the peers, and every upload."""
        self._stopping = self._closed = True
        for job in self._jobs.all():
            job.stop(self._name)

    def _check_not_stopping(self) -> None:
        if self._stopping:
            raise self._stopped("Try again once it is back.")

    def _until_closed(
        self, request: Iterator[messages.UploadMessage]
    ) -> Iterator[messages.UploadMessage]:
        for message in request:
            if self._closed:
                raise self._stopped("Nothing of the upload was kept: share it again.")
            yield message

    def _stopped(self, hint: str) -> Unavailable:
        return Unavailable(f"party {self._name!r} is being stopped.", hint=hint, party=self._name)


def _traffic(account: Account) -> messages.Traffic:
    return messages.Traffic(**asdict(account))
