"""The life of a job at a computing party, as a table; see `masque.jobs.states` for how to read it.

    absent ─Prepare─> preparing ─Compiled─> ready ─RunRound k─> training ─RoundFinished─> ready
    ... the last ─RoundFinished─> finishing, from where results can be fetched as often as needed
    any of these ─Abort, Broken, Overdue─> failed ─Prepare of a later attempt─> preparing

A party obeys one coordinator a job, runs training rounds 0, 1, 2, ... each once, and takes an
attempt once: an attempt that this party has seen before, even before a crash, is refused, since
its masks may have been used. Once results were handed over, or the coordinator has said that the
job has ended, there is no later attempt: what a job releases is released once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from masque.jobs.states import State, Table, Verdict, failed, row, settle, wrong

STATES = (
    State.ABSENT,
    State.PREPARING,
    State.READY,
    State.TRAINING,
    State.FINISHING,
    State.FAILED,
)


@dataclass(frozen=True)
class ComputedJob:
    """A job as a party knows it. `round` is the training round under way or due next, from 0.

    `digest` is the bound job's, `subject` that of the job without its attempt. `again`: it has
    failed, and another attempt may go well. `over`: no other attempt may follow, since its results
    were handed over, or its coordinator has said that it has ended.
    """

    job_id: str
    state: State = State.ABSENT
    coordinator: str = ""
    attempt: int = 0
    digest: bytes = b""
    subject: bytes = b""
    round: int = 0
    rounds: int = 0
    reason: str = ""
    culprit: str = ""
    again: bool = False
    over: bool = False


def recovered(
    job_id: str, coordinator: str, attempt: int, subject: bytes, *, over: bool = False
) -> ComputedJob:
    """A job that this party took part in before it was restarted, from what `Remember` stored."""
    return ComputedJob(
        job_id,
        State.FAILED,
        coordinator,
        attempt,
        subject=subject,
        reason="this party was restarted",
        again=not over,
        over=over,
    )


def finished(job: ComputedJob, digest: bytes) -> ComputedJob:
    """A recovered job whose results are on disk, sealed in the attempt that it was in."""
    return replace(job, state=State.FINISHING, digest=digest, reason="", again=False)


@dataclass(frozen=True)
class Prepare:
    """The coordinator sent a bound job."""

    peer: str
    attempt: int
    digest: bytes
    subject: bytes
    words: ClassVar[str] = "asked to prepare"


@dataclass(frozen=True)
class Compiled:
    """Ours: the policy allows the job and its program has `rounds` training rounds."""

    attempt: int
    rounds: int
    words: ClassVar[str] = "compiled"


@dataclass(frozen=True)
class RunRound:
    """The coordinator asked for training round `round`."""

    peer: str
    attempt: int
    round: int
    words: ClassVar[str] = "asked for a training round"


@dataclass(frozen=True)
class RoundFinished:
    """Ours: the worker has run (or skipped) training round `round`."""

    attempt: int
    round: int
    words: ClassVar[str] = "finished a training round"


@dataclass(frozen=True)
class Broken:
    """Ours: it cannot go on, because of `culprit` (a service, or nobody); `again`: just now."""

    attempt: int
    reason: str
    culprit: str
    again: bool
    words: ClassVar[str] = "broke"


@dataclass(frozen=True)
class FetchResults:
    """The coordinator asked for the sealed results."""

    peer: str
    attempt: int
    words: ClassVar[str] = "asked for results"


@dataclass(frozen=True)
class Abort:
    """The coordinator ended the attempt."""

    peer: str
    attempt: int
    reason: str
    words: ClassVar[str] = "aborted"


@dataclass(frozen=True)
class Forget:
    """The coordinator says that the job has ended."""

    peer: str
    words: ClassVar[str] = "ended"


@dataclass(frozen=True)
class Overdue:
    """Ours: the coordinator has been silent for too long."""

    attempt: int
    words: ClassVar[str] = "gave up waiting"


@dataclass(frozen=True)
class Renew:
    """The coordinator still wants this attempt, though it asks for nothing just now."""

    peer: str
    attempt: int
    words: ClassVar[str] = "renewed the lease"


Asked = RunRound | FetchResults | Renew | Abort
"""What a coordinator sends about an attempt."""

Event = Prepare | Compiled | RoundFinished | Broken | Overdue | Forget | Asked
EVENTS = (
    Prepare,
    Compiled,
    RunRound,
    RoundFinished,
    Broken,
    FetchResults,
    Renew,
    Abort,
    Forget,
    Overdue,
)


@dataclass(frozen=True)
class Remember:
    """Store, before anything else, that this attempt is taken, or the last; see `recovered`."""

    attempt: int
    subject: bytes


@dataclass(frozen=True)
class Compile:
    """Check the bound job against policy and data sets, compile it, then feed in `Compiled`."""


@dataclass(frozen=True)
class Run:
    """Run training round `round` in the worker, then feed in `RoundFinished`."""

    round: int


@dataclass(frozen=True)
class Finish:
    """Seal, keep or publish what the job promised, store that, then destroy the rest of it."""


@dataclass(frozen=True)
class GiveResults:
    """Answer with the sealed results."""


@dataclass(frozen=True)
class Release:
    """Stop the worker, close its streams, destroy shares, material and results of `attempt`."""

    attempt: int
    reason: str


Effect = Remember | Compile | Run | Finish | GiveResults | Release
Step = tuple[ComputedJob, tuple[Effect, ...]]


def step(job: ComputedJob, event: Event) -> Step:
    """The job after `event`, and what the party must do, in order.

    Raises ProtocolError for what a coordinator may not send, JobFailed when it asks about a job
    that has failed here, AssertionError for our own mistakes; the job is then unchanged.
    """
    if isinstance(event, Prepare):
        return settle(TABLE, job, event)
    if isinstance(event, Forget) and job.state is not State.ABSENT:
        _same_coordinator(job, event.peer)
    if isinstance(event, Asked):
        if job.state is not State.ABSENT:
            _same_coordinator(job, event.peer)
        if isinstance(event, Abort) and event.attempt != job.attempt:
            return job, ()  # of an attempt that is over, or that never came here
        if job.state is not State.ABSENT and event.attempt != job.attempt:
            what = (
                f"{event.words} in attempt {event.attempt} of job {job.job_id},"
                f" which is in attempt {job.attempt}"
            )
            raise wrong(event.peer, what, job.job_id)
    elif not isinstance(event, Forget) and event.attempt < job.attempt:
        return job, ()  # the worker of an attempt that is over
    return settle(TABLE, job, event)


def _prepare(job: ComputedJob, event: Prepare) -> Step:
    if event.attempt < 1:
        raise wrong(event.peer, f"sent job {job.job_id} without an attempt", job.job_id)
    taken = ComputedJob(
        job.job_id, State.PREPARING, event.peer, event.attempt, event.digest, event.subject
    )
    return taken, (Remember(event.attempt, event.subject), Compile())


def _prepare_again(job: ComputedJob, event: Prepare) -> Step:
    """Prepare for a job id that is known: the same once more, or a later attempt of it."""
    _same_coordinator(job, event.peer)
    if event.subject != job.subject:
        raise wrong(event.peer, f"sent two specs for one job id, {job.job_id}", job.job_id)
    if event.attempt > job.attempt:
        if job.over:
            what = f"asked for attempt {event.attempt} of job {job.job_id}, which has ended"
            raise wrong(event.peer, what, job.job_id)
        after, effects = _prepare(job, event)
        if job.state is State.FAILED:
            return after, effects
        return after, (Release(job.attempt, "a later attempt has begun"), *effects)
    if event.attempt < job.attempt:
        what = f"asked for attempt {event.attempt} of job {job.job_id}, which is over"
        raise wrong(event.peer, what, job.job_id)
    if job.state is State.FAILED:
        raise failed(job)
    if event.digest != job.digest:
        what = f"let attempt {event.attempt} of job {job.job_id} go on from two places"
        raise wrong(event.peer, what, job.job_id)
    return job, ()


def _compiled(job: ComputedJob, event: Compiled) -> Step:
    assert event.rounds > 0, "a program has training rounds"
    return replace(job, state=State.READY, rounds=event.rounds), ()


def _run(job: ComputedJob, event: RunRound) -> Step:
    if event.round != job.round:
        what = f"asked for training round {event.round} of job {job.job_id} instead of {job.round}"
        raise wrong(event.peer, what, job.job_id)
    return replace(job, state=State.TRAINING), (Run(event.round),)


def _finished(job: ComputedJob, event: RoundFinished) -> Step:
    assert event.round == job.round, "the worker runs what it was told"
    job = replace(job, round=job.round + 1)
    if job.round < job.rounds:
        return replace(job, state=State.READY), ()
    return replace(job, state=State.FINISHING), (Finish(),)


def _give(job: ComputedJob, event: FetchResults) -> Step:
    """Results leave this party in one attempt only: another would release something else."""
    del event
    if job.over:
        return job, (GiveResults(),)
    return replace(job, over=True), (Remember(job.attempt, job.subject), GiveResults())


def _renew(job: ComputedJob, event: Renew) -> Step:
    del event
    return job, ()


def _broken(job: ComputedJob, event: Broken) -> Step:
    return _end(job, event.reason, event.culprit, again=event.again)


def _abort(job: ComputedJob, event: Abort) -> Step:
    return _end(job, event.reason or "the coordinator ended it", event.peer, again=True)


def _forget(job: ComputedJob, event: Forget) -> Step:
    remember: tuple[Effect, ...] = () if job.over else (Remember(job.attempt, job.subject),)
    if job.state is State.FAILED:
        return replace(job, over=True, again=False), remember
    ended, effects = _end(job, "the job has ended", event.peer, again=False)
    return replace(ended, over=True), (*remember, *effects)


def _overdue(job: ComputedJob, event: Overdue) -> Step:
    del event
    return _end(job, "the coordinator has been silent for too long", job.coordinator, again=True)


def _end(job: ComputedJob, reason: str, culprit: str, *, again: bool) -> Step:
    ended = replace(job, state=State.FAILED, reason=reason, culprit=culprit, again=again)
    return ended, (Release(job.attempt, reason),)


def _same_coordinator(job: ComputedJob, peer: str) -> None:
    if peer != job.coordinator:
        what = f"spoke about job {job.job_id}, which belongs to {job.coordinator}"
        raise wrong(peer, what, job.job_id)


_IGNORE, _PEER, _OURS, _OVER = Verdict.IGNORE, Verdict.PEER, Verdict.OURS, Verdict.OVER
_again = _prepare_again

TABLE: Table = {
    # the states: absent, preparing, ready, training, finishing, failed
    Prepare: row(STATES, _prepare, _again, _again, _again, _again, _again),
    Compiled: row(STATES, _OURS, _compiled, _OURS, _OURS, _OURS, _IGNORE),
    RunRound: row(STATES, _PEER, _PEER, _run, _PEER, _PEER, _OVER),
    RoundFinished: row(STATES, _OURS, _OURS, _OURS, _finished, _OURS, _IGNORE),
    Broken: row(STATES, _OURS, _broken, _broken, _broken, _broken, _IGNORE),
    FetchResults: row(STATES, _PEER, _PEER, _PEER, _PEER, _give, _OVER),
    Renew: row(STATES, _PEER, *[_renew] * 4, _OVER),
    Abort: row(STATES, _IGNORE, _abort, _abort, _abort, _abort, _IGNORE),
    Forget: row(STATES, _IGNORE, *[_forget] * 5),
    Overdue: row(STATES, _OURS, _overdue, _overdue, _overdue, _overdue, _IGNORE),
}
"""What happens in every state on every event."""
