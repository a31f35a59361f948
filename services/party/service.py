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
from masque.wire.failures import clean
from masque.wire.heartbeat import Heartbeat
from masque.wire.identity import ROLES, Role
from masque.wire.tls import MAX_REPLY, Credentials
from services.party import uploads
from services.party.approvals import Approvals, fitting
from services.party.attempt import Account
from services.party.job import Done, Job, Task
from services.party.jobs import Jobs
from services.party.results import Results
from services.party.workshop import PartyWorkshop

PERMISSIONS: Permissions = {
    "/masque.v1.Party/Upload": {Role.CLIENT},
    "/masque.v1.Party/ListDatasets": {Role.CLIENT, Role.COORDINATOR},
    "/masque.v1.Party/DeleteDataset": {Role.CLIENT},
    "/masque.v1.Party/ListApprovals": {Role.CLIENT},
    "/masque.v1.Party/Approve": {Role.CLIENT},
    "/masque.v1.Party/Review": {Role.COORDINATOR},
    "/masque.v1.Party/Prepare": {Role.COORDINATOR},
    "/masque.v1.Party/RunRound": {Role.COORDINATOR},
    "/masque.v1.Party/Renew": {Role.COORDINATOR},
    "/masque.v1.Party/Abort": {Role.COORDINATOR},
    "/masque.v1.Party/Forget": {Role.COORDINATOR},
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

LISTED = MAX_REPLY // 4
"""Bytes of jobs in one list of those that wait for somebody's yes."""

PIECE = 1 << 20
"""Bytes of a sealed item in one message, at most."""

_log = structlog.get_logger("masque.party")


class PartyService(PartyServicer):
    """Keeps shares for clients, computes for its coordinator; `Exchange` is the hub's."""

    def __init__(
        self,
        credentials: Credentials,
        store: Store,
        jobs: Jobs,
        results: Results,
        workshop: PartyWorkshop,
        approvals: Approvals,
    ) -> None:
        self._credentials, self._name = credentials, credentials.identity.name
        self._store, self._jobs = store, jobs
        self._results, self._workshop, self._approvals = results, workshop, approvals
        self._places = uploads.Places()
        self._heart = Heartbeat()
        self._stopping = self._closed = False

    # -- clients ---------------------------------------------------------------------------------

    def Upload(
        self, request: Iterator[messages.UploadMessage], context: grpc.ServicerContext
    ) -> messages.UploadReply:
        """Take in a share of a data set, in the name of the client that sends it."""
        owner = caller(context).name
        self._check_not_stopping()
        with self._places.taken(owner):
            trust = self._credentials.renewed().trust
            stream = self._until_closed(request)
            reply = uploads.take_in(stream, self._store, owner, self._name, trust)
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
                    conditions=entry.conditions,
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

    def ListApprovals(
        self, request: messages.ListApprovalsRequest, context: grpc.ServicerContext
    ) -> messages.ListApprovalsReply:
        """Jobs that wait for the yes of the client that asks."""
        waiting = self._approvals.waiting(caller(context).name, request.job_id)
        shown = fitting(waiting, LISTED)
        return messages.ListApprovalsReply(
            jobs=[
                messages.WaitingJob(
                    job_id=case.job_id,
                    subject=bytes.fromhex(case.subject),
                    bound_job=case.job.encode("ascii"),
                    waits_for=case.missing,
                    said=[
                        messages.Word(by=who, yes=yes, reason=why)
                        for who, (yes, why) in case.said.items()
                    ],
                )
                for case in shown
            ],
            more=len(waiting) - len(shown),
        )

    def Approve(
        self, request: messages.ApproveRequest, context: grpc.ServicerContext
    ) -> messages.ApproveReply:
        """The word of the client that asks, on one job."""
        job_id, who = uploads.checked_job_id(request.job_id), caller(context).name
        reason = clean(request.reason.replace("\n", " "), 300)
        case = self._approvals.say(
            job_id, request.subject.hex(), who, yes=request.yes, reason=reason
        )
        _log.info("job judged", job=job_id, by=who, yes=request.yes)
        return messages.ApproveReply(waits_for=case.missing)

    # -- the coordinator -------------------------------------------------------------------------

    def Review(
        self, request: messages.ReviewRequest, context: grpc.ServicerContext
    ) -> messages.ReviewReply:
        """Whether this party would compute a job. Raises Refused naming the rule if not."""
        sender = caller(context).name
        job = read_bound(request.bound_job, f"coordinator {sender!r}")
        structlog.contextvars.bind_contextvars(job=job.job_id)
        return messages.ReviewReply(waits_for=self._workshop.review(job, sender))

    def Prepare(
        self, request: messages.PreparePartyRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.PreparePartyReply]:
        """Check and compile a job; asked again, the answer is the same."""
        sender = caller(context).name
        job = read_bound(request.bound_job, f"coordinator {sender!r}")
        structlog.contextvars.bind_contextvars(job=job.job_id)
        self._check_not_stopping()
        self._workshop.check_named(job, sender)  # a stranger must not take the job's id
        taken = self._jobs.take_up(job.job_id)

        def prepare() -> messages.PreparePartyReply:
            prepared = taken.prepare(job, sender)
            return messages.PreparePartyReply(
                job_digest=prepared.job_digest,
                program_digest=prepared.program_digest,
                rounds=prepared.rounds,
            )

        def sign(doing: str, worked: int) -> messages.PreparePartyReply:
            return messages.PreparePartyReply(doing=doing, worked=worked)

        yield from self._heart.beating((job.job_id, job.attempt), prepare, sign)

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
                done = task.future.result(PROGRESS)
            except Late:
                yield self._report(job, task, None)
                continue
            except Exception:
                if job.state.state is State.FAILED:
                    raise job.failure() from None
                raise
            yield self._report(job, task, done)
            return

    def Renew(
        self, request: messages.RenewLeaseRequest, context: grpc.ServicerContext
    ) -> messages.RenewLeaseReply:
        """The coordinator has not forgotten an attempt. Raises what has become of it."""
        self._jobs.find(request.job_id).renew(caller(context).name, request.attempt)
        return messages.RenewLeaseReply()

    def Abort(
        self, request: messages.AbortJobRequest, context: grpc.ServicerContext
    ) -> messages.AbortJobReply:
        """Give an attempt up; of one that is over or unknown there is nothing to give up."""
        if self._jobs.knows(request.job_id):
            job = self._jobs.find(request.job_id)
            job.abort(caller(context).name, request.attempt, request.reason[:300])
            _log.info("job aborted", job=request.job_id, attempt=request.attempt)
        return messages.AbortJobReply()

    def Forget(
        self, request: messages.ForgetJobRequest, context: grpc.ServicerContext
    ) -> messages.ForgetJobReply:
        """A job has ended: destroy what was kept to go on with it."""
        job_id = uploads.checked_job_id(request.job_id)
        sender = caller(context).name
        if request.refused and self._jobs.begun(job_id):
            return messages.ForgetJobReply()  # submitted twice: one was refused, the other was not
        self._jobs.forget(job_id, sender)
        self._approvals.forget(job_id, sender)
        _log.info("job forgotten", job=job_id)
        return messages.ForgetJobReply()

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

    def _report(self, job: Job, task: Task, done: Done | None) -> messages.RoundProgress:
        progress, _ = job.progress()
        doing, waits_for = task.attempt.doing()
        return messages.RoundProgress(
            progress_json=progress.to_json(),
            done=done is not None,
            stopped=done is not None and done.stopped,
            committed=done is not None and done.committed,
            traffic=_traffic(task.attempt.account()),
            doing=doing,
            waits_for=waits_for,
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
            memory_lent=self._workshop.memory_lent,
            memory_taken=self._workshop.memory_taken,
            jobs_lent=self._jobs.capacity,
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
