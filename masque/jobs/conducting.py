"""The life of a job at the coordinator, as a table; see `masque.jobs.states` for how to read it.

    submitted ─Begin─> preparing ─all Prepared─> training ─all RoundDone, last─> finishing
    finishing ─all Fetched─> succeeded
    preparing, training, finishing ─PeerFailed for good─> failed
    ... ─PeerFailed, PeerStopped, Overdue, Stopped, Restarted─> waiting ─Begin─> preparing
    or, if the results were computed, waiting ─Begin─> finishing
    any of these ─Expired─> failed, ─Cancel─> cancelled

The coordinator asks everybody for one thing at a time and waits for all of them. Whether training
stops early is decided by the parties among themselves; here it is only checked that they agree.
What breaks off an attempt ends the job only if the next attempt would end the same way. Each goes
on from the last training round that all parties have committed. Once all of them have computed
their results, which they keep on disk, they are asked for these again, and compute nothing anew.
"""

from __future__ import annotations

from dataclasses import replace

from masque.jobs.conducted import (
    ENDED,
    EVENTS,
    STATES,
    Absent,
    AskAbort,
    AskPrepare,
    AskResults,
    AskRound,
    Begin,
    Cancel,
    Committed,
    ConductedJob,
    Effect,
    Event,
    Expired,
    Fetched,
    Forget,
    Opposed,
    Overdue,
    PeerFailed,
    PeerStopped,
    Prepared,
    Restarted,
    RoundDone,
    Stopped,
    Told,
    Wait,
)
from masque.jobs.states import State, Table, Verdict, row, settle, wrong

__all__ = [
    "ENDED",
    "EVENTS",
    "MOST_FRUITLESS",
    "STATES",
    "TABLE",
    "Absent",
    "AskAbort",
    "AskPrepare",
    "AskResults",
    "AskRound",
    "Begin",
    "Cancel",
    "Committed",
    "ConductedJob",
    "Effect",
    "Event",
    "Expired",
    "Fetched",
    "Forget",
    "Opposed",
    "Overdue",
    "PeerFailed",
    "PeerStopped",
    "Prepared",
    "Restarted",
    "RoundDone",
    "Step",
    "Stopped",
    "Told",
    "Wait",
    "step",
]

MOST_FRUITLESS = 20
"""Attempts one after the other that commit nothing before a job is given up."""


Step = tuple[ConductedJob, tuple[Effect, ...]]


def step(job: ConductedJob, event: Event) -> Step:
    """The job after `event`, and what the coordinator must do, in order, once it is stored.

    Raises ProtocolError for what a peer may not send, Conflict for what a user may not ask,
    AssertionError for our own mistakes; the job is then unchanged. Messages of an attempt that is
    over are ignored.
    """
    if isinstance(event, Told):
        if event.peer not in job.everybody:
            raise wrong(event.peer, f"has no part in job {job.job_id}", job.job_id)
        if event.attempt > job.attempt:
            what = f"speaks of attempt {event.attempt} of job {job.job_id}, which has not begun"
            raise wrong(event.peer, what, job.job_id)
        if event.attempt < job.attempt:
            return job, ()
    return settle(TABLE, job, event)


def _begin(job: ConductedJob, event: Begin) -> Step:
    del event
    if job.due:
        after = replace(job, state=State.FINISHING, waiting=job.due, due=frozenset())
        return after, (AskResults(job.due),)
    everybody, here = job.everybody, job.committed
    begun = ConductedJob(
        job.job_id,
        job.parties,
        job.dealer,
        State.PREPARING,
        job.attempt + (job.state is State.WAITING),
        waiting=everybody,
        stopped=here is not None and here.stopped,
        resumed=here,
        committed=here,
        fruitless=job.fruitless,
        begun=job.begun,
    )
    return begun, (AskPrepare(everybody),)


def _prepared(job: ConductedJob, event: Prepared) -> Step:
    _expected(job, event, event.words)
    if event.peer in job.parties and not event.round_names:
        raise wrong(event.peer, f"compiled job {job.job_id} to no training round", job.job_id)
    same_program = job.program in {b"", event.program}
    same_rounds = () in {job.round_names, event.round_names} or job.round_names == event.round_names
    if not (same_program and same_rounds):
        return _another_program(job, event.peer)
    if event.round_names and not event.round_names[-1]:
        raise wrong(event.peer, f"compiled job {job.job_id} to nothing to do", job.job_id)
    waiting = job.waiting - {event.peer}
    names = event.round_names or job.round_names
    job = replace(job, waiting=waiting, program=event.program, round_names=names)
    if waiting:
        return job, ()
    return _ask_round(replace(job, state=State.TRAINING), 0)


def _another_program(job: ConductedJob, peer: str) -> Step:
    """Of two that differ, nobody knows who is wrong; of more, who differs from those that agree."""
    others = job.everybody - job.waiting
    check = "check that all services run the same version of Masque"
    if len(others) > 1:
        told = f"it compiled another program than the others; {check}"
        return _end(job, State.FAILED, told, peer)
    told = f"they compiled different programs; {check}"
    return _end(job, State.FAILED, told, ", ".join(sorted(others | {peer})))


def _round_done(job: ConductedJob, event: RoundDone) -> Step:
    _expected(job, event, f"said that training round {event.round} is done")
    if event.round != job.round:
        what = f"ran training round {event.round} of job {job.job_id} instead of {job.round}"
        raise wrong(event.peer, what, job.job_id)
    stopping = job.stopping | {event.peer} if event.stopped else job.stopping
    committing = job.committing | {event.peer} if event.committed else job.committing
    waiting = job.waiting - {event.peer}
    job = replace(job, waiting=waiting, stopping=stopping, committing=committing)
    if job.waiting:
        return job, ()
    if stopping and stopping != frozenset(job.parties):
        names = ", ".join(sorted(stopping))
        return _end(job, State.FAILED, "the parties do not agree on stopping early", names)
    job = replace(job, stopped=job.stopped or bool(stopping))
    if committing == frozenset(job.parties):
        here = Committed(job.attempt, job.round + 1, job.stopped)
        job = replace(job, committed=here, fruitless=0)
    if job.round + 1 < len(job.round_names):
        return _ask_round(job, job.round + 1)
    parties = frozenset(job.parties)
    return replace(job, state=State.FINISHING, waiting=parties), (AskResults(parties),)


def _fetched(job: ConductedJob, event: Fetched) -> Step:
    _expected(job, event, event.words)
    waiting = job.waiting - {event.peer}
    if waiting:
        return replace(job, waiting=waiting, fruitless=0), ()
    parties = frozenset(job.parties)
    return replace(job, waiting=waiting, state=State.SUCCEEDED), (Forget(parties),)


def _peer_failed(job: ConductedJob, event: PeerFailed) -> Step:
    if not event.again:
        return _end(job, State.FAILED, event.reason, event.peer)
    if event.lost and job.state is State.FINISHING:
        if job.waiting == frozenset(job.parties):
            return _another(job, event.reason, event.peer)
        told = f"{event.reason}, and others have handed over theirs, which parties do once"
        return _end(job, State.FAILED, told, event.peer)
    if event.lost:
        job = replace(job, committed=None)
    return _break_off(job, event.reason, event.peer)


def _peer_stopped(job: ConductedJob, event: PeerStopped) -> Step:
    return _break_off(job, f"{event.peer} was stopped", event.peer)


def _overdue(job: ConductedJob, event: Overdue) -> Step:
    return _break_off(job, event.doing, event.culprit)


def _absent(job: ConductedJob, event: Absent) -> Step:
    after = replace(job, reason=event.reason, culprit=event.culprit)
    return after, (Wait(0),)


def _opposed(job: ConductedJob, event: Opposed) -> Step:
    return _end(job, State.FAILED, event.reason, event.culprit)


def _expired(job: ConductedJob, event: Expired) -> Step:
    culprit = event.culprit or job.culprit or ", ".join(sorted(job.waiting))
    said = f"; {job.reason}" if job.reason else ""
    return _end(job, State.FAILED, f"its time was used up while {event.doing}{said}", culprit)


def _cancel(job: ConductedJob, event: Cancel) -> Step:
    return _end(job, State.CANCELLED, f"cancelled by {event.by}", "")


def _stopped(job: ConductedJob, event: Stopped) -> Step:
    del event
    return _break_off(job, "the coordinator was stopped", "")


def _restarted(job: ConductedJob, event: Restarted) -> Step:
    return _break_off(job, event.reason, "")


def _expected(job: ConductedJob, event: Prepared | RoundDone | Fetched, what: str) -> None:
    if event.peer not in job.waiting:
        raise wrong(event.peer, f"{what} in job {job.job_id} without being asked", job.job_id)


def _ask_round(job: ConductedJob, number: int) -> Step:
    """Ask for training round `number`, or the next one that is not over already."""
    while not job.round_names[number]:
        number += 1
    parties, nobody = frozenset(job.parties), frozenset[str]()
    job = replace(job, round=number, waiting=parties, stopping=nobody, committing=nobody)
    return job, (AskRound(parties, number),)


def _break_off(job: ConductedJob, reason: str, culprit: str) -> Step:
    """For now; the attempt itself goes on if only results are to be handed over."""
    if job.state is not State.FINISHING:
        return _another(job, reason, culprit)
    return _wait(job, reason, culprit, due=job.waiting)


def _another(job: ConductedJob, reason: str, culprit: str) -> Step:
    """The attempt is over, the job is not."""
    after, effects = _wait(job, reason, culprit)
    if after.ended:
        return after, effects
    return after, (AskAbort(job.everybody, reason), *effects)


def _wait(job: ConductedJob, reason: str, culprit: str, due: frozenset[str] = frozenset()) -> Step:
    """The job waits, unless it has begun again and again and has led nowhere."""
    fruitless = job.fruitless + 1
    if fruitless >= MOST_FRUITLESS:
        told = f"{reason} (the last of {fruitless} attempts in a row that came to nothing)"
        return _end(job, State.FAILED, told, culprit)
    after = replace(
        job,
        state=State.WAITING,
        reason=reason,
        culprit=culprit,
        waiting=frozenset(),
        due=due,
        fruitless=fruitless,
    )
    return after, (Wait(fruitless),)


def _end(job: ConductedJob, state: State, reason: str, culprit: str) -> Step:
    running = job.state not in (State.SUBMITTED, State.WAITING)
    effects: tuple[Effect, ...] = (AskAbort(job.everybody, reason),) if running else ()
    effects += (Forget(frozenset(job.parties)),)
    return replace(job, state=state, reason=reason, culprit=culprit, waiting=frozenset()), effects


_IGNORE, _PEER, _OURS, _USER = Verdict.IGNORE, Verdict.PEER, Verdict.OURS, Verdict.USER

TABLE: Table = {
    # submitted, waiting, preparing, training, finishing; succeeded, failed, cancelled
    Begin: row(STATES, _begin, _begin, *[_OURS] * 6),
    Prepared: row(STATES, _PEER, _IGNORE, _prepared, _PEER, _PEER, *[_IGNORE] * 3),
    RoundDone: row(STATES, _PEER, _IGNORE, _PEER, _round_done, _PEER, *[_IGNORE] * 3),
    Fetched: row(STATES, _PEER, _IGNORE, _PEER, _PEER, _fetched, *[_IGNORE] * 3),
    PeerFailed: row(STATES, _peer_failed, _IGNORE, *[_peer_failed] * 3, *[_IGNORE] * 3),
    PeerStopped: row(STATES, _peer_stopped, _IGNORE, *[_peer_stopped] * 3, *[_IGNORE] * 3),
    Overdue: row(STATES, _overdue, _IGNORE, *[_overdue] * 3, *[_IGNORE] * 3),
    Absent: row(STATES, _absent, _absent, *[_OURS] * 3, *[_IGNORE] * 3),
    Opposed: row(STATES, _opposed, _opposed, *[_OURS] * 3, *[_IGNORE] * 3),
    Expired: row(STATES, *[_expired] * 5, *[_IGNORE] * 3),
    Cancel: row(STATES, *[_cancel] * 5, *[_USER] * 3),
    Stopped: row(STATES, _IGNORE, _IGNORE, *[_stopped] * 3, *[_IGNORE] * 3),
    Restarted: row(STATES, _IGNORE, _IGNORE, *[_restarted] * 3, *[_IGNORE] * 3),
}
"""What happens in every state on every event."""
