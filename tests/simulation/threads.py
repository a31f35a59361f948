"""What services take for `threading`, `queue`, `time` and `concurrent.futures`, on a `World`."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self

from greenlet import getcurrent

from tests.simulation.locks import Condition, Event, Lock
from tests.simulation.worlds import EPOCH, Task, World

_MAIN = object()


class Thread:
    """`threading.Thread`."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._target, self._args, self._kwargs = target, tuple(args), kwargs or {}
        self.name: str = name or str(getattr(target, "__name__", "thread"))
        self.daemon = daemon
        self._over = Event()
        self._task: Task | None = None

    def start(self) -> None:
        world = World.current
        assert self._task is None, "threads can only be started once"
        self._task = world.spawn(world.here, self.name, self._work)
        self._task.thread = self

    def run(self) -> None:
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def _work(self) -> None:
        try:
            self.run()
        finally:
            self._over.set()

    def join(self, timeout: float | None = None) -> None:
        assert self._task is not None, "started before"
        self._over.wait(timeout)

    def is_alive(self) -> bool:
        return self._task is not None and not self._over.is_set()


class Timer(Thread):
    """`threading.Timer`."""

    def __init__(
        self,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(target=function, name="timer", args=args or (), kwargs=kwargs)
        self._interval, self._cancelled = interval, False

    def start(self) -> None:
        world = World.current
        host = world.here

        def due() -> None:
            if not self._cancelled and not host.dead:
                world.spawn(host, self.name, self._work)

        world.at(self._interval, due)

    def cancel(self) -> None:
        self._cancelled = True


def current_thread() -> object:
    """The thread object of this task, if it was started as one; never the main thread."""
    task = getcurrent()
    return task.thread if isinstance(task, Task) else _MAIN


def main_thread() -> object:
    return _MAIN


class Future:
    """`concurrent.futures.Future`."""

    def __init__(self) -> None:
        self._done = Event()
        self._running = self._cancelled = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future], object]] = []

    def __class_getitem__(cls, item: object) -> type[Future]:
        return cls

    def cancel(self) -> bool:
        if self._running or (self._done.is_set() and not self._cancelled):
            return False
        self._cancelled = True
        self._finish()
        return True

    def cancelled(self) -> bool:
        return self._cancelled

    def running(self) -> bool:
        return self._running and not self._done.is_set()

    def done(self) -> bool:
        return self._done.is_set()

    def result(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self._done.wait(timeout):
            raise TimeoutError
        if self._cancelled:
            raise CancelledError
        return self._error

    def add_done_callback(self, callback: Callable[[Future], object]) -> None:
        if self._done.is_set():
            callback(self)
        else:
            self._callbacks.append(callback)

    def run(self, work: Callable[[], Any]) -> None:
        """What a worker does with it."""
        if self._cancelled:
            return
        self._running = True
        try:
            self._result = work()
        except Exception as error:
            self._error = error
        self._finish()

    def _finish(self) -> None:
        if not self._done.is_set():
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback(self)


class ThreadPoolExecutor:
    """`concurrent.futures.ThreadPoolExecutor`; idle workers vanish, which nobody sees."""

    def __init__(self, max_workers: int = 8, thread_name_prefix: str = "pool") -> None:
        self._most, self._name = max_workers, thread_name_prefix
        self._waiting: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._busy = 0
        self._over = False
        self._idle = Event()

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        if self._over:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = Future()
        self._waiting.append((future, lambda: work(*args, **kwargs)))
        if self._busy < self._most:
            self._busy += 1
            self._idle.clear()
            world = World.current
            world.spawn(world.here, self._name, self._work)
        return future

    def map(self, work: Callable[..., Any], *arguments: Iterable[Any]) -> Iterator[Any]:
        futures = [self.submit(work, *each) for each in zip(*arguments, strict=False)]
        return (future.result() for future in futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._over = True
        if cancel_futures:
            while self._waiting:
                self._waiting.popleft()[0].cancel()
        if wait and self._busy:
            self._idle.wait()

    def _work(self) -> None:
        while self._waiting:
            future, work = self._waiting.popleft()
            future.run(work)
        self._busy -= 1
        if not self._busy:
            self._idle.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()


def wait(futures: Iterable[Future], timeout: float | None = None) -> None:
    """`concurrent.futures.wait`, whose answer nobody uses."""
    world = World.current
    end = None if timeout is None else world.now + timeout
    for future in list(futures):
        left = None if end is None else max(0.0, end - world.now)
        future._done.wait(left)


class Queue:
    """`queue.Queue` and `queue.SimpleQueue`."""

    def __init__(self, maxsize: int = 0) -> None:
        self._most = maxsize
        self._items: deque[Any] = deque()
        self._changed = Condition(Lock())

    def __class_getitem__(cls, item: object) -> type[Queue]:
        return cls

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        with self._changed:
            limit = timeout if block else 0.0
            if self._most and not self._changed.wait_for(
                lambda: len(self._items) < self._most, limit
            ):
                raise queue.Full
            self._items.append(item)
            self._changed.notify_all()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        with self._changed:
            if not self._changed.wait_for(lambda: self._items, timeout if block else 0.0):
                raise queue.Empty
            found = self._items.popleft()
            self._changed.notify_all()
        return found

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def empty(self) -> bool:
        World.current.pause()
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


def monotonic() -> float:
    """`time.monotonic` and its like."""
    return 1000.0 + World.current.now


def wall() -> float:
    """`time.time`."""
    return EPOCH + World.current.now


def wall_ns() -> int:
    """`time.time_ns`."""
    return int(wall() * 1e9)


def sleep(seconds: float) -> None:
    """`time.sleep`."""
    World.current.sleep(seconds)
