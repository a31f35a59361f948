"""What has been dealt to one party and not yet been sent: bounded, so that dealing waits."""

from __future__ import annotations

import threading
from collections import deque
from typing import NoReturn

from masque.errors import MasqueError
from masque.wire.material import Item


class Outbox:
    """A queue of corrections between the thread that deals and the stream of one party.

    It takes `budget` bytes (and one correction more), then `put` blocks: that is all the
    back-pressure there is, and it depends on shapes and the network alone. What is taken is gone.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._closed = False
        self._error: MasqueError | None = None

    def __repr__(self) -> str:
        return f"Outbox({self._bytes} bytes)"

    def put(self, position: int, part: bytes) -> None:
        """Add a correction; blocks while the budget is used up. Raises what `fail` was given."""
        with self._changed:
            while self._bytes >= self._budget and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            self._items.append((position, part))
            self._bytes += len(part)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will be put."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail(self, error: MasqueError) -> None:
        """Destroy what is here; `put` and `take` raise `error` from now on."""
        with self._changed:
            self._error = error
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Bytes put and not taken."""
        return self._bytes

    def take(self, limit: int) -> list[Item]:
        """What waits, up to about `limit` bytes; blocks for the first; [] at the end.

        Raises what `fail` was given.
        """
        with self._changed:
            while not self._items and not self._closed and self._error is None:
                self._changed.wait()
            if self._error is not None:
                self._raise()
            taken: list[Item] = []
            size = 0
            while self._items and (not taken or size + len(self._items[0][1]) <= limit):
                item = self._items.popleft()
                taken.append(item)
                size += len(item[1])
            self._bytes -= size
            self._changed.notify_all()
        return taken

    def _raise(self) -> NoReturn:
        assert self._error is not None
        raise self._error
