"""The course of one job, from its turn to its end, attempt after attempt.

Threads that call services (`asking`) post events; one thread takes them, steps the machine
(`masque.jobs.conducting`), stores the job, and carries out the effects.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import structlog

from masque.errors import JobFailed, MasqueError, NotFound, ProtocolError, Unavailable, passing
from masque.jobs.bound import BoundJob
from masque.jobs.conducting import (
    Absent,
    AskAbort,
    AskPrepare,
    AskResults,
    AskRound,
    ConductedJob,
    Effect,
    Event,
    Expired,
    Fetched,
    Forget,
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
from masque.jobs.states import State, ends_in_time
from masque.wire import tracing
from masque.wire.failures import pack
from services.coordinator.asking import Asking, Failure, seconds_until
from services.coordinator.blame import bare, blame
from services.coordinator.board import Board
from services.coordinator.endings import bad, ending
from services.coordinator.figures import Tally
from services.coordinator.leases import Leases
from services.coordinator.pauses import FIRST_PAUSE, Pauses
from services.coordinator.peers import Peers
from services.coordinator.room import Room
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.store import Sealed, Store, attempt_of
from services.coordinator.telling import about, progress_of
from services.coordinator.times import now

GRACE = 0.6
"""Seconds to listen after the first complaint: several services may notice one that died."""

RUNNING = frozenset({State.PREPARING, State.TRAINING, State.FINISHING})

_log = structlog.get_logger("masque.coordinator")


@dataclass
class _Posted:
    event: Event | Failure
    sealed: tuple[Sealed, ...] = ()
    handled: threading.Event = field(default_factory=threading.Event)
    refused: MasqueError | None = None


class Course:
    """Run it with `run`, in one thread; post to it from any."""

    def __init__(
        self,
        store: Store,
        board: Board,
        peers: Callable[[], Peers],
        bound: BoundJob,
        job: ConductedJob,
        settings: CoordinatorSettings,
        tally: Tally,
        room: Room,
    ) -> None:
        self.job = job if job.begun else replace(job, begun=time.time())
        self._store, self._board = store, board
        self._whole, self._settings, self._tally = bound, settings, tally
        self._room = room
        self._bound = attempt_of(self._whole, self.job)
        self._posted: queue.SimpleQueue[_Posted] = queue.SimpleQueue()
        self._asking = Asking(len(job.everybody), peers, self._post, self._alive)
        self._leases = Leases(settings.lease_seconds)
        self._dealt: Prepared | None = None
        self._hint = ""
        self._begun = time.monotonic()
        self._trained = 0.0
        self._stopping: float | None = None
        self._parked = False
        self._left = threading.Event()
        self._traffic: dict[str, tuple[int, int]] = {}
        left = self.job.begun + settings.job_seconds - time.time()
        self._expires = time.monotonic() + left
        self._wake = self._tick = float("inf")
        self._pauses = Pauses()

    def run(self, broken: str = "") -> None:
        """Until the job has ended, or the service stops; `broken`: why it was broken off before."""
        try:
            if self.job.state in RUNNING:
                self._step(_Posted(Restarted(broken) if broken else Restarted()))
            else:
                self._wake = time.monotonic()
            while not self.job.ended and not self._parked:
                self._next()
        except Exception:  # ours: whoever runs us tries again, and nobody need wait until then
            self._parked = True
            if self.job.state is not State.FINISHING:  # results that are due wait for us
                told = "the coordinator could not go on"
                self._asking.abort(self._bound, self.job.everybody, told)
            raise
        finally:
            self._left.set()  # first: a look that is under way claims no room from now on
            self._room.release(self.job.job_id, over=True)
            self._asking.close()

    def ask(self, event: Event, patience: float = 10.0) -> State:
        """Let a client's or our own event happen; returns the state after it.

        Raises what the machine says against it, Unavailable if nobody has seen to it: it may happen
        all the same.
        """
        posted = _Posted(event)
        self._posted.put(posted)
        end = time.monotonic() + patience
        while not posted.handled.wait(0.1):
            left = self._left.is_set()
            if posted.handled.is_set():
                break
            if left and not self._parked:
                return step(self.job, event)[0].state  # or it raises what speaks against it
            if left or time.monotonic() > end:
                raise Unavailable("The coordinator could not do it just now.", hint="Try again.")
        if posted.refused is not None:
            raise posted.refused
        return self.job.state

    def drain(self, until: float) -> None:
        """The service stops at `until`: the job goes on only if it can end by then."""
        self._stopping = until
        if self.job.state not in (State.TRAINING, State.FINISHING):
            self.park()

    @property
    def asks_people(self) -> bool:
        """Does it wait for somebody's yes?"""
        return self._pauses.asks_people

    def park(self) -> None:
        """The service stops: the job waits for it to come back."""
        self._post(Stopped())

    def _post(self, event: Event | Failure, sealed: tuple[Sealed, ...] = ()) -> None:
        self._posted.put(_Posted(event, sealed))

    # -- events ----------------------------------------------------------------------------------

    def _next(self) -> None:
        until = min(self._wake, self._tick, self._expires)
        try:
            posted = self._posted.get(timeout=max(0.0, min(until - time.monotonic(), 1e6)))
        except queue.Empty:
            self._on_time(time.monotonic())
            return
        event = posted.event
        self._pauses.looks = self._pauses.looks + 1 if isinstance(event, Absent) else 0
        if isinstance(event, Failure):
            if event.attempt != self.job.attempt or self.job.state not in RUNNING:
                return
            posted = self._accuse(event)
        self._step(posted)
        if isinstance(posted.event, Stopped):
            self._parked = True

    def _on_time(self, at: float) -> None:
        if at >= self._expires:
            running = self.job.state in RUNNING
            culprit = self._leases.slowest(self.job.waiting) if running else ""
            self._step(_Posted(Expired(self._doing(), culprit)))
        elif at >= self._wake:
            self._wake = float("inf")
            crowded = self._room.crowded(self.job.job_id)
            if crowded is None:
                self._asking.look(self._obstacle)
            else:
                self._step(_Posted(Absent("", f"waits for room: {crowded.reason}")))
                self._wake = at + FIRST_PAUSE
        elif at >= self._tick:
            self._tick = at + self._settings.lease_seconds / 4
            self._asking.renew(self._bound, frozenset(self.job.parties) - self.job.waiting)
            late = self._leases.late(self.job.waiting)
            if late is not None:
                self._step(_Posted(Overdue(late.culprit, f"{about(self.job)}: {late.doing}")))

    def _accuse(self, first: Failure) -> _Posted:
        """Who is at fault, after listening a moment to what the others say."""
        failures = {first.asked: first.error}
        end = time.monotonic() + GRACE
        while len(failures) < len(self.job.everybody):
            try:
                posted = self._posted.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(posted.event, Failure):
                if posted.event.attempt == self.job.attempt:
                    failures.setdefault(posted.event.asked, posted.event.error)
            elif not isinstance(posted.event, Prepared | RoundDone | Fetched):
                self._posted.put(posted)
                break
        name, error = blame(first.asked, failures, self.job.everybody)
        if name in self._asking.stopping:
            return _Posted(PeerStopped(name, self.job.attempt))
        self._hint = error.hint
        reason = bare(error.message, self.job).rstrip(".")
        if self.job.state is State.TRAINING:
            reason += f" (in {about(self.job)})"
        lost = error.where.get("checkpoint") == "lost" or (
            self.job.state is State.FINISHING and _has_none(error)
        )
        return _Posted(PeerFailed(name, self.job.attempt, reason, passing(error) or lost, lost))

    def _step(self, posted: _Posted) -> None:
        event = posted.event
        assert not isinstance(event, Failure), "failures are turned into accusations"
        if isinstance(event, Prepared) and not event.round_names:
            if not self.job.round_names:
                self._dealt = event  # the dealer tells no names: wait for the first party's
                return
            event = replace(event, round_names=self.job.round_names)
        try:
            after, effects = step(self.job, event)
        except ProtocolError as error:
            self._hint = error.hint
            name = getattr(event, "peer", "")
            fault = PeerFailed(name, self.job.attempt, error.message.rstrip("."))
            after, effects = step(self.job, fault)
        except MasqueError as error:
            posted.refused = error
            posted.handled.set()
            return
        self._keep(after, posted.sealed)
        posted.handled.set()
        for effect in effects:
            self._carry_out(effect)
        if isinstance(event, Prepared) and self._dealt is not None:
            dealt, self._dealt = self._dealt, None
            self._step(_Posted(dealt))

    def _keep(self, after: ConductedJob, sealed: tuple[Sealed, ...]) -> None:
        before = self.job
        if after == before and not sealed:
            return
        moved = (before.state, before.round, before.attempt) != (
            after.state,
            after.round,
            after.attempt,
        ) or (after.state is not State.TRAINING and before.reason != after.reason)
        progress = self._progress(after)
        error = ""
        if bad(after):
            error = pack(ending(after, self._hint), tracing.request()).decode()
        self._store.update(
            after,
            progress,
            error=error,
            ended=now() if after.ended else "",
            sealed=sealed,
            tell=moved or after.ended,
        )
        self.job = after
        if moved:
            done = before.state is State.TRAINING and after.state in RUNNING
            self._tally.count(rounds=int(done))
            if after.ended:
                self._tally.end(after.state)
            self._log(after)
        self._board.notify(after.job_id, over=after.ended)

    def progress(self) -> str:
        """How far the job is, as JSON for watchers."""
        return self._progress(self.job)

    def _progress(self, job: ConductedJob) -> str:
        seconds = time.monotonic() - self._begun
        return progress_of(job, seconds, list(self._traffic.values())).to_json()

    def _log(self, job: ConductedJob) -> None:
        _log.info(
            "job",
            job=job.job_id,
            attempt=job.attempt,
            state=job.state.value,
            round=job.round,
            reason=job.reason or None,
            culprit=job.culprit or None,
        )

    def _doing(self) -> str:
        running = self.job.state in RUNNING
        doing = self._leases.doing(self.job.waiting) if running else ""
        return f"{about(self.job)}: {doing}" if doing else about(self.job)

    # -- effects ---------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, AskAbort):
            self._asking.abort(self._bound, effect.peers, effect.reason)
        elif isinstance(effect, Forget):
            return  # stored with the end of the job: see `parting`
        elif isinstance(effect, Wait):
            self._asking.hang_up()
            self._room.release(self.job.job_id, over=False)
            self._tick = float("inf")
            self._wake = time.monotonic() + self._pauses.after(effect.fruitless)
        elif isinstance(effect, AskRound) and self._late(effect.round):
            self._step(_Posted(Stopped()))
            self._parked = True
        else:
            self._ask_all(effect)

    def _ask_all(self, effect: AskPrepare | AskRound | AskResults) -> None:
        if isinstance(effect, AskPrepare):
            self._bound, self._traffic, self._dealt = attempt_of(self._whole, self.job), {}, None
            self._begun = time.monotonic()
        self._leases.grant(effect.peers)
        self._tick = time.monotonic() + self._settings.lease_seconds / 4
        self._asking.ask(self._bound, effect, seconds_until(self._expires))

    def _late(self, number: int) -> bool:
        """Whether the service stops before the training rounds from `number` on can be done."""
        now = time.monotonic()
        if number == 0:
            self._trained = now
        rounds, seconds = len(self.job.round_names), now - self._trained
        until = self._stopping
        return until is not None and not ends_in_time(number, rounds, seconds, until - now)

    def _obstacle(self, peers: Peers) -> Absent | None:
        """What keeps an attempt from beginning, though everybody is there; None: it may.

        Raises what a party has against the job.
        """
        if self.job.due:
            return None
        if self.job.state is State.SUBMITTED:
            unapproved = self._missing(peers)
            self._pauses.asks_people = unapproved is not None
            if unapproved is not None:
                return unapproved
        waits = self._room.claim(self.job.job_id, lambda: self._need, peers.lent())
        if self._left.is_set():  # the job was cancelled meanwhile: nobody would give it back
            self._room.release(self.job.job_id, over=True)
        return Absent(waits.party, f"waits for room: {waits.reason}") if waits else None

    def _missing(self, peers: Peers) -> Absent | None:
        """Whose yes the job waits for, and at which parties. Raises what one has against it."""
        asked = {party: peers.review(party, self._bound) for party in self.job.parties}
        waits = {party: " or ".join(names) for party, names in asked.items() if names}
        if not waits:
            return None
        whose = ", and ".join(f"of {names} at {party}" for party, names in waits.items())
        return Absent(", ".join(waits), f"waits for a yes {whose}")

    @cached_property
    def _need(self) -> int:
        """Bytes that the job needs at a party; 0 if it cannot be compiled: that is said later."""
        from masque.jobs.compile import compile_job
        from masque.mpc.footprint import footprint

        try:
            return footprint(compile_job(self._whole))
        except MasqueError:
            return 0

    def _alive(self, peer: str, progress: Any) -> None:
        self._leases.alive(peer, progress)
        if progress is not None:
            traffic = progress.traffic
            self._traffic[peer] = (int(traffic.exchanges), int(traffic.sent))
            self._board.news(self.job.job_id, self.job.state.value, self.progress)


def _has_none(error: MasqueError) -> bool:
    """Does a party say that it has no results of an attempt, and could take part in another?"""
    over = isinstance(error, NotFound | JobFailed) and passing(error)
    return over or error.where.get("results") == "lost"
