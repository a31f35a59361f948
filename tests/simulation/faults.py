"""What goes wrong in a world, and when: drawn from the seed before it begins.

Every fault ends: hosts come back, links heal, disks get room. `lasting` is when the last has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random

from tests.simulation import watching
from tests.simulation.villages import Service, Trouble, Village

KINDS = (
    "power cut",
    "kill",
    "stop",
    "all off",
    "partition",
    "cut",
    "hang",
    "full disk",
    "bad disk",
    "crash in a write",
)
WEIGHTS = (4, 3, 2, 1, 3, 3, 2, 2, 1, 5)

FAILS = "a disk says:"
"""What the note of a change begins with that a full or a bad disk has refused."""


@dataclass(frozen=True)
class Fault:
    """`kind` at `at` seconds, or, on a disk, when that has been changed `change` times."""

    kind: str
    at: float
    who: str
    whom: str
    lasts: float
    change: int

    def __str__(self) -> str:
        when = f"at change {self.change}" if "write" in self.kind else f"at {self.at:.3f} s"
        return f"{self.kind} {when}, {self.who} ({self.whom}), for {self.lasts:.1f} s"


def draw(random: Random, names: list[str], most: int) -> list[Fault]:
    """Some faults, early ones more likely than late ones."""
    count = random.choice((0, 1, 1, 2, 2, 3, most))
    return [one(random, names, random.choices(KINDS, WEIGHTS)[0]) for _ in range(count)]


def one(random: Random, names: list[str], kind: str) -> Fault:
    """A fault of a kind. The dealer has no disk that could fail: it writes nothing."""
    who, whom = random.sample(names, 2)
    if "disk" in kind or "write" in kind:
        who = random.choice([name for name in names if name != "dealer"])
    at = random.choice((0.3, 0.3, 2.0, 20.0)) * random.random()
    lasts = random.choice((0.1, 2.0, 15.0)) * random.random()
    return Fault(kind, at, who, whom, lasts, random.randint(1, 90))


def fired(trace: Iterable[tuple[float, str]]) -> Counter[str]:
    """How often each kind has happened in a world; of full and bad disks, what they refused."""
    found = Counter[str]()
    says = {
        f"{FAILS} {watching.no_space().strerror}": "full disk",
        f"{FAILS} {watching.bad_disk().strerror}": "bad disk",
    }
    for _, text in trace:
        if text in says:
            found[says[text]] += 1
        elif text.startswith("fault: "):
            kind = text.removeprefix("fault: ").partition(" at ")[0]
            if kind in KINDS and kind not in says.values():
                found[kind] += 1
    return found


@dataclass(eq=False)
class Misfortune:
    """The faults of a village, as they happen."""

    village: Village
    faults: list[Fault]
    over: float = 0.0

    @property
    def last(self) -> float:
        """When the last fault has ended, as far as is known."""
        return max(self.over, *(fault.at + fault.lasts for fault in self.faults), 0.0)

    def begin(self) -> None:
        """Have them happen."""
        for fault in self.faults:
            if fault.kind == "crash in a write":
                self._on_disk(fault)
            else:
                self.village.world.at(fault.at, partial(self._happen, fault))

    def _ends(self, after: float) -> None:
        self.over = max(self.over, self.village.world.now + after)

    def _happen(self, fault: Fault) -> None:
        village, world = self.village, self.village.world
        service = village.services.get(fault.who)
        world.note(f"fault: {fault}")
        self._ends(fault.lasts)
        match fault.kind:
            case "power cut" | "kill" if service:
                service.crash(power=fault.kind == "power cut", after=fault.lasts)
            case "all off":
                for each in village.services.values():
                    each.crash(power=True, after=fault.lasts * village.random.random())
            case "stop" if service and service.up:
                service.stop()
            case "partition":
                number = village.network.part([(fault.who, fault.whom)])
                world.at(fault.lasts, lambda: village.network.heal(number))
            case "cut":
                village.network.cut(fault.who, fault.whom)
            case "hang" if service:
                host = service.host
                village.network.hang(host)
                world.at(fault.lasts, lambda: village.network.resume(host))
            case "full disk" if service:
                service.faults.append(self._full)
                world.at(fault.lasts, lambda: _mend(service, self._full))
            case "bad disk" if service:
                self._once(service)

    def _full(self, kind: str) -> Callable[[], None] | None:
        return self._fails(watching.no_space()) if kind in ("create", "write") else None

    def _once(self, service: Service) -> None:
        def trouble(kind: str) -> Callable[[], None]:
            _mend(service, trouble)
            return self._fails(watching.bad_disk())

        service.faults.append(trouble)

    def _fails(self, error: OSError) -> Callable[[], None]:
        def fail() -> None:
            self.village.world.note(f"{FAILS} {error.strerror}")
            raise error

        return fail

    def _on_disk(self, fault: Fault) -> None:
        """The power goes in the middle of a change, of which a part may be done."""
        service, left = self.village.services[fault.who], [fault.change]
        world, after = self.village.world, fault.lasts

        def count(kind: str) -> Callable[[], None] | None:
            left[0] -= 1
            if left[0] > 0 or not service.up:
                return None
            _mend(service, count)
            world.note(f"fault: {fault}")
            self._ends(after)
            return lambda: service.crash_within(power=True, after=after)

        service.faults.append(count)


def _mend(service: Service, trouble: Trouble) -> None:
    with suppress(ValueError):
        service.faults.remove(trouble)
