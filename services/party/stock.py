"""This party's material on its way from the dealer to the core: fetched ahead, bounded, used once.

A thread reads the dealer's stream while there is room; the core takes corrections by position and
waits when they have not arrived. When the room is used up the thread stops reading, and HTTP/2's
flow control stops the dealer. What is taken is gone; what is left when a job ends is dropped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from masque.errors import JobFailed, MasqueError, ProtocolError, Unavailable
from masque.mpc.doors import Buffer
from masque.v1.dealer_pb2 import Material
from masque.wire import tracing
from masque.wire.material import Item, Unpacker

_HEARSAY = 2.0
"""Seconds that news of *another* party's end, from the dealer, wait for that party's own word."""

_MOST = 1 << 16
"""Corrections that may wait, however short they are."""

Listener = Callable[[MasqueError], object]
"""Hears of an error that nobody waits for."""


class Source(Protocol):
    """An open stream of material; errors are `MasqueError`s."""

    def messages(self) -> Iterable[Material]:
        """Every message of the stream; blocks between them."""

    def cancel(self) -> None:
        """End the stream now, from any thread."""


class Stock:
    """`masque.mpc.doors.Supply` from the dealer's stream.

    `open` calls the dealer; `failed` hears, once and in a thread of its own, that the stream broke;
    `budget`: bytes that may wait; `patience`: seconds a caller waits for the dealer.
    """

    def __init__(
        self,
        dealer: str,
        open: Callable[[], Source],
        failed: Listener,
        *,
        budget: int,
        patience: float,
    ) -> None:
        self._dealer, self._open, self._failed = dealer, open, failed
        self._budget, self._patience = budget, patience
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._wanted: int | None = None
        self._seed: bytes | None = None
        self._complete = False
        self._error: MasqueError | None = None
        self._source: Source | None = None
        self.received = 0
        """Bytes of corrections so far."""
        self.waited = 0.0
        """Seconds that the core has waited for corrections."""

    def __repr__(self) -> str:
        return f"Stock({self._bytes} bytes)"

    def start(self) -> None:
        """Call the dealer and fetch, in a thread."""
        fetch = tracing.inherit(self._fetch)
        threading.Thread(target=fetch, name="stock", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Bytes that have arrived and not been taken."""
        return self._bytes

    @property
    def hungry(self) -> bool:
        """Whether the core waits for corrections just now."""
        return self._wanted is not None

    def seed(self) -> bytes:
        """This party's seed, once it is there; it is handed out once."""
        with self._changed:
            self._await(lambda: self._seed is not None)
            seed, self._seed = self._seed, None
        assert seed is not None, "the core asks once"
        return seed

    def corrections(self, position: int, size: int) -> Buffer:
        """See `masque.mpc.doors.Supply`; raises what ended the stream."""
        with self._changed:
            if not self._items or self._error is not None:
                self._await_corrections(size)
            if not self._items:
                raise self._wrong(f"it ended before position {position}")
            if self._full():
                self._changed.notify_all()
            found, part = self._items.popleft()
            self._bytes -= len(part)
        if found != position or len(part) != size:
            raise self._wrong(f"position {found} came where {position} was due, or its size is not")
        return part

    def finish(self) -> None:
        """The program is over: ProtocolError if the dealer has sent more than it needed."""
        with self._changed:
            self._await(lambda: bool(self._items) or self._complete)
            if self._items:
                raise self._wrong("it holds more than the program needs")

    def close(self, error: MasqueError) -> None:
        """Drop everything; who asks from now on gets `error`."""
        with self._changed:
            self._error = self._error or error
            self._seed = None
            self._items.clear()
            self._bytes = 0
            source = self._source
            self._changed.notify_all()
        if source is not None:
            source.cancel()

    def _await(self, ready: Callable[[], bool]) -> None:
        """Wait with the lock held; raises what ended the stream, or Unavailable when it is late."""
        in_time = self._changed.wait_for(
            lambda: self._error is not None or ready(), timeout=self._patience
        )
        if self._error is not None:
            raise self._error
        if not in_time:
            raise Unavailable(
                f"the dealer {self._dealer!r} sent nothing for {self._patience:g} s.",
                hint="Check that it is running and not paused or overloaded: see its log.",
                service=self._dealer,
            )

    def _await_corrections(self, size: int) -> None:
        """Wait for the next correction, which the core wants in `size` bytes."""
        start = time.monotonic()
        self._wanted = size
        self._changed.notify_all()
        try:
            self._await(lambda: bool(self._items) or self._complete)
        finally:
            self._wanted = None
        self.waited += time.monotonic() - start

    def _full(self) -> bool:
        return self._bytes >= self._budget or len(self._items) >= _MOST

    def _fetch(self) -> None:
        try:
            source = self._open()
            with self._changed:
                self._source = source
                closed = self._error is not None
            if closed:
                source.cancel()
                return
            self._drain(source)
        except MasqueError as error:
            with self._changed:
                if isinstance(error, JobFailed):
                    self._changed.wait_for(lambda: self._error is not None, _HEARSAY)
                news = self._error is None
            self.close(error)
            if news:
                self._failed(error)

    def _drain(self, source: Source) -> None:
        unpacker = Unpacker(f"dealer {self._dealer!r}")
        for message in source.messages():
            with self._changed:
                if message.seed:
                    self._seed = unpacker.seed(message)
                else:
                    self._add(unpacker.items(message), len(message.corrections))
                    self._check_begun(unpacker.begun)
                self._changed.notify_all()
        unpacker.finish()
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def _add(self, items: Iterable[Item], size: int) -> None:
        self._changed.wait_for(lambda: not self._full() or self._error is not None)
        if self._error is not None:
            raise self._error
        self.received += size
        for item in items:
            self._items.append(item)
            self._bytes += len(item[1])

    def _check_begun(self, size: int) -> None:
        """A correction of which `size` bytes are there may exceed the budget if the core wants it.

        Raises ProtocolError if it becomes longer than that.
        """
        if size <= self._budget:
            return
        self._changed.wait_for(
            lambda: (self._wanted is not None and not self._items) or self._error is not None
        )
        if self._error is not None:
            raise self._error
        if self._wanted is not None and size > self._wanted:
            raise self._wrong(f"a correction of {self._wanted} bytes has {size} and does not end")

    def _wrong(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"the stream of dealer {self._dealer!r} does not fit the program: {what}.",
            hint="Check that all services run the same version of Masque.",
            service=self._dealer,
        )
