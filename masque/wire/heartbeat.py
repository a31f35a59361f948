"""Signs of life while a caller waits: empty messages, and at last the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import TypeVar

from masque.wire import tracing

Message = TypeVar("Message")

BEAT = 1.0
"""Seconds between two signs of life."""


def beating(
    work: Callable[[], Message], sign: Callable[[], Message], every: float = BEAT
) -> Iterator[Message]:
    """`sign()` every so many seconds while `work` runs in a thread, then what it returns or raises.

    A caller that leaves does not end the work.
    """
    thread = ThreadPoolExecutor(1, "work")
    future = thread.submit(tracing.inherit(work))
    thread.shutdown(wait=False)
    while True:
        with suppress(Late):  # the work's own as well: it is then done, and says so again
            future.result(every)
        if future.done():
            break
        yield sign()
    yield future.result()
