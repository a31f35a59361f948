"""Which jobs this dealer knows, and which of them it still deals: pure bookkeeping.

A job id belongs to one spec, an attempt is dealt once, a later attempt ends the earlier one. What
is remembered of a job that is over is its digests and how it ended.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from masque.errors import Conflict, JobFailed, MasqueError, NotFound, Refused, passing
from masque.jobs.bound import BoundJob
from services.dealer.dealing import Dealing

REMEMBERED = 10_000
"""Jobs that are remembered after their end."""


@dataclass
class Entry:
    """The latest attempt of a job: `dealing` while it lasts, then how it ended."""

    job_id: str
    attempt: int
    parties: tuple[str, ...]
    coordinator: str
    subject: bytes
    job_digest: bytes
    program_digest: bytes
    dealing: Dealing | None = field(repr=False)
    ended: str = ""
    culprit: str = ""
    again: bool = False
    complete: bool = False


class Register:
    """Entries by job id. Not thread-safe: its owner holds a lock."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    @property
    def active(self) -> list[Dealing]:
        """What is being dealt now."""
        return [e.dealing for e in self._entries.values() if e.dealing is not None]

    def full(self, job_id: str) -> bool:
        """Whether there is no room for a new attempt of this job."""
        entry = self._entries.get(job_id)
        earlier = entry is not None and entry.dealing is not None
        return len(self.active) - earlier >= self.capacity

    def known(self, job: BoundJob) -> Entry | None:
        """The entry of this very attempt, or None if it is new.

        One that has been dealt to its end is known as well. Raises Conflict for another spec under
        this id, Refused for an earlier attempt or if there is no room, JobFailed for a failed one.
        """
        entry = self._entries.get(job.job_id)
        if entry is None or (job.attempt > entry.attempt and job.subject() == entry.subject):
            if self.full(job.job_id):
                raise Refused(
                    f"the dealer is dealing {self.capacity} jobs, as many as it may.",
                    hint="Wait until one of them has ended.",
                    again=True,
                )
            return None
        if job.subject() != entry.subject or (
            job.attempt == entry.attempt and job.digest() != entry.job_digest
        ):
            raise Conflict(
                f"there are two specs for one job id, {job.job_id}.",
                hint="Submit the job again under an id of its own.",
                job=job.job_id,
            )
        if job.attempt < entry.attempt:
            raise Refused(
                f"attempt {job.attempt} of job {job.job_id} is over.",
                hint="Material is never dealt twice: begin a new attempt.",
                job=job.job_id,
            )
        if not entry.complete:
            self._still(entry)
        return entry

    def admit(self, entry: Entry) -> Dealing | None:
        """Take up a new attempt; returns what the earlier one was dealing, for its end."""
        earlier = self._entries.pop(entry.job_id, None)
        self._entries[entry.job_id] = entry
        self._forget()
        return earlier.dealing if earlier else None

    def find(self, job_id: str, attempt: int) -> Entry | None:
        """The entry of this attempt; None if it has not been announced (yet).

        Raises Refused if a later attempt has begun, JobFailed if it has ended badly.
        """
        entry = self._entries.get(job_id)
        if entry is None or attempt > entry.attempt:
            return None
        if attempt < entry.attempt:
            raise Refused(f"attempt {attempt} of job {job_id} is over.", job=job_id)
        self._still(entry)
        return entry

    def end(self, job_id: str, attempt: int, error: MasqueError | None) -> None:
        """An attempt has failed, or all of it was sent: nothing is kept but that it was."""
        entry = self._entries.get(job_id)
        if entry is not None and entry.attempt == attempt and entry.dealing is not None:
            entry.dealing, entry.complete = None, error is None
            entry.ended = str(error) if error else "all of it has been sent."
            entry.culprit = str(error.where.get("service") or "") if error else ""
            entry.again = error is not None and passing(error)

    def _still(self, entry: Entry) -> None:
        if entry.dealing is None:
            raise JobFailed(
                f"dealing for job {entry.job_id}, attempt {entry.attempt}, is over: {entry.ended}",
                hint="Material is never dealt twice: begin a new attempt.",
                job=entry.job_id,
                service=entry.culprit or None,
                again=entry.again or None,
            )

    def _forget(self) -> None:
        over = [key for key, entry in self._entries.items() if entry.dealing is None]
        for key in over[: max(0, len(over) - REMEMBERED)]:
            del self._entries[key]


def not_announced(job_id: str) -> NotFound:
    """The error for a job that the coordinator has not announced to this dealer."""
    return NotFound(
        f"the dealer has not been told of job {job_id}.",
        hint="The coordinator announces a job to the dealer when it prepares it.",
        job=job_id,
    )
