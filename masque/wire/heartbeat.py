"""Signs of life while a caller waits, then the answer.

A sign says what the work is about, and a number that grows for as long as it comes further: of
steps that it has begun, and of hundredths of a second of CPU that its threads have used. Work that
hangs shows that its service lives, and does not move.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TypeVar

from masque.wire import tracing

Message = TypeVar("Message")

BEAT = 1.0
"""Seconds between two signs of life."""

Clock = Callable[[], float]


def thread_clock() -> Clock:
    """Reads, in any thread, how many seconds of CPU the thread that calls this has used."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    number = time.pthread_getcpuclockid(threading.get_ident())
    return partial(time.clock_gettime, number)


class _Work:
    """What one thread does, or several that were asked for the same."""

    def __init__(self) -> None:
        self.doing = ""
        self.steps = 0
        self.threads = 0
        self._clocks: list[Clock] = []

    def run(self, work: Callable[[], Message]) -> Message:
        """In the thread that works."""
        _current.set(self)
        clock = thread_clock()
        self._clocks.append(clock)
        try:
            return work()
        finally:
            self._clocks.remove(clock)
            self.steps += 1

    @property
    def moved(self) -> int:
        """Another number whenever it has come further."""
        used = 0.0
        for clock in list(self._clocks):
            with suppress(OSError):  # the thread has just ended
                used += clock()
        return self.steps + int(100 * used)


_current: ContextVar[_Work | None] = ContextVar("work", default=None)


def begin(doing: str) -> None:
    """What this thread does from now on, in words, if somebody waits for it."""
    work = _current.get()
    if work is not None:
        work.doing, work.steps = doing, work.steps + 1


class Heartbeat:
    """Of one service. What it is asked for twice at a time is one work, whoever does it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: dict[Hashable, _Work] = {}

    def beating(
        self,
        what: Hashable,
        work: Callable[[], Message],
        sign: Callable[[str, int], Message],
        every: float = BEAT,
    ) -> Iterator[Message]:
        """`sign(doing, moved)` every so many seconds while `work` runs in a thread, then what it
        returns or raises.

        `what`: what is asked for. A caller that leaves does not end the work.
        """
        with self._lock:
            shared = self._works.setdefault(what, _Work())
            shared.threads += 1
        thread = ThreadPoolExecutor(1, "work")
        future = thread.submit(tracing.inherit(partial(self._run, what, shared, work)))
        thread.shutdown(wait=False)
        while True:
            with suppress(Late):  # the work's own as well: it is then done, and says so again
                future.result(every)
            if future.done():
                break
            yield sign(shared.doing, shared.moved)
        yield future.result()

    def _run(self, what: Hashable, shared: _Work, work: Callable[[], Message]) -> Message:
        try:
            return shared.run(work)
        finally:
            with self._lock:
                shared.threads -= 1
                if not shared.threads:
                    del self._works[what]
