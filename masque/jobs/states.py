"""How the state machines of this package are written: a table, a verdict for every pair, no I/O.

A machine is a frozen job, a set of events, and a table that has a rule for every pair of state and
event: a transition, or a verdict on why there is none. `step(job, event)` returns the job after
it and the effects that the service must carry out, in order; before it does, it stores the job.
The machines: `masque.jobs.conducting` (at the coordinator), `masque.jobs.computing` (at a party).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from masque.errors import Conflict, JobFailed, ProtocolError

Job = TypeVar("Job")


class State(Enum):
    """States of both machines; `value` is the public word for it."""

    ABSENT = "unknown"  # party only: it has not been asked to prepare it
    SUBMITTED = "submitted"  # coordinator only: in the queue
    WAITING = "waiting"  # coordinator only: broken off, to go on when everybody is there again
    PREPARING = "preparing"
    READY = "ready"  # party only: between two training rounds
    TRAINING = "training"
    FINISHING = "finishing"  # coordinator: results are being sealed; party: they wait to be fetched
    SUCCEEDED = "succeeded"  # coordinator only
    FAILED = "failed"
    CANCELLED = "cancelled"  # coordinator only


class Verdict(Enum):
    """Why an event moves nothing in a state."""

    IGNORE = "messages have crossed, or the question is answered already: nothing happens"
    PEER = "a peer may not send this now: ProtocolError, which names it"
    OURS = "our own service may not do this now: AssertionError"
    USER = "somebody asks for what the state does not allow: Conflict"
    OVER = "the job has failed here, tell the peer that asks: JobFailed, which names the culprit"


Rule = Callable[[Any, Any], tuple[Any, tuple[Any, ...]]] | Verdict
Table = Mapping[type[Any], Mapping[State, Rule]]


def row(states: Sequence[State], *rules: Rule) -> dict[State, Rule]:
    """A row of a table: one rule for each state, in their order."""
    return dict(zip(states, rules, strict=True))


def settle(table: Table, job: Job, event: Any) -> tuple[Job, tuple[Any, ...]]:
    """Apply the table's rule for this job's state and this event.

    Raises what the rule's `Verdict` says; the job is then as it was.
    """
    state: State = job.state  # type: ignore[attr-defined]
    rule = table[type(event)][state]
    if not isinstance(rule, Verdict):
        after: tuple[Job, tuple[Any, ...]] = rule(job, event)
        return after
    if rule is Verdict.IGNORE:
        return job, ()
    name = job.job_id  # type: ignore[attr-defined]
    what = f"{event.words} while job {name} is {state.value}"
    if rule is Verdict.PEER:
        raise wrong(event.peer, what, name)
    if rule is Verdict.USER:
        raise Conflict(f"job {name} cannot be {event.words}: it is {state.value}.", job=name)
    if rule is Verdict.OVER:
        raise failed(job)
    raise AssertionError(what)


def wrong(peer: str, what: str, job: str) -> ProtocolError:
    """The error for what a peer may not send: `what` follows its name in the sentence."""
    return ProtocolError(f"{peer} {what}.", hint="Nothing was done.", peer=peer, job=job)


def failed(job: Any) -> JobFailed:
    """The error that tells how a job has failed, with its culprit; `again`: see `passing`."""
    by = f" ({job.culprit})" if job.culprit else ""
    return JobFailed(
        f"job {job.job_id}, attempt {job.attempt}, has failed{by}: {job.reason}.",
        service=job.culprit or None,
        job=job.job_id,
        again=job.again or None,
    )


def ends_in_time(done: int, rounds: int, seconds: float, left: float) -> bool:
    """Whether a job of `rounds` training rounds, `done` of them in `seconds`, ends in `left` more.

    What a service that is stopping asks before it begins another round; without a round that is
    done, nothing is known, and the answer is no.
    """
    return done > 0 and seconds / done * (rounds - done) <= left
