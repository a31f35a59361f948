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
    MOST_FRUITLESS,
    STATES,
    TABLE,
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
    Wait,
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


def done(
    round: int, stopped: bool = False, committed: bool = True, attempt: int = 1
) -> list[Event]:
    return [RoundDone(peer, attempt, round, stopped, committed) for peer in PARTIES]


FETCHED: list[Event] = [Fetched(peer, 1) for peer in PARTIES]


def jobs() -> dict[State, ConductedJob]:
    """A job in each state."""
    preparing, _ = run(NEW, Begin())
    training, _ = run(preparing, *prepared())
    finishing, _ = run(training, *done(0), *done(1), *done(2))
    return {
        State.SUBMITTED: NEW,
        State.WAITING: run(training, Restarted())[0],
        State.PREPARING: preparing,
        State.TRAINING: training,
        State.FINISHING: finishing,
        State.SUCCEEDED: run(finishing, *FETCHED)[0],
        State.FAILED: run(training, PeerFailed("party-1", 1, "disk full"))[0],
        State.CANCELLED: run(training, Cancel("analyst"))[0],
    }


EXAMPLES: dict[type[Any], Event] = {
    Begin: Begin(),
    Prepared: Prepared("party-0", 1, PROGRAM, ROUNDS),
    RoundDone: RoundDone("party-0", 1, 0, False, True),
    Fetched: Fetched("party-0", 1),
    PeerFailed: PeerFailed("dealer", 1, "gone"),
    PeerStopped: PeerStopped("party-1", 1),
    Overdue: Overdue("party-1", "it hangs"),
    Absent: Absent("party-1", "it is not there"),
    Opposed: Opposed("party-1", "its policy says no"),
    Expired: Expired("training"),
    Cancel: Cancel("analyst"),
    Stopped: Stopped(),
    Restarted: Restarted(),
}
AFTER = {
    "begin": {State.PREPARING},
    "prepared": {State.PREPARING},
    "round_done": {State.TRAINING},
    "fetched": {State.FINISHING},
    "peer_failed": {State.FAILED},
    "peer_stopped": {State.WAITING},
    "overdue": {State.WAITING},
    "absent": {State.SUBMITTED, State.WAITING},
    "opposed": {State.FAILED},
    "expired": {State.FAILED},
    "cancel": {State.CANCELLED},
    "stopped": {State.WAITING},
    "restarted": {State.WAITING},
}
ENDING = [EXAMPLES[kind] for kind in (PeerFailed, Opposed, Expired, Cancel)]
PASSING: list[Event] = [
    event
    for event in EXAMPLES.values()
    if event not in ENDING and not isinstance(event, RoundDone)  # `answer` keeps parties' disks
]
PASSING.append(PeerFailed("party-0", 1, "gone", again=True))
TOLD = [Prepared, RoundDone, Fetched, PeerFailed, PeerStopped]
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
        Forget(parties),
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
    assert effects[-2:] == [AskAbort(ALL, job.reason), Forget(frozenset(PARTIES))]


def test_of_two_programs_that_differ_nobody_knows_which_is_wrong() -> None:
    job, _ = run(NEW, Begin(), prepared()[0], Prepared("party-1", 1, b"q" * 32, ROUNDS))
    assert (job.state, job.culprit) == (State.FAILED, "dealer, party-1")
    assert "different programs" in job.reason


def test_parties_that_disagree_on_stopping_end_the_job() -> None:
    training = jobs()[State.TRAINING]
    events = [RoundDone(peer, 1, 0, peer == "party-0", True) for peer in PARTIES]
    job, _ = run(training, *events)
    assert job.state is State.FAILED
    assert job.culprit == "party-0"
    assert "do not agree" in job.reason


def test_who_does_not_answer_is_named_with_what_it_does() -> None:
    late = Overdue("party-1", "training round 'epoch 1': computes")
    job, effects = run(jobs()[State.TRAINING], late)
    assert (job.state, job.culprit, job.reason) == (State.WAITING, "party-1", late.doing)
    assert effects == [AskAbort(ALL, late.doing), Wait(1)]


@pytest.mark.parametrize(
    ("event", "part"),
    [
        (
            RoundDone("party-0", 1, 1, False, True),
            "party-0 ran training round 1 of job job-1",
        ),
        (RoundDone("dealer", 1, 0, False, True), "dealer said that training round 0 is done"),
        (RoundDone("stranger", 1, 0, False, True), "stranger has no part in job job-1"),
        (PeerFailed("stranger", 1, "x"), "stranger has no part in job job-1"),
        (RoundDone("party-0", 2, 0, False, True), "speaks of attempt 2 of job job-1"),
    ],
)
def test_what_a_peer_may_not_say(event: Event, part: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        step(jobs()[State.TRAINING], event)
    assert part in str(caught.value)
    assert caught.value.where["peer"] == event.peer  # type: ignore[union-attr]


def test_who_was_stopped_is_named_and_not_blamed() -> None:
    job, effects = run(jobs()[State.TRAINING], PeerStopped("party-1", 1))
    assert (job.state, job.culprit) == (State.WAITING, "party-1")
    assert effects == [AskAbort(ALL, "party-1 was stopped"), Wait(1)]


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


def test_a_job_that_has_committed_nothing_begins_anew_and_hears_nothing_of_the_old() -> None:
    waiting, _ = run(jobs()[State.TRAINING], Restarted())
    job, effects = run(waiting, Begin())
    assert (job.attempt, job.resumed, job.round_names, job.program) == (2, None, (), b"")
    assert effects == [AskPrepare(ALL)]
    assert step(job, Prepared("dealer", 1, PROGRAM, ROUNDS)) == (job, ())
    assert step(job, PeerFailed("dealer", 1, "late news")) == (job, ())


def test_a_job_goes_on_from_what_all_parties_have_committed() -> None:
    training = jobs()[State.TRAINING]
    one_of_two = [RoundDone(peer, 1, 0, False, peer == "party-0") for peer in PARTIES]
    assert run(training, *one_of_two)[0].committed is None, "the other could not go on from there"
    job, _ = run(training, *done(0), *done(1, stopped=True), Restarted())
    assert job.committed == Committed(1, 2, True)
    job, _ = run(job, Begin())
    assert job.resumed == job.committed == Committed(1, 2, True)
    assert job.stopped, "that training had stopped is not forgotten"
    job, _ = run(job, PeerFailed("party-1", 2, "gone", again=True), Begin())
    assert (job.attempt, job.resumed) == (3, Committed(1, 2, True)), "the second committed nothing"


def test_rounds_that_are_over_are_not_asked_for() -> None:
    job, _ = run(jobs()[State.TRAINING], *done(0), *done(1), Restarted(), Begin())
    names = ("prepare", "", "", "epoch 3, restored", "epoch 4")
    events = [Prepared(peer, 2, PROGRAM, names) for peer in ("party-0", "party-1", "dealer")]
    job, effects = run(job, *events, *done(0, committed=False, attempt=2))
    asked = [effect.round for effect in effects if isinstance(effect, AskRound)]
    assert asked == [0, 3]


def test_a_checkpoint_that_is_lost_is_not_gone_on_from() -> None:
    job, _ = run(jobs()[State.TRAINING], *done(0), Restarted(), Begin())
    lost = PeerFailed("party-1", 2, "its checkpoint is damaged", again=True, lost=True)
    job, _ = run(job, lost, Begin())
    assert (job.attempt, job.resumed, job.committed) == (3, None, None)


def test_attempts_that_lead_nowhere_end_the_job() -> None:
    job = NEW
    for _ in range(MOST_FRUITLESS - 1):
        job, _ = run(job, Begin())
        job, effects = run(job, PeerFailed("party-1", job.attempt, "its disk is full", again=True))
        assert job.state is State.WAITING
    waits = [effect.fruitless for effect in effects if isinstance(effect, Wait)]
    assert waits == [MOST_FRUITLESS - 1]
    job, _ = run(job, Begin())
    job, effects = run(job, PeerFailed("party-1", job.attempt, "its disk is full", again=True))
    assert (job.state, job.culprit) == (State.FAILED, "party-1")
    assert job.reason.startswith("its disk is full (the last of 20 attempts in a row")
    assert effects[-1] == Forget(frozenset(PARTIES))


def test_what_has_committed_something_has_not_led_nowhere() -> None:
    job, _ = run(NEW, Begin(), PeerFailed("party-1", 1, "gone", again=True), Begin())
    assert job.fruitless == 1
    prepare = [replace(event, attempt=2) for event in prepared() if isinstance(event, Prepared)]
    job, _ = run(job, *prepare, *done(0, attempt=2))
    assert job.fruitless == 0


def test_a_job_that_runs_out_of_time_names_whom_it_waited_for() -> None:
    late = Overdue("party-1", "no sign of life")
    job, _ = run(jobs()[State.TRAINING], late, Absent("party-1", "it does not answer"))
    job, _ = run(job, Expired("waiting for party-1"))
    assert (job.state, job.culprit) == (State.FAILED, "party-1")
    assert job.reason == "its time was used up while waiting for party-1; it does not answer"
    training = jobs()[State.TRAINING]
    assert run(training, Expired("training"))[0].culprit == "party-0, party-1"
    assert run(training, Expired("training", "party-0"))[0].culprit == "party-0"


def test_a_job_that_waits_is_cancelled_without_asking_anybody() -> None:
    assert run(NEW, Cancel("analyst"))[1] == [Forget(frozenset(PARTIES))], "nobody need approve it"


INTERRUPTIONS: list[Event] = [
    Restarted(),
    Stopped(),
    Overdue("party-1", "no sign of life"),
    PeerStopped("party-1", 1),
    PeerFailed("party-1", 1, "it is gone", again=True),
]


@pytest.mark.parametrize("event", INTERRUPTIONS, ids=lambda event: type(event).__name__)
def test_results_that_were_computed_are_asked_for_again(event: Event) -> None:
    """In the same attempt, and only of those that have not handed them over."""
    job, effects = run(jobs()[State.FINISHING], FETCHED[0], event)
    assert (job.state, job.due, job.waiting) == (State.WAITING, frozenset({"party-1"}), frozenset())
    assert effects == [Wait(1)], "nobody gives anything up"
    job, effects = run(job, Fetched("party-1", 1), Begin())
    assert (job.state, job.attempt, effects) == (State.FINISHING, 1, [AskResults(job.waiting)])
    assert run(job, FETCHED[1])[0].state is State.SUCCEEDED


def test_results_that_are_lost_are_computed_again() -> None:
    lost = PeerFailed("party-1", 1, "it was restarted", again=True, lost=True)
    job, effects = run(jobs()[State.FINISHING], lost)
    assert (job.state, job.due) == (State.WAITING, frozenset())
    assert job.committed == Committed(1, 3, False) and effects[0] == AskAbort(ALL, lost.reason)
    assert run(job, Begin())[0].attempt == 2


def test_results_that_are_lost_when_others_were_handed_over_end_the_job() -> None:
    lost = PeerFailed("party-1", 1, "it was restarted", again=True, lost=True)
    job, _ = run(jobs()[State.FINISHING], FETCHED[0], lost)
    assert (job.state, job.culprit) == (State.FAILED, "party-1")
    assert (
        job.reason == "it was restarted, and others have handed over theirs, which parties do once"
    )


class Conducting(RuleBasedStateMachine):
    """Any order of events: what is asked is answered by those asked, and ends are final."""

    def __init__(self) -> None:
        super().__init__()
        self.job = NEW
        self.asked: list[int] = []
        self.disks: dict[str, set[tuple[int, int]]] = {party: set() for party in PARTIES}

    @rule(event=st.sampled_from(PASSING))
    def any_event(self, event: Event) -> None:
        self.feed(event)

    @precondition(lambda self: self.job.attempt > 3)
    @rule(event=st.sampled_from(ENDING))
    def an_end(self, event: Event) -> None:
        self.feed(event)

    @precondition(lambda self: self.job.state in {State.SUBMITTED, State.WAITING})
    @rule()
    def begin(self) -> None:
        assert self.feed(Begin())

    @precondition(lambda self: self.job.waiting)
    @rule(data=st.data(), stopped=st.booleans(), committed=st.booleans())
    def one_answers(self, data: st.DataObject, stopped: bool, committed: bool) -> None:
        self.answer(data.draw(st.sampled_from(sorted(self.job.waiting))), stopped, committed)

    @precondition(lambda self: self.job.waiting)
    @rule(committed=st.booleans())
    def all_answer(self, committed: bool) -> None:
        for peer in sorted(self.job.waiting):
            self.answer(peer, False, committed)

    def answer(self, peer: str, stopped: bool, committed: bool) -> None:
        attempt, number, resumed = self.job.attempt, self.job.round, self.job.resumed
        committed = committed and (resumed is None or number >= resumed.round)
        if self.job.state is State.TRAINING and committed:
            self.disks[peer].add((attempt, number + 1))
        answers: dict[State, Event] = {
            State.PREPARING: Prepared(peer, attempt, PROGRAM, ROUNDS),
            State.TRAINING: RoundDone(peer, attempt, number, stopped, committed),
            State.FINISHING: Fetched(peer, attempt),
        }
        assert self.feed(answers[self.job.state])

    @precondition(lambda self: self.job.attempt > 1)
    @rule(data=st.data(), told=st.sampled_from(TOLD))
    def news_of_an_attempt_that_is_over(self, data: st.DataObject, told: type[Any]) -> None:
        """However late it comes, it changes nothing."""
        before = self.job
        old = data.draw(st.integers(1, before.attempt - 1))
        example: Any = EXAMPLES[told]
        assert self.feed(replace(example, attempt=old))
        assert self.job == before

    @precondition(lambda self: self.job.state is State.PREPARING)
    @rule(peer=st.sampled_from(PARTIES))
    def lose_a_checkpoint(self, peer: str) -> None:
        self.disks[peer].clear()
        assert self.feed(PeerFailed(peer, self.job.attempt, "it is damaged", again=True, lost=True))
        assert self.job.committed is None

    def feed(self, event: Event) -> bool:
        before = self.job
        try:
            self.job, effects = step(before, event)
        except (ProtocolError, Conflict, AssertionError):
            return False
        if before.ended:
            assert self.job == before, "an end is an end"
        here, now, lost = before.committed, self.job.committed, getattr(event, "lost", False)
        if here is not None and not lost:
            assert now is not None and (now.round, now.attempt) >= (here.round, here.attempt)
        if now not in {here, None}:
            assert isinstance(event, RoundDone) and now is not None
            assert (now.attempt, now.round) == (before.attempt, before.round + 1)
        assert self.job.attempt in {before.attempt, before.attempt + 1}
        if self.job.attempt != before.attempt:
            assert before.state is State.WAITING
            assert self.job.resumed == before.committed, "from all that it may, and no further"
            self.asked = []
        self.asked += [effect.round for effect in effects if isinstance(effect, AskRound)]
        return True

    @invariant()
    def rounds_are_asked_for_in_order_and_once(self) -> None:
        assert self.asked == list(range(len(self.asked)))

    @invariant()
    def a_job_goes_on_from_what_is_on_every_disk(self) -> None:
        under_way = self.job.resumed if self.job.waiting else None
        for here in (self.job.committed, under_way):
            if here is not None:
                assert all((here.attempt, here.round) in disk for disk in self.disks.values())

    @invariant()
    def somebody_is_waited_for_while_it_runs_and_nobody_else(self) -> None:
        idle = self.job.state in ENDED or self.job.state in {State.SUBMITTED, State.WAITING}
        assert bool(self.job.waiting) is not idle


TestConducting = Conducting.TestCase
