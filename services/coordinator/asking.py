"""What a job asks of dealer and parties, in threads of their own; what comes of it is posted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from masque.errors import MasqueError, passing
from masque.jobs.bound import BoundJob
from masque.jobs.conducting import (
    Absent,
    AskPrepare,
    AskResults,
    AskRound,
    Begin,
    Event,
    Fetched,
    Opposed,
    Prepared,
    RoundDone,
)
from masque.wire import tracing
from services.coordinator.peers import ABORT, Alive, Peers
from services.coordinator.store import Sealed

_log = structlog.get_logger("masque.coordinator")


@dataclass(frozen=True)
class Failure:
    """What came of asking `asked` in an attempt: `error`, which may blame another service."""

    asked: str
    attempt: int
    error: MasqueError


Post = Callable[[Event | Failure, tuple[Sealed, ...]], None]
"""Hears what has come of something, with sealed results if there are any."""

Obstacle = Callable[[Peers], Absent | None]


class Asking:
    """For one job of `size` services; `alive` hears every sign of life. Owned by one thread."""

    def __init__(
        self, size: int, open_peers: Callable[[], Peers], post: Post, alive: Alive
    ) -> None:
        self._open, self._post, self._alive = open_peers, post, alive
        self._threads = ThreadPoolExecutor(2 * size + 1, "conduct")
        self._lock, self._closed = threading.Lock(), False
        self._peers: Peers | None = None

    @property
    def stopping(self) -> set[str]:
        """Who has said that it is being stopped."""
        return self._peers.stopping if self._peers is not None else set()

    def look(self, obstacle: Obstacle) -> None:
        """Is everybody there, and no other `obstacle`? Posts `Begin`, or what is in the way.

        The way to everybody stays open for the attempt that begins.
        """
        self._threads.submit(tracing.inherit(partial(self._look, obstacle)))

    def ask(
        self, bound: BoundJob, effect: AskPrepare | AskRound | AskResults, seconds: float
    ) -> None:
        """Ask everybody of an effect; the answers must be there in so many seconds."""
        peers = self._peers
        assert peers is not None, "opened before the attempt began"
        for peer in sorted(effect.peers):
            ask = partial(self._ask, peers, bound, peer, effect, seconds)
            self._threads.submit(tracing.inherit(ask))

    def renew(self, bound: BoundJob, parties: frozenset[str]) -> None:
        """These have done their part and wait for the others: they are still wanted."""
        if self._peers is not None:
            for party in sorted(parties):
                work = partial(self._renew, self._peers, bound, party)
                self._threads.submit(tracing.inherit(work))

    def abort(self, bound: BoundJob, everybody: frozenset[str], reason: str) -> None:
        """Tell everybody that the attempt is over; returns when they know, or do not answer."""
        peers, self._peers = self._peers or self._open(), None
        with peers:
            peers.cancel()
            tell(everybody, lambda peer: peers.abort(peer, bound, reason), "abort")

    def hang_up(self) -> None:
        """Break off what is under way; nobody is told."""
        with self._lock:
            peers, self._peers = self._peers, None
        if peers is not None:
            peers.cancel()
            peers.close()

    def close(self) -> None:
        """Ask nothing any more, of nobody."""
        with self._lock:
            self._closed = True
        self.hang_up()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- in threads ------------------------------------------------------------------------------

    def _look(self, obstacle: Obstacle) -> None:
        event: Event
        try:
            event = self._obstacle(obstacle) or Begin()
        except MasqueError as error:
            name = str(error.where.get("peer") or error.where.get("party") or "")
            reason = error.message.rstrip(".")
            event = Absent(name, reason) if passing(error) else Opposed(name, reason)
        except Exception as accident:  # ours; the job must not hang for it
            _log.error("incident", exc_info=accident)
            event = Absent("", "the coordinator failed on its own account")
        self._post(event, ())

    def _obstacle(self, obstacle: Obstacle) -> Absent | None:
        peers = self._open()
        try:
            error = peers.absent()
            if error is not None:
                raise error
            found = obstacle(peers)
            if found is None:
                peers.heed()
        except BaseException:
            peers.close()
            raise
        with self._lock:
            if found is None and not self._closed:
                self._peers = peers
                return None
        peers.close()
        return found or Absent("", "the job has ended")

    def _ask(
        self,
        peers: Peers,
        bound: BoundJob,
        peer: str,
        effect: AskPrepare | AskRound | AskResults,
        seconds: float,
    ) -> None:
        attempt = bound.attempt
        sealed: tuple[Sealed, ...] = ()
        event: Event | Failure
        try:
            if isinstance(effect, AskPrepare):
                program, names = peers.prepare(peer, bound, seconds, self._alive)
                event = Prepared(peer, attempt, program, names)
            elif isinstance(effect, AskRound):
                said = peers.run_round(peer, bound, effect.round, seconds, self._alive)
                event = RoundDone(peer, attempt, effect.round, *said)
            else:
                sealed = peers.fetch(peer, bound, seconds, self._alive)
                event = Fetched(peer, attempt)
        except MasqueError as error:
            event = Failure(peer, attempt, error)
        except Exception as error:  # ours; the job must not hang for it
            _log.error("incident", job=bound.job_id, exc_info=error)
            fault = MasqueError(f"the coordinator failed while it asked {peer}")
            event = Failure(peer, attempt, fault)
        self._post(event, sealed)

    def _renew(self, peers: Peers, bound: BoundJob, party: str) -> None:
        try:
            peers.renew(party, bound)
        except MasqueError as error:
            self._post(Failure(party, bound.attempt, error), ())
        except Exception as error:
            _log.error("incident", job=bound.job_id, exc_info=error)


def tell(peers: frozenset[str], how: Callable[[str], Any], what: str) -> None:
    """Tell all of them at once, and do not wait longer than they may take to answer."""
    threads = ThreadPoolExecutor(max(1, len(peers)), what)

    def one(peer: str) -> None:
        try:
            how(peer)
        except MasqueError as error:
            _log.warning(f"{what} not heard", peer=peer, error=error)

    told = [threads.submit(tracing.inherit(partial(one, peer))) for peer in sorted(peers)]
    wait(told, ABORT + 1)
    threads.shutdown(wait=False)


def seconds_until(moment: float) -> float:
    """Of the monotonic clock; at least a little."""
    return max(0.1, moment - time.monotonic())
