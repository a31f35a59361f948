"""Where watchers wait: everything stored of a job, then every event as it happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from masque.errors import Refused, Unavailable
from services.coordinator.store import Store, StoredEvent

MOST_WATCHERS = 40
TICK = 1.0
"""Seconds after which a watcher looks whether its caller is still there."""

INTERVAL = 0.1
"""Seconds between two pieces of live news of one job, at least."""


@dataclass
class _News:
    """The latest of a job that is not worth storing: how far its training round is."""

    version: int = 0
    event: StoredEvent | None = None
    at: float = field(default=0.0)


class Board:
    """Thread-safe. Stored events come from the store, live news from memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._change = threading.Condition()
        self._news: dict[str, _News] = {}
        self._watchers = 0
        self._closed = False

    def notify(self, job_id: str, *, over: bool) -> None:
        """Something was stored of a job; if `over`, there will be no more live news of it."""
        with self._change:
            if over:
                self._news.pop(job_id, None)
            self._change.notify_all()

    def news(self, job_id: str, state: str, progress: Callable[[], str]) -> None:
        """Show live progress, unless there was some a moment ago."""
        now = time.monotonic()
        with self._change:
            held = self._news.setdefault(job_id, _News())
            if now - held.at < INTERVAL:
                return
            held.at, held.version = now, held.version + 1
            held.event = StoredEvent(0, state, progress(), "", False)
            self._change.notify_all()

    @property
    def watchers(self) -> int:
        """How many watch."""
        with self._change:
            return self._watchers

    def watch(self, job_id: str, alive: Callable[[], bool]) -> Iterator[StoredEvent]:
        """Events of a job until it has ended, nobody listens, or the board closes.

        Raises Refused when there are too many watchers, Unavailable when the service stops.
        """
        with self._change:
            if self._watchers >= MOST_WATCHERS:
                raise Refused(
                    f"{MOST_WATCHERS} watchers are all the coordinator has room for.",
                    hint="Try again later, or ask with `masque jobs`.",
                )
            self._watchers += 1
        try:
            yield from self._watch(job_id, alive)
        finally:
            with self._change:
                self._watchers -= 1

    def close(self) -> None:
        """End all watching."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _watch(self, job_id: str, alive: Callable[[], bool]) -> Iterator[StoredEvent]:
        number, version = 0, 0
        while alive():
            with self._change:
                seen = self._news.get(job_id)
                fresh = seen.event if seen is not None and seen.version != version else None
                version = seen.version if seen is not None else version
                stored = self._store.events(job_id, number)
                if not stored and fresh is None:
                    if self._closed:
                        raise Unavailable(
                            "The coordinator is stopping.", hint="Watch again once it is back."
                        )
                    self._change.wait(TICK)
                    continue
            for event in stored:
                number = event.number
                yield event
                if event.ended:
                    return
            if fresh is not None and not stored:
                yield fresh
