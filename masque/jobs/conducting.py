"""The life of a job at the coordinator, as a table; see `masque.jobs.states` for how to read it.

    submitted ─Begin─> preparing ─all Prepared─> training ─all RoundDone, last─> finishing
    finishing ─all Fetched─> succeeded
    any of these ─PeerFailed, Overdue─> failed, ─Cancel─> cancelled
    any of these ─PeerStopped, Stopped, Restarted─> interrupted
    failed, cancelled, interrupted ─Retry─> submitted, as the next attempt

The coordinator asks everybody for one thing at a time and waits for all of them. Whether training
stops early is decided by the parties among themselves; here it is only checked that they agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from masque.jobs.states import State, Table, Verdict, row, settle, wrong

STATES = (
    State.SUBMITTED,
    State.PREPARING,
    State.TRAINING,
    State.FINISHING,
    State.SUCCEEDED,
    State.FAILED,
    State.CANCELLED,
    State.INTERRUPTED,
)
ENDED = frozenset(STATES[4:])


@dataclass(frozen=True)
class ConductedJob:
    """A job as the coordinator knows it. `round` counts from 0, `round_names` has all of them.

    `waiting` are those asked and not heard of; `program` is the digest of the program that the
    first of them has compiled.
    """

    job_id: str
    parties: tuple[str, ...]
    dealer: str
    state: State = State.SUBMITTED
    attempt: int = 1
    waiting: frozenset[str] = frozenset()
    program: bytes = b""
    round_names: tuple[str, ...] = ()
    round: int = 0
    stopping: frozenset[str] = frozenset()
    stopped: bool = False
    reason: str = ""
    culprit: str = ""

    @property
    def everybody(self) -> frozenset[str]:
        """The parties and the dealer."""
        return frozenset({*self.parties, self.dealer})

    @property
    def ended(self) -> bool:
        """Will nothing more happen unless somebody asks for another attempt?"""
        return self.state in ENDED


@dataclass(frozen=True)
class Begin:
    """Ours: the job's turn has come."""

    words: ClassVar[str] = "began"


@dataclass(frozen=True)
class Prepared:
    """A party or the dealer has compiled the program: its digest; a party: its rounds' names."""

    peer: str
    attempt: int
    program: bytes
    round_names: tuple[str, ...]
    words: ClassVar[str] = "said that it is prepared"


@dataclass(frozen=True)
class RoundDone:
    """A party has run (or skipped) training round `round`; `stopped`: it has been told to stop."""

    peer: str
    attempt: int
    round: int
    stopped: bool
    words: ClassVar[str] = "said that a training round is done"


@dataclass(frozen=True)
class Fetched:
    """A party's sealed results have arrived, or it has kept its shares."""

    peer: str
    attempt: int
    words: ClassVar[str] = "handed over results"


@dataclass(frozen=True)
class PeerFailed:
    """A peer said no, does not answer, or broke the protocol: `peer` is the culprit."""

    peer: str
    attempt: int
    reason: str
    words: ClassVar[str] = "reported a failure"


@dataclass(frozen=True)
class PeerStopped:
    """Somebody whose service it is has stopped a peer, in good order: that is no failure."""

    peer: str
    attempt: int
    words: ClassVar[str] = "reported a stop"


@dataclass(frozen=True)
class Overdue:
    """Ours: the deadline of what was asked has passed."""

    words: ClassVar[str] = "gave up waiting"


@dataclass(frozen=True)
class Cancel:
    """A client wants no more of it."""

    by: str
    words: ClassVar[str] = "cancelled"


@dataclass(frozen=True)
class Stopped:
    """Ours: the coordinator was told to stop, and the job cannot end in time."""

    words: ClassVar[str] = "stopped"


@dataclass(frozen=True)
class Restarted:
    """Ours: the coordinator has come up again and found the job on disk, or broke off itself."""

    reason: str = "the coordinator was restarted"
    words: ClassVar[str] = "restarted"


@dataclass(frozen=True)
class Retry:
    """A client wants another attempt."""

    words: ClassVar[str] = "tried again"


Told = Prepared | RoundDone | Fetched | PeerFailed | PeerStopped
"""What comes from peers."""

Event = Told | Begin | Overdue | Cancel | Stopped | Restarted | Retry
EVENTS = (
    Begin,
    Prepared,
    RoundDone,
    Fetched,
    PeerFailed,
    PeerStopped,
    Overdue,
    Cancel,
    Stopped,
    Restarted,
    Retry,
)


@dataclass(frozen=True)
class AskPrepare:
    """Send the bound job of this attempt to `peers`."""

    peers: frozenset[str]


@dataclass(frozen=True)
class AskRound:
    """Tell `peers` to run training round `round`."""

    peers: frozenset[str]
    round: int


@dataclass(frozen=True)
class AskResults:
    """Fetch the sealed results of `peers`."""

    peers: frozenset[str]


@dataclass(frozen=True)
class AskAbort:
    """Tell `peers`, as far as they answer, that the attempt is over and why."""

    peers: frozenset[str]
    reason: str


Effect = AskPrepare | AskRound | AskResults | AskAbort
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
    everybody = job.everybody
    return replace(job, state=State.PREPARING, waiting=everybody), (AskPrepare(everybody),)


def _prepared(job: ConductedJob, event: Prepared) -> Step:
    _expected(job, event, event.words)
    if event.peer in job.parties and not event.round_names:
        raise wrong(event.peer, f"compiled job {job.job_id} to no training round", job.job_id)
    same_program = job.program in {b"", event.program}
    same_rounds = () in {job.round_names, event.round_names} or job.round_names == event.round_names
    if not (same_program and same_rounds):
        return _end(
            job,
            State.FAILED,
            "it compiled another program than the others;"
            " check that all services run the same version of Masque",
            event.peer,
        )
    waiting = job.waiting - {event.peer}
    names = event.round_names or job.round_names
    job = replace(job, waiting=waiting, program=event.program, round_names=names)
    if waiting:
        return job, ()
    return _ask_round(replace(job, state=State.TRAINING), 0)


def _round_done(job: ConductedJob, event: RoundDone) -> Step:
    _expected(job, event, f"said that training round {event.round} is done")
    if event.round != job.round:
        what = f"ran training round {event.round} of job {job.job_id} instead of {job.round}"
        raise wrong(event.peer, what, job.job_id)
    stopping = job.stopping | {event.peer} if event.stopped else job.stopping
    job = replace(job, waiting=job.waiting - {event.peer}, stopping=stopping)
    if job.waiting:
        return job, ()
    if stopping and stopping != frozenset(job.parties):
        names = ", ".join(sorted(stopping))
        return _end(job, State.FAILED, "the parties do not agree on stopping early", names)
    job = replace(job, stopped=job.stopped or bool(stopping))
    if job.round + 1 < len(job.round_names):
        return _ask_round(job, job.round + 1)
    parties = frozenset(job.parties)
    return replace(job, state=State.FINISHING, waiting=parties), (AskResults(parties),)


def _fetched(job: ConductedJob, event: Fetched) -> Step:
    _expected(job, event, event.words)
    waiting = job.waiting - {event.peer}
    state = job.state if waiting else State.SUCCEEDED
    return replace(job, waiting=waiting, state=state), ()


def _peer_failed(job: ConductedJob, event: PeerFailed) -> Step:
    return _end(job, State.FAILED, event.reason, event.peer)


def _peer_stopped(job: ConductedJob, event: PeerStopped) -> Step:
    return _end(job, State.INTERRUPTED, f"{event.peer} was stopped", event.peer)


def _overdue(job: ConductedJob, event: Overdue) -> Step:
    del event
    return _end(job, State.FAILED, "no answer in time", ", ".join(sorted(job.waiting)))


def _cancel(job: ConductedJob, event: Cancel) -> Step:
    return _end(job, State.CANCELLED, f"cancelled by {event.by}", "")


def _stopped(job: ConductedJob, event: Stopped) -> Step:
    del event
    return _end(job, State.INTERRUPTED, "the coordinator was stopped", "")


def _restarted(job: ConductedJob, event: Restarted) -> Step:
    return _end(job, State.INTERRUPTED, event.reason, "")


def _retry(job: ConductedJob, event: Retry) -> Step:
    del event
    fresh = ConductedJob(job.job_id, job.parties, job.dealer, attempt=job.attempt + 1)
    return fresh, ()


def _expected(job: ConductedJob, event: Prepared | RoundDone | Fetched, what: str) -> None:
    if event.peer not in job.waiting:
        raise wrong(event.peer, f"{what} in job {job.job_id} without being asked", job.job_id)


def _ask_round(job: ConductedJob, number: int) -> Step:
    parties = frozenset(job.parties)
    job = replace(job, round=number, waiting=parties, stopping=frozenset())
    return job, (AskRound(parties, number),)


def _end(job: ConductedJob, state: State, reason: str, culprit: str) -> Step:
    asked = job.everybody if job.state is not State.SUBMITTED else frozenset[str]()
    effects = (AskAbort(asked, reason),) if asked else ()
    return replace(job, state=state, reason=reason, culprit=culprit, waiting=frozenset()), effects


_IGNORE, _PEER, _OURS, _USER = Verdict.IGNORE, Verdict.PEER, Verdict.OURS, Verdict.USER

TABLE: Table = {
    # submitted, preparing, training, finishing; succeeded, failed, cancelled, interrupted
    Begin: row(STATES, _begin, *[_OURS] * 7),
    Prepared: row(STATES, _PEER, _prepared, _PEER, _PEER, *[_IGNORE] * 4),
    RoundDone: row(STATES, _PEER, _PEER, _round_done, _PEER, *[_IGNORE] * 4),
    Fetched: row(STATES, _PEER, _PEER, _PEER, _fetched, *[_IGNORE] * 4),
    PeerFailed: row(STATES, *[_peer_failed] * 4, *[_IGNORE] * 4),
    PeerStopped: row(STATES, *[_peer_stopped] * 4, *[_IGNORE] * 4),
    Overdue: row(STATES, *[_overdue] * 4, *[_IGNORE] * 4),
    Cancel: row(STATES, *[_cancel] * 4, _USER, _USER, _USER, _cancel),
    Stopped: row(STATES, _IGNORE, *[_stopped] * 3, *[_IGNORE] * 4),
    Restarted: row(STATES, _IGNORE, *[_restarted] * 3, *[_IGNORE] * 4),
    Retry: row(STATES, *[_USER] * 4, _USER, _retry, _retry, _retry),
}
"""What happens in every state on every event."""
