from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from masque.errors import Conflict, ProtocolError
from masque.jobs.conducting import (
    ENDED,
    EVENTS,
    STATES,
    TABLE,
    AskAbort,
    AskPrepare,
    AskResults,
    AskRound,
    Begin,
    Cancel,
    ConductedJob,
    Effect,
    Event,
    Fetched,
    Overdue,
    PeerFailed,
    PeerStopped,
    Prepared,
    Restarted,
    Retry,
    RoundDone,
    Stopped,
    step,
)
from masque.jobs.states import State, Verdict, ends_in_time

PARTIES = ("party-0", "party-1")
ALL = frozenset({*PARTIES, "dealer"})
NEW = ConductedJob("job-1", PARTIES, "dealer")
ROUNDS = ("prepare", "epoch 1", "evaluate")
PROGRAM = b"p" * 32


def run(job: ConductedJob, *events: Event) -> tuple[ConductedJob, list[Effect]]:
    effects: list[Effect] = []
    for event in events:
        job, more = step(job, event)
        effects += more
    return job, effects


def prepared(attempt: int = 1) -> list[Event]:
    names = {"dealer": (), "party-0": ROUNDS, "party-1": ROUNDS}
    return [Prepared(peer, attempt, PROGRAM, rounds) for peer, rounds in names.items()]


def done(round: int, stopped: bool = False) -> list[Event]:
    return [RoundDone(peer, 1, round, stopped) for peer in PARTIES]


FETCHED: list[Event] = [Fetched(peer, 1) for peer in PARTIES]


def jobs() -> dict[State, ConductedJob]:
    """A job in each state."""
    preparing, _ = run(NEW, Begin())
    training, _ = run(preparing, *prepared())
    finishing, _ = run(training, *done(0), *done(1), *done(2))
    return {
        State.SUBMITTED: NEW,
        State.PREPARING: preparing,
        State.TRAINING: training,
        State.FINISHING: finishing,
        State.SUCCEEDED: run(finishing, *FETCHED)[0],
        State.FAILED: run(training, PeerFailed("party-1", 1, "disk full"))[0],
        State.CANCELLED: run(training, Cancel("analyst"))[0],
        State.INTERRUPTED: run(training, Restarted())[0],
    }


EXAMPLES: dict[type[Any], Event] = {
    Begin: Begin(),
    Prepared: Prepared("party-0", 1, PROGRAM, ROUNDS),
    RoundDone: RoundDone("party-0", 1, 0, False),
    Fetched: Fetched("party-0", 1),
    PeerFailed: PeerFailed("dealer", 1, "gone"),
    PeerStopped: PeerStopped("party-1", 1),
    Overdue: Overdue(),
    Cancel: Cancel("analyst"),
    Stopped: Stopped(),
    Restarted: Restarted(),
    Retry: Retry(),
}
AFTER = {
    "begin": {State.PREPARING},
    "prepared": {State.PREPARING},
    "round_done": {State.TRAINING},
    "fetched": {State.FINISHING},
    "peer_failed": {State.FAILED},
    "peer_stopped": {State.INTERRUPTED},
    "overdue": {State.FAILED},
    "cancel": {State.CANCELLED},
    "stopped": {State.INTERRUPTED},
    "restarted": {State.INTERRUPTED},
    "retry": {State.SUBMITTED},
}
RAISED = {
    Verdict.PEER: ProtocolError,
    Verdict.OURS: AssertionError,
    Verdict.USER: Conflict,
}


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(EVENTS) == set(EXAMPLES)
    for row in TABLE.values():
        assert set(row) == set(STATES) == set(jobs())


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.value)
def test_every_pair_of_state_and_event_does_what_the_table_says(
    state: State, event: type[Any]
) -> None:
    job, rule, example = jobs()[state], TABLE[event][state], EXAMPLES[event]
    if rule is Verdict.IGNORE:
        assert step(job, example) == (job, ())
    elif isinstance(rule, Verdict):
        with pytest.raises(RAISED[rule], match="job-1") as caught:
            step(job, example)
        if isinstance(caught.value, ProtocolError):
            assert caught.value.where["peer"] == "party-0"
    else:
        after, _ = step(job, example)
        assert after.state in AFTER[rule.__name__.strip("_")]


def test_a_job_that_goes_well() -> None:
    job, effects = run(
        NEW, Begin(), *prepared(), *done(0), *done(1, stopped=True), *done(2), *FETCHED
    )
    parties = frozenset(PARTIES)
    assert effects == [
        AskPrepare(ALL),
        AskRound(parties, 0),
        AskRound(parties, 1),
        AskRound(parties, 2),
        AskResults(parties),
    ]
    assert job.state is State.SUCCEEDED
    assert job.round_names == ROUNDS
    assert job.stopped
    assert not job.waiting


@pytest.mark.parametrize("other", [(b"q" * 32, ROUNDS), (PROGRAM, ROUNDS[:2])])
def test_another_program_is_the_culprits_fault(other: tuple[bytes, tuple[str, ...]]) -> None:
    job, effects = run(NEW, Begin(), *prepared()[:2], Prepared("party-1", 1, *other))
    assert job.state is State.FAILED
    assert job.culprit == "party-1"
    assert "compiled another program" in job.reason
    assert effects[-1] == AskAbort(ALL, job.reason)


def test_parties_that_disagree_on_stopping_end_the_job() -> None:
    training = jobs()[State.TRAINING]
    events = [RoundDone("party-0", 1, 0, True), RoundDone("party-1", 1, 0, False)]
    job, _ = run(training, *events)
    assert job.state is State.FAILED
    assert job.culprit == "party-0"
    assert "do not agree" in job.reason


def test_who_does_not_answer_is_named() -> None:
    job, _ = run(NEW, Begin(), prepared()[1], Overdue())
    assert job.culprit == "dealer, party-1"
    job, _ = run(jobs()[State.TRAINING], done(0)[1], Overdue())
    assert job.culprit == "party-0"


@pytest.mark.parametrize(
    ("event", "part"),
    [
        (RoundDone("party-0", 1, 1, False), "party-0 ran training round 1 of job job-1 instead"),
        (RoundDone("dealer", 1, 0, False), "dealer said that training round 0 is done"),
        (RoundDone("stranger", 1, 0, False), "stranger has no part in job job-1"),
        (PeerFailed("stranger", 1, "x"), "stranger has no part in job job-1"),
        (RoundDone("party-0", 2, 0, False), "speaks of attempt 2 of job job-1"),
    ],
)
def test_what_a_peer_may_not_say(event: Event, part: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        step(jobs()[State.TRAINING], event)
    assert part in str(caught.value)
    assert caught.value.where["peer"] == event.peer  # type: ignore[union-attr]


def test_who_was_stopped_is_named_and_not_blamed() -> None:
    job, effects = run(jobs()[State.TRAINING], PeerStopped("party-1", 1))
    assert (job.state, job.culprit) == (State.INTERRUPTED, "party-1")
    assert effects == [AskAbort(ALL, "party-1 was stopped")]


@pytest.mark.parametrize(
    ("done", "seconds", "left", "in_time"),
    [(0, 5.0, 100.0, False), (5, 5.0, 4.9, False), (5, 5.0, 5.0, True), (9, 90.0, 8.0, False)],
)
def test_whether_a_job_ends_in_time_goes_by_its_pace(
    done: int, seconds: float, left: float, in_time: bool
) -> None:
    assert ends_in_time(done, 10, seconds, left) is in_time


def test_twice_the_same_answer_is_refused() -> None:
    job, _ = run(jobs()[State.TRAINING], done(0)[0])
    with pytest.raises(ProtocolError, match="without being asked"):
        step(job, done(0)[0])
    job, _ = run(NEW, Begin(), prepared()[0])
    with pytest.raises(ProtocolError, match="without being asked"):
        step(job, prepared()[0])
    with pytest.raises(ProtocolError, match="to no training round"):
        step(job, replace(Prepared("party-0", 1, PROGRAM, ()), round_names=()))


def test_another_attempt_starts_from_nothing_and_hears_nothing_of_the_old() -> None:
    job, effects = run(jobs()[State.INTERRUPTED], Retry())
    assert job == replace(NEW, attempt=2)
    assert effects == []
    job, _ = run(job, Begin())
    assert step(job, Prepared("dealer", 1, PROGRAM, ROUNDS)) == (job, ())
    assert step(job, PeerFailed("dealer", 1, "late news")) == (job, ())


def test_a_job_that_waits_is_cancelled_without_asking_anybody() -> None:
    assert run(NEW, Cancel("analyst"))[1] == []


class Conducting(RuleBasedStateMachine):
    """Any order of events: what is asked is answered by those asked, and ends are final."""

    def __init__(self) -> None:
        super().__init__()
        self.job = NEW
        self.asked: list[int] = []

    @rule(event=st.sampled_from(list(EXAMPLES.values())))
    def any_event(self, event: Event) -> None:
        self.feed(event)

    @precondition(lambda self: self.job.waiting)
    @rule(data=st.data(), stopped=st.booleans())
    def answer(self, data: st.DataObject, stopped: bool) -> None:
        peer = data.draw(st.sampled_from(sorted(self.job.waiting)))
        answers: dict[State, Event] = {
            State.PREPARING: Prepared(peer, self.job.attempt, PROGRAM, ROUNDS),
            State.TRAINING: RoundDone(peer, self.job.attempt, self.job.round, stopped),
            State.FINISHING: Fetched(peer, self.job.attempt),
        }
        assert self.feed(answers[self.job.state])

    def feed(self, event: Event) -> bool:
        before = self.job
        try:
            self.job, effects = step(before, event)
        except (ProtocolError, Conflict, AssertionError):
            return False
        if before.ended and self.job.state not in {State.SUBMITTED, State.CANCELLED}:
            assert self.job == before
        if self.job.attempt != before.attempt:
            self.asked = []
        self.asked += [effect.round for effect in effects if isinstance(effect, AskRound)]
        return True

    @invariant()
    def rounds_are_asked_for_in_order_and_once(self) -> None:
        assert self.asked == list(range(len(self.asked)))

    @invariant()
    def somebody_is_waited_for_while_it_runs_and_nobody_else(self) -> None:
        idle = self.job.state in ENDED or self.job.state is State.SUBMITTED
        assert bool(self.job.waiting) is not idle


TestConducting = Conducting.TestCase
