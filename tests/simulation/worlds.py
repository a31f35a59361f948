"""Machines, their threads and their clock, in one thread of this process: a seed decides all.

A `Task` is what a service takes for a thread. It runs until it waits for something; then one of
those that can go on is drawn. Time passes only when none can.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from greenlet import getcurrent, greenlet

EPOCH = 4_000_000_000.0
"""What clocks on walls show at the beginning, in seconds since 1970."""

MOST_STEPS = 400_000
"""Turns of tasks in one world; one that takes more runs in circles."""

PREEMPTED = 0.04
"""How often a task is interrupted where another could come between."""


class Killed(BaseException):
    """The machine of this task is gone: nothing that it still does is seen by anybody."""


@dataclass(frozen=True)
class Violation:
    """What must not happen, and did: which rule, and how."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(eq=False)
class Host:
    """A machine from one start to its end; `hung`: nothing on it goes on for now."""

    name: str
    world: World = field(repr=False)
    dead: bool = False
    hung: bool = False
    tasks: dict[int, Task] = field(default_factory=dict, repr=False)
    stalled: list[Task] = field(default_factory=list, repr=False)

    def hang(self) -> None:
        """Like a process that was sent SIGSTOP."""
        self.hung = True

    def resume(self) -> None:
        """Go on."""
        self.hung = False
        self.world.ready += self.stalled
        self.stalled.clear()


class Task(greenlet):  # type: ignore[misc]
    """A thread of a host."""

    def __init__(self, world: World, host: Host, name: str, work: Callable[[], object]) -> None:
        super().__init__(parent=world.hub)
        self.world, self.host, self.name, self.work = world, host, name, work
        self.number = world.numbered()
        self.ticket = 0
        self.parked = False
        self.thread: object = None

    def run(self) -> None:
        """What happens in the greenlet."""
        try:
            self.work()
        except Killed:
            pass
        except BaseException as error:
            self.world.break_rule("accident", f"{self}: {type(error).__name__}: {error}", error)
        finally:
            self.host.tasks.pop(self.number, None)

    def __str__(self) -> str:
        return f"{self.host.name}/{self.name}#{self.number}"


class Alarm:
    """Something that is to happen at a time; `act` None: not any more."""

    __slots__ = ("act", "at", "number")

    def __init__(self, at: float, number: int, act: Callable[[], object]) -> None:
        self.at, self.number = at, number
        self.act: Callable[[], object] | None = act

    def __lt__(self, other: Alarm) -> bool:
        return (self.at, self.number) < (other.at, other.number)

    def cancel(self) -> None:
        """It will not happen."""
        self.act = None


class World:
    """All machines of one seed. One world runs at a time: `World.current`."""

    current: ClassVar[World]

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.seed = seed
        self.now = 0.0
        self.random = Random(f"{seed}/schedule")
        self.entropy = Random(f"{seed}/entropy")
        self.hub = getcurrent()
        self.ready: list[Task] = []
        self.urgent: deque[Callable[[], object]] = deque()
        self.violations: list[Violation] = []
        self.errors: list[BaseException] = []
        self.trace: list[tuple[float, str]] = []
        self.tracing = tracing
        self.folder = ""  # of all disks: it has another name in every run, and none in traces
        self.steps = 0
        self._numbers = 0
        self._alarms: list[Alarm] = []
        self._outside = Host("outside", self)
        World.current = self

    def numbered(self) -> int:
        """A number that nobody else has."""
        self._numbers += 1
        return self._numbers

    def note(self, text: str) -> None:
        """An event worth seeing in a trace."""
        self.trace.append((self.now, text.replace(self.folder, "")))

    def break_rule(self, rule: str, text: str, error: BaseException | None = None) -> None:
        """A rule was broken: the seed has found something."""
        self.violations.append(Violation(rule, text.replace(self.folder, "")))
        self.note(f"VIOLATION {rule}: {text}")
        if error is not None:
            self.errors.append(error)

    # -- tasks -----------------------------------------------------------------------------------

    def spawn(self, host: Host, name: str, work: Callable[[], object]) -> Task:
        """A new thread of `host`."""
        task = Task(self, host, name, work)
        if not host.dead:
            host.tasks[task.number] = task
            self.ready.append(task)
        return task

    @property
    def here(self) -> Host:
        """The machine whose task runs now; without one, a machine outside."""
        task = getcurrent()
        return task.host if isinstance(task, Task) else self._outside

    def park(self, seconds: float | None = None) -> bool:
        """Let others run until `wake`; False if `seconds` passed before."""
        task = getcurrent()
        assert isinstance(task, Task), "the scheduler itself must not wait"
        if task.host.dead:
            raise Killed
        task.parked = True
        alarm = None
        if seconds is not None:
            alarm = self.at(seconds, lambda: self._late(task))
        woken = bool(self.hub.switch())
        if alarm is not None and woken:
            alarm.cancel()
        return woken

    def wake(self, task: Task) -> None:
        """Let a task go on that waits in `park`; nothing happens if it does not."""
        if task.parked:
            task.parked = False
            task.ticket = 1
            self.ready.append(task)

    def _late(self, task: Task) -> None:
        if task.parked:
            task.parked = False
            task.ticket = 0
            self.ready.append(task)

    def pause(self) -> None:
        """Perhaps let somebody else go first, where a thread may be interrupted."""
        if self.random.random() < PREEMPTED:
            task = getcurrent()
            if isinstance(task, Task):
                if task.host.dead:
                    raise Killed
                self.ready.append(task)
                self.hub.switch()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self.park(max(0.0, seconds))

    def at(self, seconds: float, act: Callable[[], object]) -> Alarm:
        """Have `act` called so many seconds from now, outside of all tasks."""
        return self.upon(self.now + seconds, act)

    def upon(self, moment: float, act: Callable[[], object]) -> Alarm:
        """Have `act` called at a moment; of several at the same, in the order of these calls."""
        alarm = Alarm(moment, self.numbered(), act)
        heapq.heappush(self._alarms, alarm)
        return alarm

    def kill(self, host: Host) -> None:
        """End everything on a machine; `host.dead` has been set before."""
        while host.tasks:
            number = next(iter(host.tasks))
            task = host.tasks.pop(number)
            if bool(task):  # it has begun, and not ended
                task.throw(Killed)
        self.ready = [task for task in self.ready if not task.host.dead]
        host.stalled.clear()

    # -- the loop --------------------------------------------------------------------------------

    def run(self, done: Callable[[], bool], until: float, *, regardless: bool = False) -> bool:
        """Run until `done`, a violation, or the time `until`; whether it was `done`.

        `regardless`: also after a violation, and through further ones.
        """
        while (regardless or not self.violations) and not done():
            if self.urgent:
                self.urgent.popleft()()
            elif self.ready:
                self._turn()
            elif not self._tick(until):
                return False
        return not self.violations

    def _turn(self) -> None:
        ready = self.ready
        index = int(self.random.random() * len(ready))
        task = ready[index]
        ready[index] = ready[-1]
        ready.pop()
        if task.host.hung:
            task.host.stalled.append(task)
            return
        if task.dead:
            return
        self.steps += 1
        if self.tracing:
            self.trace.append((self.now, str(task)))
        if self.steps > MOST_STEPS:
            self.break_rule("stuck", f"{MOST_STEPS} turns were not enough: it runs in circles")
            return
        task.switch(task.ticket) if bool(task) else task.switch()

    def _tick(self, until: float) -> bool:
        alarms = self._alarms
        while alarms:
            alarm = heapq.heappop(alarms)
            act = alarm.act
            if act is None:
                continue
            if alarm.at > until:
                heapq.heappush(alarms, alarm)
                break
            self.now = alarm.at
            act()
            return True
        self.now = max(self.now, until)
        return False
