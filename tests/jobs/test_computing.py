from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from masque.errors import JobFailed, ProtocolError
from masque.jobs.computing import (
    EVENTS,
    STATES,
    TABLE,
    Abort,
    Broken,
    Compile,
    Compiled,
    ComputedJob,
    Effect,
    Event,
    FetchResults,
    Finish,
    Forget,
    GiveResults,
    Overdue,
    Prepare,
    Release,
    Remember,
    Renew,
    RoundFinished,
    Run,
    RunRound,
    finished,
    recovered,
    step,
)
from masque.jobs.states import State, Verdict

SUBJECT = b"s" * 32
NEW = ComputedJob("job-1")


def prepare(attempt: int = 1, peer: str = "coordinator", subject: bytes = SUBJECT) -> Prepare:
    return Prepare(peer, attempt, b"d%d" % attempt + subject, subject)


def ask(round: int, attempt: int = 1) -> RunRound:
    return RunRound("coordinator", attempt, round)


def run(job: ComputedJob, *events: Event) -> tuple[ComputedJob, list[Effect]]:
    effects: list[Effect] = []
    for event in events:
        job, more = step(job, event)
        effects += more
    return job, effects


def jobs() -> dict[State, ComputedJob]:
    """A job of one training round in each state."""
    preparing, _ = run(NEW, prepare())
    ready, _ = run(preparing, Compiled(1, 1))
    training, _ = run(ready, ask(0))
    return {
        State.ABSENT: NEW,
        State.PREPARING: preparing,
        State.READY: ready,
        State.TRAINING: training,
        State.FINISHING: run(training, RoundFinished(1, 0))[0],
        State.FAILED: run(training, Broken(1, "the stream ended", "dealer", True))[0],
    }


EXAMPLES: dict[type[Any], Event] = {
    Prepare: prepare(2),
    Compiled: Compiled(1, 1),
    RunRound: ask(0),
    RoundFinished: RoundFinished(1, 0),
    Broken: Broken(1, "the stream ended", "dealer", True),
    FetchResults: FetchResults("coordinator", 1),
    Abort: Abort("coordinator", 1, "party-1 is gone"),
    Overdue: Overdue(1),
    Renew: Renew("coordinator", 1),
    Forget: Forget("coordinator"),
}
AFTER = {
    "prepare": State.PREPARING,
    "prepare_again": State.PREPARING,
    "compiled": State.READY,
    "run": State.TRAINING,
    "finished": State.FINISHING,
    "give": State.FINISHING,
    "broken": State.FAILED,
    "abort": State.FAILED,
    "overdue": State.FAILED,
    "forget": State.FAILED,
}
RAISED = {
    Verdict.PEER: ProtocolError,
    Verdict.OURS: AssertionError,
    Verdict.OVER: JobFailed,
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
        with pytest.raises(RAISED[rule], match="job-1"):
            step(job, example)
    else:
        after = step(job, example)[0]
        if rule.__name__ == "_renew":
            assert after == job
            return
        assert after.state is AFTER[rule.__name__.strip("_")]
        assert after.over is (event in (FetchResults, Forget)), "the last attempt"
        may = after.state is State.FAILED and not after.over
        assert after.again is may, "all others may go well another time"


def test_a_job_that_goes_well() -> None:
    job, effects = run(
        NEW,
        prepare(),
        Compiled(1, 2),
        ask(0),
        RoundFinished(1, 0),
        ask(1),
        RoundFinished(1, 1),
        FetchResults("coordinator", 1),
        FetchResults("coordinator", 1),
    )
    assert effects == [
        Remember(1, SUBJECT),
        Compile(),
        Run(0),
        Run(1),
        Finish(),
        Remember(1, SUBJECT),
        GiveResults(),
        GiveResults(),
    ]
    assert job.state is State.FINISHING
    assert run(job, Abort("coordinator", 1, "fetched"))[1] == [Release(1, "fetched")]


def test_preparing_twice_the_same_is_once() -> None:
    job = jobs()[State.READY]
    assert step(job, prepare()) == (job, ())


@pytest.mark.parametrize("state", [state for state in STATES if state is not State.ABSENT])
def test_two_specs_for_one_job_id(state: State) -> None:
    with pytest.raises(ProtocolError, match="coordinator sent two specs for one job id, job-1"):
        step(jobs()[state], prepare(subject=b"x" * 32))
    with pytest.raises(ProtocolError, match="two specs"):
        step(jobs()[state], prepare(2, subject=b"x" * 32))


@pytest.mark.parametrize("state", [s for s in STATES if s not in {State.ABSENT, State.FAILED}])
def test_an_attempt_goes_on_from_one_place(state: State) -> None:
    """The digest covers where it goes on, the subject does not."""
    elsewhere = replace(prepare(), digest=b"another checkpoint")
    with pytest.raises(ProtocolError, match="let attempt 1 of job job-1 go on from two") as caught:
        step(jobs()[state], elsewhere)
    assert caught.value.where["peer"] == "coordinator"


@pytest.mark.parametrize("round", [-1, 1, 2, 10**9])
def test_rounds_out_of_order(round: int) -> None:
    with pytest.raises(ProtocolError, match=f"training round {round} of job job-1 instead of 0"):
        step(jobs()[State.READY], ask(round))


def test_a_round_is_not_run_twice() -> None:
    with pytest.raises(ProtocolError, match="while job job-1 is training"):
        step(jobs()[State.TRAINING], ask(0))
    with pytest.raises(ProtocolError, match="while job job-1 is finishing"):
        step(jobs()[State.FINISHING], ask(0))
    job, _ = run(NEW, prepare(), Compiled(1, 2), ask(0), RoundFinished(1, 0))
    with pytest.raises(ProtocolError, match="training round 0 of job job-1 instead of 1"):
        step(job, ask(0))


def test_an_unknown_job() -> None:
    with pytest.raises(ProtocolError, match="while job job-1 is unknown") as caught:
        step(NEW, ask(0))
    assert caught.value.where == {"peer": "coordinator", "job": "job-1"}
    assert step(NEW, Abort("coordinator", 1, "x")) == (NEW, ())


@pytest.mark.parametrize("state", [state for state in STATES if state is not State.ABSENT])
@pytest.mark.parametrize(
    "event",
    [
        Prepare("other", 1, b"", SUBJECT),
        Prepare("other", 2, b"", SUBJECT),
        RunRound("other", 1, 0),
        FetchResults("other", 1),
        Renew("other", 1),
        Abort("other", 1, "x"),
        Forget("other"),
    ],
    ids=str,
)
def test_a_party_obeys_one_coordinator(state: State, event: Event) -> None:
    with pytest.raises(ProtocolError, match="other spoke about job job-1, which belongs to coord"):
        step(jobs()[state], event)


@pytest.mark.parametrize("state", [state for state in STATES if state is not State.ABSENT])
def test_another_attempts_instructions(state: State) -> None:
    job = jobs()[state]
    for event in (ask(0, attempt=2), FetchResults("coordinator", 7), Renew("coordinator", 2)):
        with pytest.raises(ProtocolError, match="which is in attempt 1"):
            step(job, event)
    assert step(job, Abort("coordinator", 2, "x")) == (job, ())
    with pytest.raises(ProtocolError, match="asked for attempt 0 of job job-1, which is over"):
        step(job, prepare(0))


def test_no_attempt_before_the_first() -> None:
    with pytest.raises(ProtocolError, match="without an attempt"):
        step(NEW, prepare(0))


def test_a_later_attempt_releases_the_one_before() -> None:
    job, effects = run(jobs()[State.TRAINING], prepare(2))
    assert job.attempt == 2
    assert job.round == 0
    assert effects == [
        Release(1, "a later attempt has begun"),
        Remember(2, SUBJECT),
        Compile(),
    ]
    assert step(job, RoundFinished(1, 0)) == (job, ())
    assert step(job, Broken(1, "late", "", False)) == (job, ())
    with pytest.raises(ProtocolError, match="attempt 1 of job job-1, which is over"):
        step(job, prepare(1))


def test_a_failure_is_told_with_its_culprit() -> None:
    with pytest.raises(JobFailed, match=r"attempt 1, has failed \(dealer\): the stream ended"):
        step(jobs()[State.FAILED], ask(0))
    with pytest.raises(JobFailed) as caught:
        step(jobs()[State.FAILED], prepare(1))
    assert caught.value.where["service"] == "dealer"


def test_an_attempt_from_before_a_crash_is_never_taken_again() -> None:
    job = recovered("job-1", "coordinator", 3, SUBJECT)
    with pytest.raises(JobFailed, match="this party was restarted"):
        step(job, prepare(3))
    with pytest.raises(ProtocolError, match="which is over"):
        step(job, prepare(2))
    assert run(job, prepare(4))[1] == [Remember(4, SUBJECT), Compile()]


def test_results_are_handed_over_in_one_attempt() -> None:
    """Before that, another attempt may begin; after it, none, whatever happened meanwhile."""
    finishing = jobs()[State.FINISHING]
    assert run(finishing, prepare(2))[0].attempt == 2
    given, effects = step(finishing, FetchResults("coordinator", 1))
    assert effects == (Remember(1, SUBJECT), GiveResults())
    back = recovered("job-1", "coordinator", 1, SUBJECT, over=given.over)
    aborted, _ = step(given, Abort("coordinator", 1, "again"))
    for job in (given, aborted, back, finished(back, given.digest)):
        with pytest.raises(ProtocolError, match="attempt 2 of job job-1, which has ended") as error:
            step(job, prepare(2))
        assert error.value.where["peer"] == "coordinator"


@pytest.mark.parametrize("state", [state for state in STATES if state is not State.ABSENT])
def test_a_job_that_has_ended_stays_so(state: State) -> None:
    job, effects = step(jobs()[state], Forget("coordinator"))
    assert effects[0] == Remember(1, SUBJECT)
    assert step(job, Forget("coordinator")) == (job, ())
    with pytest.raises(ProtocolError, match="which has ended"):
        step(job, prepare(2))


def test_results_outlive_a_restart() -> None:
    job = finished(recovered("job-1", "coordinator", 1, SUBJECT), prepare().digest)
    assert step(job, prepare()) == (job, ())
    assert step(job, FetchResults("coordinator", 1))[1] == (Remember(1, SUBJECT), GiveResults())


EVENT = st.one_of(
    st.builds(prepare, st.integers(0, 3), st.just("coordinator"), st.sampled_from([SUBJECT, b"x"])),
    st.builds(Compiled, st.integers(1, 3), st.just(2)),
    st.builds(ask, st.integers(0, 2), st.integers(1, 3)),
    st.builds(RoundFinished, st.integers(1, 3), st.integers(0, 1)),
    st.builds(Broken, st.integers(1, 3), st.just("reason"), st.just("")),
    st.builds(FetchResults, st.sampled_from(["coordinator", "other"]), st.integers(1, 3)),
    st.builds(Abort, st.just("coordinator"), st.integers(1, 3), st.just("")),
    st.builds(Overdue, st.integers(1, 3)),
    st.builds(Renew, st.sampled_from(["coordinator", "other"]), st.integers(1, 3)),
    st.builds(Forget, st.sampled_from(["coordinator", "other"])),
)


class Computing(RuleBasedStateMachine):
    """Any order of events and restarts: no attempt is taken twice, no round is run twice, results
    are given in one attempt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.job = NEW
        self.taken: list[int] = []
        self.ran: list[tuple[int, int]] = []
        self.held: set[int] = set()
        self.over = False
        self.given: set[int] = set()

    @rule(event=EVENT)
    def any_event(self, event: Event) -> None:
        before = self.job
        try:
            self.job, effects = step(before, event)
        except (ProtocolError, JobFailed, AssertionError):
            assert self.job is before
            return
        for effect in effects:
            match effect:
                case Remember(attempt, _) if self.job.over:
                    assert attempt == self.taken[-1]
                    self.over = True
                case Remember(attempt, _):
                    assert not self.over
                    self.taken.append(attempt)
                    self.held.add(attempt)
                case Run(round):
                    self.ran.append((self.job.attempt, round))
                case Release(attempt, reason):
                    assert reason
                    self.held.remove(attempt)
                case GiveResults():
                    assert self.ran[-2:] == [(self.job.attempt, 0), (self.job.attempt, 1)]
                    assert self.over
                    self.given.add(self.job.attempt)

    @rule()
    def crash(self) -> None:
        if self.taken:
            before = self.job
            args = ("job-1", "coordinator", self.taken[-1], before.subject)
            self.job = recovered(*args, over=self.over)
            self.held.clear()
            if before.state is State.FINISHING:
                self.job = finished(self.job, before.digest)
                self.held.add(self.job.attempt)

    @invariant()
    def no_attempt_is_taken_twice(self) -> None:
        assert self.taken == sorted(set(self.taken))

    @invariant()
    def results_are_given_in_one_attempt(self) -> None:
        assert len(self.given) <= 1

    @invariant()
    def no_round_is_run_twice(self) -> None:
        assert self.ran == sorted(set(self.ran))

    @invariant()
    def what_is_over_is_released(self) -> None:
        active = self.job.state not in {State.ABSENT, State.FAILED}
        assert self.held == ({self.job.attempt} if active else set())


TestComputing = Computing.TestCase
