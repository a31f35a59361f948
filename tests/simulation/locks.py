"""What services take for the locks of `threading`, on a `World`: who waits is parked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

from greenlet import getcurrent

from tests.simulation.worlds import Task, World


def _me() -> Task:
    task = getcurrent()
    assert isinstance(task, Task), "only a simulated thread can wait"
    return task


class Lock:
    """`threading.Lock`."""

    def __init__(self) -> None:
        self._owner: object = None
        self._waiting: deque[Task] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        world, task = World.current, getcurrent()
        simulated = isinstance(task, Task)
        if simulated:
            if cast(Task, task).host.dead:
                return True
            world.pause()
        end = world.now + timeout if timeout >= 0 else None
        while self._owner is not None:
            if not blocking:
                return False
            left = None if end is None else end - world.now
            if left is not None and left <= 0:
                return False
            self._waiting.append(_me())
            world.park(left)
            if task in self._waiting:
                self._waiting.remove(cast(Task, task))
        self._owner = task
        return True

    def release(self) -> None:
        if World.current.here.dead:
            return
        assert self._owner is not None, "release unlocked lock"
        self._owner = None
        if self._waiting:
            World.current.wake(self._waiting.popleft())

    def locked(self) -> bool:
        return self._owner is not None

    def owned(self) -> bool:
        return self._owner is getcurrent()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock(Lock):
    """`threading.RLock`."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._owner is not getcurrent() and not super().acquire(blocking, timeout):
            return False
        self._count += 1
        return True

    def release(self) -> None:
        self._count -= 1
        if self._count <= 0:
            self._count = 0
            super().release()

    def let_go(self) -> int:
        """Release it however often it was taken; `take_back` undoes that."""
        count, self._count = self._count, 1
        self.release()
        return count

    def take_back(self, count: int) -> None:
        self.acquire()
        self._count = count


class Condition:
    """`threading.Condition`."""

    def __init__(self, lock: Any = None) -> None:
        self._lock = lock if lock is not None else RLock()
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return bool(self._lock.acquire(blocking, timeout))

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return bool(self._lock.acquire())

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        task = _me()
        self._waiting.append(task)
        count = self._lock.let_go() if isinstance(self._lock, RLock) else self._lock.release()
        try:
            woken = World.current.park(None if timeout is None else max(0.0, timeout))
        finally:
            if task in self._waiting:
                self._waiting.remove(task)
            if isinstance(self._lock, RLock):
                self._lock.take_back(count or 0)
            else:
                self._lock.acquire()
        return woken

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        world = World.current
        end = None if timeout is None else world.now + timeout
        while not (found := predicate()):
            left = None if end is None else end - world.now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return found

    def notify(self, n: int = 1) -> None:
        for _ in range(min(n, len(self._waiting))):
            World.current.wake(self._waiting.pop(0))

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Event:
    """`threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[Task] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            World.current.wake(task)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        if self._set:
            return True
        task = _me()
        self._waiting.append(task)
        World.current.park(None if timeout is None else max(0.0, timeout))
        if task in self._waiting:
            self._waiting.remove(task)
        return self._set
