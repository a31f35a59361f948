"""One attempt of a job: what the state machine asks for is asked of everybody at once.

Threads that call services post events; one thread takes them, steps the machine
(`masque.jobs.conducting`), stores the job, and carries out the effects.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from masque.errors import MasqueError, ProtocolError
from masque.jobs.bound import BoundJob
from masque.jobs.conducting import (
    AskAbort,
    AskPrepare,
    AskResults,
    AskRound,
    Begin,
    ConductedJob,
    Effect,
    Event,
    Fetched,
    Overdue,
    PeerFailed,
    PeerStopped,
    Prepared,
    RoundDone,
    Stopped,
    step,
)
from masque.jobs.record import Progress
from masque.jobs.states import State, ends_in_time
from masque.wire import tracing
from masque.wire.failures import pack
from services.coordinator.board import Board
from services.coordinator.endings import bad, ending
from services.coordinator.figures import Tally
from services.coordinator.peers import ABORT, Peers, culprit
from services.coordinator.store import Sealed, Store
from services.coordinator.times import now

GRACE = 0.6
"""Seconds to listen after the first complaint: several services may notice one that died."""

_log = structlog.get_logger("masque.coordinator")


@dataclass
class Failure:
    """What came of asking `asked`: `error`, which may blame another service."""

    asked: str
    error: MasqueError


@dataclass
class _Posted:
    event: Event | Failure
    sealed: tuple[Sealed, ...] = ()
    handled: threading.Event = field(default_factory=threading.Event)
    refused: MasqueError | None = None


class Attempt:
    """Run it with `run`, in one thread; post to it from any."""

    def __init__(
        self,
        store: Store,
        board: Board,
        peers: Peers,
        bound: BoundJob,
        job: ConductedJob,
        deadlines: Callable[[Effect], float],
        tally: Tally,
    ) -> None:
        self.job = job
        self._store, self._board, self._peers = store, board, peers
        self._bound = bound.model_copy(update={"attempt": job.attempt})
        self._deadlines, self._tally = deadlines, tally
        self._deadline = float("inf")
        self._posted: queue.SimpleQueue[_Posted] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(len(job.everybody), "conduct")
        self._dealt: Prepared | None = None
        self._hint = ""
        self._begun = time.monotonic()
        self._trained = 0.0
        self._stopping: float | None = None
        self._traffic: dict[str, tuple[int, int]] = {}

    def run(self) -> None:
        """Until the job has ended."""
        self._begun = time.monotonic()
        try:
            self._peers.heed()
            self._step(_Posted(Begin()))
            while not self.job.ended:
                self._next()
        finally:
            self._peers.cancel()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def ask(self, event: Event, patience: float = 10.0) -> State:
        """Let a client's or our own event happen; returns the state after it.

        Raises what the machine says against it.
        """
        posted = _Posted(event)
        self._posted.put(posted)
        end = time.monotonic() + patience
        while not posted.handled.wait(0.1):
            if self.job.ended or time.monotonic() > end:
                return step(self.job, event)[0].state  # or it raises what speaks against it
        if posted.refused is not None:
            raise posted.refused
        return self.job.state

    def drain(self, until: float) -> None:
        """The service stops at `until`: the job goes on only if it can end by then."""
        self._stopping = until
        if self.job.state in (State.SUBMITTED, State.PREPARING):
            self._posted.put(_Posted(Stopped()))

    # -- events ----------------------------------------------------------------------------------

    def _next(self) -> None:
        left = self._deadline - time.monotonic()
        try:
            posted = self._posted.get(timeout=max(0.0, min(left, 1e6)))
        except queue.Empty:
            self._step(_Posted(Overdue()))
            return
        if isinstance(posted.event, Failure):
            posted = self._accuse(posted.event)
        self._step(posted)

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
                failures.setdefault(posted.event.asked, posted.event.error)
            elif not isinstance(posted.event, Prepared | RoundDone | Fetched):
                self._posted.put(posted)
                break
        name, error = blame(first.asked, failures, self.job.everybody)
        if name in self._peers.stopping:
            return _Posted(PeerStopped(name, self.job.attempt))
        self._hint = error.hint
        reason = bare(error.message, self.job)
        return _Posted(PeerFailed(name, self.job.attempt, reason.rstrip(".")))

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
        before, self.job = self.job, after
        moved = (before.state, before.round) != (after.state, after.round)
        progress = self.progress()
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
        if moved:
            self._tally.rounds += before.state is State.TRAINING and not bad(after)
            if after.ended:
                self._tally.end(after.state)
            self._log(after)
        self._board.notify(after.job_id, over=after.ended)

    def progress(self) -> str:
        """How far the job is, as JSON for watchers."""
        job = self.job
        names = job.round_names
        over = job.state in (State.FINISHING, State.SUCCEEDED)
        running = job.state is State.TRAINING
        return Progress(
            job=job.job_id,
            attempt=job.attempt,
            state=job.state.value,
            round_name=names[job.round] if names and (running or over) else "",
            round=job.round + 1 if running or over else 0,
            of=len(names),
            seconds=round(time.monotonic() - self._begun, 3),
            exchanges=max((count for count, _ in self._traffic.values()), default=0),
            bytes_sent=sum(sent for _, sent in self._traffic.values()),
            stopped=job.stopped,
            reason=job.reason,
            culprit=job.culprit,
        ).to_json()

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

    # -- effects ---------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, AskAbort):
            self._peers.cancel()
            abort_everywhere(self._peers, self._bound, effect)
            return
        if isinstance(effect, AskRound) and self._late(effect.round):
            self._step(_Posted(Stopped()))
            return
        self._deadline = time.monotonic() + self._deadlines(effect)
        for peer in sorted(effect.peers):
            self._threads.submit(tracing.inherit(partial(self._ask, peer, effect)))

    def _late(self, number: int) -> bool:
        """Whether the service stops before the training rounds from `number` on can be done."""
        now = time.monotonic()
        if number == 0:
            self._trained = now
        rounds, seconds = len(self.job.round_names), now - self._trained
        until = self._stopping
        return until is not None and not ends_in_time(number, rounds, seconds, until - now)

    def _ask(self, peer: str, effect: AskPrepare | AskRound | AskResults) -> None:
        attempt = self._bound.attempt
        try:
            if isinstance(effect, AskPrepare):
                program, names = self._peers.prepare(peer, self._bound)
                self._posted.put(_Posted(Prepared(peer, attempt, program, names)))
            elif isinstance(effect, AskRound):
                stopped = self._peers.run_round(peer, self._bound, effect.round, self._tell)
                self._posted.put(_Posted(RoundDone(peer, attempt, effect.round, stopped)))
            else:
                sealed = self._peers.fetch(peer, self._bound)
                self._posted.put(_Posted(Fetched(peer, attempt), sealed))
        except MasqueError as error:
            self._posted.put(_Posted(Failure(peer, error)))
        except Exception as error:  # ours; the job must not hang for it
            _log.error("incident", job=self._bound.job_id, exc_info=error)
            fault = MasqueError(f"the coordinator failed while it asked {peer}")
            self._posted.put(_Posted(Failure(peer, fault)))

    def _tell(self, party: str, traffic: Any) -> None:
        self._traffic[party] = (int(traffic.exchanges), int(traffic.sent))
        self._board.news(self.job.job_id, self.job.state.value, self.progress)


def bare(text: str, job: ConductedJob) -> str:
    """What a peer says, without that the job has failed: we say that ourselves."""
    head = f"job {job.job_id}, attempt {job.attempt}, has failed"
    return text.removeprefix(head).partition(": ")[2] if text.startswith(head) else text


def blame(
    first: str, failures: dict[str, MasqueError], everybody: frozenset[str]
) -> tuple[str, MasqueError]:
    """The service at the end of the chain of accusations that begins at `first`, and the error.

    A party that loses the dealer blames it, and leaves; another then blames the party that left.
    """
    at, seen = first, {first}
    error = failures[first]
    while at in failures:
        error = failures[at]
        accused = culprit(error, at, everybody)
        if accused == at or accused in seen:
            return accused, error
        seen.add(accused)
        at = accused
    return at, error


def abort_everywhere(peers: Peers, bound: BoundJob, effect: AskAbort) -> None:
    """Tell all of `effect.peers` at once, and do not wait longer than they may take to answer."""
    threads = ThreadPoolExecutor(max(1, len(effect.peers)), "abort")

    def tell(peer: str) -> None:
        try:
            peers.abort(peer, bound, effect.reason)
        except MasqueError as error:
            _log.warning("abort not heard", job=bound.job_id, peer=peer, error=error)

    told = [threads.submit(tracing.inherit(partial(tell, peer))) for peer in sorted(effect.peers)]
    wait(told, ABORT + 1)
    threads.shutdown(wait=False)
