"""Jobs at the coordinator: submit, watch, list, cancel."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from masque.client.services import BRIEF, Services
from masque.errors import JobFailed, MasqueError, NotFound
from masque.jobs import spec
from masque.jobs.record import Progress, read_progress
from masque.jobs.submission import submission
from masque.v1 import coordinator_pb2 as messages
from masque.wire.failures import unpack
from masque.wire.recipients import load_recipient
from masque.wire.submissions import sign_submission

SUBMIT = 90.0
WATCH = 7 * 24 * 3600.0
"""Seconds that one call may watch."""


@dataclass(frozen=True)
class JobEvent:
    """One event of a job: its state, how far it is, and the error if it ended badly."""

    state: str
    progress: Progress
    ended: bool
    error: MasqueError | None


@dataclass(frozen=True)
class JobView:
    """A job in a list."""

    job_id: str
    name: str
    state: str
    attempt: int
    submitted: str
    ended: str
    client: str
    progress: Progress
    error: MasqueError | None


def read_job(path: str | Path) -> tuple[str, spec.JobSpec]:
    """The text of a job file, and the job. Raises SpecError with every mistake in it."""
    parsed = spec.load(path)
    return Path(path).read_text(encoding="utf-8-sig"), parsed


def submit(services: Services, text: str, job: spec.JobSpec, job_id: str | None = None) -> str:
    """Sign a job and hand it to the coordinator with the keys of its recipients; returns its id.

    The same submission under the same id is one job. Raises SpecError for what does not fit the
    data sets, NotFound for a recipient without a key here.
    """
    chosen = job_id or new_id(job.name)
    request = submission_request(services, text, job, chosen)
    with services.coordinator.calling() as stub:
        return str(stub.Submit(request, timeout=SUBMIT).job_id)


def submission_request(
    services: Services, text: str, job: spec.JobSpec, job_id: str
) -> messages.SubmitRequest:
    """What is sent, signed with our certificate; raises as `submit`."""
    keys = recipient_keys(services, job.recipients)
    credentials = services.credentials.renewed()
    statement = submission(
        job,
        {recipient.name: recipient.key for recipient in keys},
        project=credentials.identity.project,
        client=credentials.identity.name,
        job_id=job_id,
        coordinator=services.coordinator.name,
        parties=[party.name for party in services.parties],
        time=time.time(),
    )
    return messages.SubmitRequest(
        spec_yaml=text,
        recipients=keys,
        job_id=job_id,
        submission=sign_submission(statement, credentials),
    )


@contextlib.contextmanager
def ours(services: Services, text: str, job: spec.JobSpec) -> Iterator[str]:
    """Submit a job that is of no use to anybody but the block, and end it if the block breaks off.

    An interruption while the coordinator still accepts the job counts: it is submitted once more
    under its id, which waits for the first submission or comes to nothing, and then cancelled.
    """
    job_id, submitted = new_id(job.name), False
    try:
        submit(services, text, job, job_id)
        submitted = True
        yield job_id
    except BaseException as error:
        with contextlib.suppress(MasqueError):
            if not submitted and not isinstance(error, MasqueError):
                submit(services, text, job, job_id)
            cancel(services, job_id)
        raise


def new_id(name: str) -> str:
    """A job id nobody else draws: the name and 48 random bits."""
    return f"{name[:48]}-{secrets.token_hex(6)}"


def recipient_keys(services: Services, names: Sequence[str]) -> list[messages.RecipientKey]:
    """Public keys from the profile's directory. Raises NotFound naming who has none there."""
    directory, found = services.profile.recipients, []
    for name in names:
        try:
            recipient = load_recipient(directory, name, services.credentials.renewed().trust)
        except NotFound:
            raise NotFound(
                f"There is no public key of the recipient {name!r} in {directory}.",
                hint=f"Put {name}.recipient.pub there; its owner makes it with"
                " `masque pki recipient`.",
                recipient=name,
                file=str(directory / f"{name}.recipient.pub"),
            ) from None
        key = recipient.key.public_bytes_raw().hex()
        found.append(messages.RecipientKey(name=name, key=key, proof=recipient.text))
    return found


def watch(services: Services, job_id: str) -> Iterator[JobEvent]:
    """Every event of a job from its beginning, until it has ended."""
    request = messages.WatchRequest(job_id=job_id)
    sender = str(services.coordinator.identity)
    ended = False
    with services.coordinator.calling() as stub:
        call = stub.Watch(request, timeout=WATCH)
        try:
            for event in call:
                ended = event.ended
                error = unpack(event.error_json.encode()) if event.error_json else None
                progress = read_progress(event.progress_json, sender)
                yield JobEvent(event.state, progress, event.ended, error)
        finally:
            call.cancel()
    if not ended:
        raise MasqueError(
            f"The coordinator stopped telling of job {job_id} before it had ended.",
            hint=f"Ask again: masque watch {job_id}",
            job=job_id,
        )


def finished(services: Services, job_id: str) -> JobEvent:
    """Wait for the end of a job. Raises JobFailed if it ended badly."""
    last = None
    for event in watch(services, job_id):
        last = event
    assert last is not None, "watch yields or raises"
    return check(last, job_id)


def check(last: JobEvent, job_id: str) -> JobEvent:
    """The last event of a job that succeeded; otherwise its error is raised."""
    if last.state == "succeeded":
        return last
    raise last.error or JobFailed(f"Job {job_id} is {last.state}.", job=job_id)


def listed(services: Services, limit: int = 100) -> list[JobView]:
    """The latest jobs, the newest first."""
    sender = str(services.coordinator.identity)
    with services.coordinator.calling() as stub:
        reply = stub.List(messages.ListJobsRequest(limit=limit), timeout=BRIEF)
    return [
        JobView(
            job.job_id,
            job.name,
            job.state,
            job.attempt,
            job.submitted,
            job.ended,
            job.client,
            read_progress(job.progress_json, sender),
            unpack(job.error_json.encode()) if job.error_json else None,
        )
        for job in reply.jobs
    ]


def cancel(services: Services, job_id: str) -> str:
    """End a job of ours; returns its state. Raises Conflict if it has ended already."""
    with services.coordinator.calling() as stub:
        return str(stub.Cancel(messages.CancelRequest(job_id=job_id), timeout=BRIEF).state)
