"""How far a job is, for those who watch it; what it is about, in words."""

from __future__ import annotations

from collections.abc import Sequence

from masque.jobs.conducting import ConductedJob
from masque.jobs.record import Progress
from masque.jobs.states import State


def progress_of(job: ConductedJob, seconds: float, traffic: Sequence[tuple[int, int]]) -> Progress:
    """`seconds` of its attempt so far, and of each party the exchanges and the bytes sent."""
    names = job.round_names
    over = job.state in (State.FINISHING, State.SUCCEEDED)
    running = job.state is State.TRAINING
    done = job.committed.round if job.committed and job.state is State.WAITING else 0
    return Progress(
        job=job.job_id,
        attempt=job.attempt,
        state=job.state.value,
        round_name=names[job.round] if names and (running or over) else "",
        round=job.round + 1 if running or over else done,
        of=len(names),
        seconds=round(seconds, 3),
        exchanges=max((count for count, _ in traffic), default=0),
        bytes_sent=sum(sent for _, sent in traffic),
        stopped=job.stopped,
        reason=job.reason,
        culprit=job.culprit,
    )


def about(job: ConductedJob) -> str:
    """What everybody is about, or waits for."""
    if job.state is State.TRAINING:
        return f"training round {job.round_names[job.round]!r}"
    if job.state is State.PREPARING:
        return "preparing"
    if job.state is State.FINISHING:
        return "handing over results"
    here = job.committed
    goes_on = f" to go on with training round {here.round + 1}" if here else ""
    return "waiting for " + (job.culprit or "its turn") + goes_on
