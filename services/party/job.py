"""One job at a party: the state machine of `masque.jobs.computing`, and hands that carry it out.

Every call goes through `_apply`, which takes a step of the machine under the lock and stores what
must be stored; what takes long (compiling, computing, telling peers) happens outside the lock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition
from typing import Protocol

import structlog

from masque.errors import JobFailed, MasqueError, ProtocolError, Refused, passing
from masque.jobs import computing
from masque.jobs.bound import BoundJob
from masque.jobs.computing import ComputedJob
from masque.jobs.record import Progress
from masque.jobs.states import State, ends_in_time, failed
from masque.wire import tracing
from services.party.attempt import Account, Attempt
from services.party.blame import accident, culprit, sentence
from services.party.results import Outcome, Sealed
from services.party.stock import Listener

_log = structlog.get_logger("masque.party")

BUSY = frozenset({State.PREPARING, State.READY, State.TRAINING})
"""States in which a job uses memory and material."""


class Workshop(Protocol):
    """What a job needs done: injected, so that the life of a job can be tested alone."""

    def remember(self, job: ComputedJob) -> None:
        """Store that this attempt is taken, before anything else."""

    def compile(self, job: BoundJob, sender: str, failed: Listener) -> Attempt:
        """Check and compile; `failed` hears if the attempt breaks while nobody asks."""

    def finish(self, attempt: Attempt) -> Outcome:
        """Seal the outputs."""

    def publish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Keep, publish and store them: the attempt has not been given up. Returns when on disk."""

    def results(self, job_id: str, attempt: int) -> Sequence[Sealed]:
        """What was stored to be handed over."""

    def discard(self, job_id: str) -> None:
        """Destroy what was stored to be handed over."""

    def closed(self, attempt: Attempt, *, computed: bool) -> None:
        """An attempt is over: note its numbers, and whether it came to its end."""


@dataclass(frozen=True)
class Prepared:
    """The answer to a coordinator that prepares a job."""

    job_digest: bytes
    program_digest: bytes
    rounds: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A training round is over: has an early-stop bit said so, is its outcome on disk?"""

    stopped: bool
    committed: bool


@dataclass
class Task:
    """A training round under way."""

    attempt: Attempt
    number: int
    round: int
    future: Future[Done] = field(repr=False)


class Job:
    """`state` is what the machine knows; the rest is what this process holds for it."""

    def __init__(self, state: ComputedJob, workshop: Workshop) -> None:
        self.state = state
        self._workshop = workshop
        self._changed = Condition()
        self._attempt: Attempt | None = None
        self._prepared: Prepared | None = None
        self._stored = state.state is State.FINISHING
        self._stopping: tuple[str, float] | None = None
        self.handed_over = False
        self.touched = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether it is being prepared or trained."""
        return self.state.state in BUSY

    @property
    def unfinished(self) -> bool:
        """Whether it is busy, or has results that nobody has fetched yet."""
        return self.busy or (self.state.state is State.FINISHING and not self.handed_over)

    # -- what a coordinator asks -----------------------------------------------------------------

    def prepare(self, job: BoundJob, sender: str) -> Prepared:
        """Check and compile, once an attempt; whoever asks again waits for the same answer."""
        number = job.attempt
        event = computing.Prepare(sender, number, job.digest(), job.subject())
        if not any(isinstance(effect, computing.Compile) for effect in self._apply(event)):
            return self._same_again(number)
        _log.info("job accepted for checking", job=job.job_id, attempt=number, client=job.client)
        try:
            attempt = self._workshop.compile(job, sender, lambda error: self._break(number, error))
        except Exception as error:
            raise self._break(number, error) from error
        program = attempt.program
        prepared = Prepared(job.digest(), program.digest, tuple(r.name for r in program.rounds))
        with self._changed:
            if self.state.attempt == number and self.state.state is State.PREPARING:
                self._attempt, self._prepared = attempt, prepared
                self._apply(computing.Compiled(number, len(program.rounds)))
                attempt.start()
                _log.info(
                    "job prepared",
                    job=job.job_id,
                    attempt=number,
                    rounds=len(program.rounds),
                    program_digest=program.digest.hex(),
                )
                return prepared
        if attempt.abort(failed(self.state)):
            self._workshop.closed(attempt, computed=False)
        raise failed(self.state)

    def begin(self, sender: str, number: int, k: int) -> Task:
        """Start training round `k` in the worker, unless this party stops before the job's end."""
        self._stop_if_late()
        with self._changed:
            self._pass_over(sender, number, k)
            self._apply(computing.RunRound(sender, number, k))
            attempt = self._attempt
            assert attempt is not None, "a job in training has an attempt"
            future = attempt.submit(lambda: self._run(attempt, number, k))
        return Task(attempt, number, k, future)

    def abort(self, sender: str, number: int, reason: str) -> None:
        """The coordinator ends the attempt; nothing happens if it is over."""
        self._apply(computing.Abort(sender, number, reason))

    def renew(self, sender: str, number: int) -> None:
        """The coordinator still wants this attempt."""
        self._apply(computing.Renew(sender, number))

    def forget(self, sender: str) -> None:
        """The coordinator says that the job has ended: what is left of it goes."""
        self._apply(computing.Forget(sender))

    def fetch(self, sender: str, number: int) -> Sequence[Sealed]:
        """The sealed results: from now on, there is no other attempt."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stored or self.state.state is not State.FINISHING, 30.0
            )
            if self.state.state is State.FINISHING and not self._stored:
                raise ProtocolError(f"the results of job {self.state.job_id} are not ready.")
            event = computing.FetchResults(sender, number)
            computing.step(self.state, event)  # or it raises what speaks against it
            items = self._workshop.results(self.state.job_id, number)
            self._apply(event)  # only what is there ends the job's attempts
            return items

    # -- what happens by itself ------------------------------------------------------------------

    def left(self, task: Task) -> None:
        """The coordinator's call is over: in the middle of a round, that ends the job."""
        if not task.future.done():
            name = self.state.coordinator
            text = f"coordinator {name!r} left in the middle of a training round"
            self._break(task.number, JobFailed(text, service=name, again=True))

    def drain(self, party: str, until: float) -> None:
        """The service stops at `until`: only a job that can end by then goes on."""
        self._stopping = (party, until)
        if self.state.state is State.PREPARING or (self.state.state, self.state.round) == (
            State.READY,
            0,
        ):
            self.stop(party)

    def stop(self, party: str) -> None:
        """The service stops now: give the job up, unless it is over anyway."""
        if self.unfinished and not self._stored:
            error = JobFailed(f"party {party!r} was stopped", party=party, again=True)
            self._break(self.state.attempt, error)

    def overdue(self, lease: float, keep: float) -> bool:
        """Give the job up if its coordinator has been silent for so many seconds; has it been?

        `lease` while it is being trained, `keep` once its results are stored.
        """
        patience = {State.READY: lease, State.FINISHING: keep}
        with self._changed:
            quiet = time.monotonic() - self.touched
            state, number = self.state.state, self.state.attempt
        if state not in patience or quiet < patience[state]:
            return False
        self._apply(computing.Overdue(number))
        return True

    def progress(self) -> tuple[Progress, Account]:
        """How far it is, and the numbers so far."""
        with self._changed:
            state, attempt, prepared = self.state, self._attempt, self._prepared
        account = attempt.account() if attempt is not None else Account()
        names = prepared.rounds if prepared is not None else ()
        at = min(state.round + (state.state is State.TRAINING), len(names))
        progress = Progress(
            job=state.job_id,
            attempt=state.attempt,
            state=state.state.value,
            round_name=names[at - 1] if at else "",
            round=at,
            of=len(names),
            seconds=account.seconds,
            exchanges=account.exchanges,
            bytes_sent=account.sent,
            stopped=attempt is not None and attempt.stopped,
            reason=state.reason,
            culprit=state.culprit,
        )
        return progress, account

    # -- hands -----------------------------------------------------------------------------------

    def _run(self, attempt: Attempt, number: int, k: int) -> Done:
        """In the worker: training round `k`, its checkpoint, and after the last one the results."""
        try:
            with tracing.span("training round", job=self.state.job_id, attempt=number, round=k):
                committed = attempt.run(k) and attempt.commit(k)
                done = Done(attempt.stopped, committed)
            effects = self._apply(computing.RoundFinished(number, k))
            if any(isinstance(effect, computing.Finish) for effect in effects):
                self._finish(attempt)
        except Exception as error:
            raise self._break(number, error) from error
        return done

    def _finish(self, attempt: Attempt) -> None:
        outcome = self._workshop.finish(attempt)
        attempt.sealed(sum(1 for item in outcome.sealed if item.recipient))
        with self._changed:
            if self._attempt is not attempt:
                raise failed(self.state)
            self._workshop.publish(attempt, outcome)
            self._stored = True
            self._changed.notify_all()
        if attempt.close():
            self._workshop.closed(attempt, computed=True)
        _log.info("job computed", job=attempt.job.job_id, attempt=attempt.job.attempt)

    def _stop_if_late(self) -> None:
        stopping, state, attempt = self._stopping, self.state, self._attempt
        if stopping is None or attempt is None:
            return
        party, until = stopping
        seconds, left = attempt.account().seconds, until - time.monotonic()
        if not ends_in_time(state.round, state.rounds, seconds, left):
            self.stop(party)

    def _pass_over(self, sender: str, number: int, k: int) -> None:
        """Count the rounds before `k` as done, if early stopping leaves all of them out."""
        state, attempt = self.state, self._attempt
        known = attempt is not None and (sender, number) == (state.coordinator, state.attempt)
        if attempt is None or not known or state.state is not State.READY:
            return
        between = range(state.round, min(k, state.rounds - 1))
        if all(attempt.skips(j) for j in between):
            for j in between:
                self._apply(computing.RunRound(sender, number, j))
                self._apply(computing.RoundFinished(number, j))

    def _apply(self, event: computing.Event) -> tuple[computing.Effect, ...]:
        """Take a step; what it releases is destroyed once the lock is free."""
        with self._changed:
            after, effects = computing.step(self.state, event)
            if any(isinstance(effect, computing.Remember) for effect in effects):
                self._workshop.remember(after)
            self.state = after
            self.touched = time.monotonic()
            released = None
            if any(isinstance(effect, computing.Release) for effect in effects):
                released, self._attempt = self._attempt, None
                self._prepared = None
                if self._stored:
                    self._workshop.discard(self.state.job_id)
                self._stored = False
            self._changed.notify_all()
        if released is not None:
            self._release(released)
        return effects

    def _release(self, attempt: Attempt) -> None:
        state = self.state
        reason = JobFailed(
            f"{sentence(state.reason)}.",
            service=state.culprit or None,
            again=state.again or None,
        )
        if attempt.abort(reason):
            self._workshop.closed(attempt, computed=False)

    def _same_again(self, number: int) -> Prepared:
        with self._changed:
            self._changed.wait_for(
                lambda: self.state.attempt != number or self.state.state is not State.PREPARING
            )
            if self.state.attempt != number or self._prepared is None:
                raise failed(self.state)
            return self._prepared

    def _break(self, number: int, error: Exception) -> MasqueError:
        """It cannot go on: note why and who is to blame, let go of everything; what to raise."""
        known = error if isinstance(error, MasqueError) else accident(self.state.job_id, error)
        told = str(known) if isinstance(known, Refused) else known.message  # what to do, as well
        try:
            again = passing(known)
            self._apply(computing.Broken(number, sentence(told), culprit(known), again))
        except AssertionError:  # not a state in which anything can break
            return known
        state = self.state
        if state.state is State.FAILED and state.attempt == number:
            _log.warning(
                "job failed",
                job=state.job_id,
                attempt=number,
                reason=state.reason,
                culprit=state.culprit,
                error=type(error).__name__,
            )
        return known

    def failure(self) -> JobFailed:
        """How the job has failed."""
        return failed(self.state)
