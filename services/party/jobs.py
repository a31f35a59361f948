"""All jobs of a party: those in memory, and on disk which attempts it has ever taken.

    data/jobs/<job>.json     the latest attempt taken, before anything is done for it; whether it
                             is the last

so that a party that was restarted refuses an attempt whose masks it may have used.
"""

from __future__ import annotations

import json
from pathlib import Path
from threading import Lock

from masque.data.checkpoints import Checkpoints
from masque.data.disk import make_directory
from masque.errors import MasqueError, NotFound, Refused
from masque.jobs.computing import ComputedJob, finished, recovered
from masque.jobs.states import State
from services.party.deliveries import Deliveries
from services.party.job import Job, Workshop
from services.party.results import write_whole

REMEMBERED = 256
"""Jobs that are over and still in memory."""


class Memory:
    """Which attempts were taken, in files that survive a crash."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        make_directory(directory)

    def store(self, job: ComputedJob) -> None:
        """Returns once it is on disk. Raises MasqueError if it cannot be."""
        record = {
            "coordinator": job.coordinator,
            "attempt": job.attempt,
            "subject": job.subject.hex(),
            "over": job.over,
        }
        write_whole(self._directory / f"{job.job_id}.json", json.dumps(record).encode())

    def recall(self, job_id: str) -> ComputedJob:
        """The job as it was left: absent, or failed by a restart. `job_id` is a checked name."""
        path = self._directory / f"{job_id}.json"
        try:
            found = json.loads(path.read_bytes())
            subject, over = bytes.fromhex(found["subject"]), bool(found.get("over"))
            name, attempt = str(found["coordinator"]), int(found["attempt"])
            return recovered(job_id, name, attempt, subject, over=over)
        except FileNotFoundError:
            return ComputedJob(job_id)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ):
            raise MasqueError(
                f"what this party remembers of job {job_id} cannot be read.",
                hint="Submit the job again under another id.",
                file=str(path),
            ) from None


class Jobs:
    """Jobs by id; at most `capacity` of them busy at a time."""

    def __init__(
        self,
        memory: Memory,
        workshop: Workshop,
        checkpoints: Checkpoints,
        deliveries: Deliveries,
        capacity: int,
    ) -> None:
        self._memory, self._workshop, self.capacity = memory, workshop, capacity
        self._checkpoints, self._deliveries = checkpoints, deliveries
        self._lock = Lock()
        self._jobs: dict[str, Job] = {}
        for job_id in deliveries.jobs():
            self._take_up_finished(job_id)

    @property
    def busy(self) -> int:
        """How many are being prepared or trained."""
        with self._lock:
            return sum(job.busy for job in self._jobs.values())

    def all(self) -> list[Job]:
        """Every job in memory."""
        with self._lock:
            return list(self._jobs.values())

    def take_up(self, job_id: str) -> Job:
        """The job with this id, new or known; Refused when there is no room for another."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or not job.busy:
                busy = sum(other.busy for other in self._jobs.values())
                if busy >= self.capacity:
                    raise Refused(
                        f"this party is busy with {busy} jobs, as many as it may be.",
                        hint="Wait until one of them has ended.",
                        again=True,
                    )
            if job is None:
                self._forget()
                job = self._jobs[job_id] = Job(self._recall(job_id), self._workshop)
            return job

    def begun(self, job_id: str) -> bool:
        """Whether any attempt of a job has ever been taken here."""
        return self._memory.recall(job_id).attempt > 0

    def forget(self, job_id: str, sender: str) -> None:
        """A job has ended; of one that is unknown, or not the sender's, nothing is changed."""
        state = self._recall(job_id)
        if state.coordinator != sender:
            return
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            job = Job(state, self._workshop)
        job.forget(sender)
        self._deliveries.remove(job_id)
        self._checkpoints.forget(job_id)

    def knows(self, job_id: str) -> bool:
        """Whether this party has been told of it since its start."""
        with self._lock:
            return job_id in self._jobs

    def find(self, job_id: str) -> Job:
        """The job with this id; NotFound if this party has not been told of it since its start."""
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(
                f"this party has no job {job_id[:80]!r} under way.",
                hint="It was not prepared here, or this party was restarted: try the job again.",
            )
        return job

    def _recall(self, job_id: str) -> ComputedJob:
        """The job as it was left: finished, if its latest attempt has results to hand over."""
        job, delivery = self._memory.recall(job_id), self._deliveries.find(job_id)
        if delivery is None or delivery.attempt != job.attempt:
            return job
        return finished(job, delivery.digest)

    def _take_up_finished(self, job_id: str) -> None:
        """After a restart: results that nobody will come for are destroyed."""
        try:
            state = self._recall(job_id)
        except MasqueError:  # damaged: whoever asks for it is told
            return
        if state.state is State.FINISHING:
            self._jobs[job_id] = Job(state, self._workshop)
        else:
            self._deliveries.discard(job_id)

    def _forget(self) -> None:
        over = [key for key, job in self._jobs.items() if job.state.state is State.FAILED]
        for key in over[: max(0, len(over) - REMEMBERED)]:
            del self._jobs[key]
