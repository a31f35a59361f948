"""How a job ended, in words for those who wait for it."""

from __future__ import annotations

from masque.errors import JobFailed
from masque.jobs.conducting import ConductedJob
from masque.jobs.states import State, failed


def bad(job: ConductedJob) -> bool:
    """Has it ended without a result?"""
    return job.ended and job.state is not State.SUCCEEDED


def ending(job: ConductedJob, hint: str = "") -> JobFailed:
    """The error by which those who wait for the job learn how it ended."""
    if job.state is State.FAILED:
        error = failed(job)
        return JobFailed(error.message, hint=hint, **error.where)
    assert job.state is State.CANCELLED, "the other way to end without a result"
    return JobFailed(f"Job {job.job_id} was {job.reason}.", job=job.job_id, cancelled=True)
