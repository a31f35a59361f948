"""One seed: a village, a story, its faults, and what is asked of the end."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from numpy.typing import NDArray

from masque.errors import MasqueError
from tests.simulation import patches
from tests.simulation.faults import Fault, Misfortune, draw
from tests.simulation.invariants import Monitors, monitoring
from tests.simulation.leftovers import Leftovers
from tests.simulation.network import Weather
from tests.simulation.remains import Remains
from tests.simulation.stories import Order, Story
from tests.simulation.villages import JOB, Ground, Village
from tests.simulation.worlds import Host, Violation, World

SETTLED = 90.0
"""Seconds after the last fault within which everything must have come right: twice the longest."""

MARGIN = 5.0
"""Seconds after a job's time is used up within which its end must be stored."""

AGAIN = 0.05
"""Seconds between two looks at what has come so far."""

REAL = 40
"""One seed of so many trains a compiled model."""


@dataclass(frozen=True)
class Plan:
    """What a seed is about."""

    parties: tuple[str, ...]
    orders: tuple[Order, ...]
    rows: int
    weather: Weather
    faults: tuple[Fault, ...]
    lost: str = ""
    deletes: bool = False
    at_once: int = 8

    def __str__(self) -> str:
        jobs = ", ".join(str(order) for order in self.orders)
        return "\n".join([f"{len(self.parties)} parties, {jobs}", *map(str, self.faults)])


@dataclass(frozen=True)
class Report:
    """What came of a seed."""

    seed: int
    plan: Plan
    violations: tuple[Violation, ...]
    trace: tuple[tuple[float, str], ...]
    seconds: float
    steps: int
    lasted: float
    attempts: int
    errors: tuple[str, ...] = field(default=(), repr=False)
    outcomes: Mapping[str, dict[str, NDArray[Any]]] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {'; '.join(map(str, self.violations)) or 'holds'}"]
        lines += [f"    {line}" for line in str(self.plan).splitlines()]
        return "\n".join(lines)


def plan(seed: int) -> Plan:
    """What a seed is about, all of it drawn from the seed."""
    random = Random(f"{seed}/plan")
    parties = ("party-a", "party-b", "party-c")[: random.choice((2, 2, 2, 3))]
    weather = Weather(
        slow=random.choice((0.0, 0.0, 0.02, 0.1)),
        slowest=random.choice((0.05, 0.5, 2.0)),
        twice=random.choice((0.0, 0.1)),
        behind=Random(f"{seed}/behind").choice((0.0, 0.0, 6.0)),
    )
    if seed % REAL == REAL - 1:
        orders = [Order("real-1", 2)]
    else:
        orders = [
            Order(
                f"job-{number}",
                random.choice((1, 1, 2)),
                stop=random.random() < 0.3,
                output=random.choice(("sealed", "sealed", "sealed", "kept", "public")),
                cancelled=random.random() < 0.1,
                after=random.random() * 0.2,
            )
            for number in range(1, random.choice((1, 1, 1, 2)) + 1)
        ]
    crowd = Random(f"{seed}/crowd")
    if crowd.random() < 0.06 and not orders[0].real:
        orders = [replace(o, cancelled=crowd.random() < 0.5) for o in orders]
        for number in range(len(orders) + 1, 5):
            cancelled = crowd.random() < 0.5
            after = crowd.random() * 0.2
            orders.append(Order(f"job-{number}", cancelled=cancelled, after=after))
    names = ["dealer", *parties, "coordinator"]
    faults = draw(random, names, 5)
    lost = random.choice(names[:-1]) if random.random() < 0.04 else ""
    deletes = not lost and random.random() < 0.15
    rows = random.choice((10, 14)) if seed % REAL != REAL - 1 else 10
    at_once = crowd.choice((1, 2, 8))
    return Plan(parties, tuple(orders), rows, weather, tuple(faults), lost, deletes, at_once)


_due: dict[tuple[int, int], dict[str, NDArray[Any]]] = {}


def _due_of(what: Plan, ground: Ground) -> dict[str, NDArray[Any]]:
    """What the compiled job of a plan gives where nothing goes wrong."""
    (order,) = what.orders
    key = len(what.parties), order.epochs
    if key not in _due:
        calm = replace(what, weather=Weather(), faults=(), lost="", deletes=False)
        _due[key] = {}
        report = run(0, ground, chosen=calm)
        assert not report.violations, report
        _due[key] = report.outcomes[order.job_id]
    return _due[key]


def run(seed: int, ground: Ground, *, chosen: Plan | None = None, tracing: bool = False) -> Report:
    """Run a seed to its end, or to the first rule that is broken."""
    began = time.process_time()
    what = chosen or plan(seed)
    real = any(order.real for order in what.orders)
    due = _due_of(what, ground) if real and chosen is None else {}
    world = World(seed, tracing=tracing)
    village = Village(world, ground, what.parties, what.weather, what.at_once)
    monitors = Monitors(village)
    story = Story(village, monitors, list(what.orders), what.rows, Random(f"{seed}/story"))
    story.deletes, story.lost = what.deletes, what.lost
    misfortune = Misfortune(village, list(what.faults))
    leftovers = Leftovers(village)
    with patches.logging_to(monitors.heard), monitoring(monitors), leftovers.watching():
        try:
            village.boot()
            world.run(lambda: village.up, 30.0)
            misfortune.begin()
            story.begin()
            if what.lost:
                _lose(story, what.lost, Random(f"{seed}/lost"))
            _follow(world, story, misfortune, lost=what.lost)
            if not world.violations:
                _check_times(world, story, what, misfortune.last)
                if not what.lost:
                    leftovers.check(world)
                _check(world, story, what, due)
        finally:
            village.close()
    return Report(
        seed,
        what,
        tuple(world.violations),
        tuple(world.trace),
        time.process_time() - began,
        world.steps,
        world.now,
        monitors.attempts,
        tuple("".join(traceback.format_exception(error)) for error in world.errors),
        story.outcomes,
    )


def _lose(story: Story, name: str, random: Random) -> None:
    """A host that hangs once all jobs are accepted, and is never heard of again."""
    village = story.village

    def lose() -> None:
        service = village.services[name]
        if service.host.dead or len(story.accepted) < len(story.orders):
            village.world.at(AGAIN, lose)
            return
        village.world.note(f"fault: {name} hangs for good")
        village.network.hang(service.host)

    village.world.at(random.random() * 0.5, lose)


def _follow(world: World, story: Story, misfortune: Misfortune, *, lost: str) -> None:
    """Let it happen; everything must have come to its end a while after the last fault."""
    patience = SETTLED + (JOB if lost else 0.0)
    while True:
        end = misfortune.last + patience
        if world.run(lambda: story.told, end) or world.violations:
            return
        if misfortune.last + patience <= end:
            break
    left = [o.job_id for o in story.orders if o.job_id not in story.outcomes]
    states = ", ".join(f"{job}: {story.ended.get(job)}" for job in left)
    world.break_rule("stuck", f"{world.now:.0f} s, and no end of {states}")


def _check_times(world: World, story: Story, what: Plan, last: float) -> None:
    """Every job has ended in its time: where a host is lost, that is what `job_seconds` says."""
    for job_id, ended in story.monitors.over_at.items():
        begun = story.monitors.begun_at[job_id]
        due = max(begun + JOB, last) if what.lost else max(begun, last) + SETTLED
        if ended > due + MARGIN:
            text = f"{job_id} ended at {ended:.1f} s, and its time was up at {due:.1f} s"
            world.break_rule("stuck", text)


def _check(world: World, story: Story, what: Plan, due: dict[str, NDArray[Any]]) -> None:
    for order in story.orders:
        last, found = story.ended[order.job_id], story.outcomes[order.job_id]
        if last.state == "failed" and what.lost:
            if what.lost not in last.progress.culprit:
                named = f"{last.progress.culprit!r}: {last.progress.reason}"
                world.break_rule("named", f"{what.lost} is lost, and {order.job_id} names {named}")
        elif last.state == "failed" or (last.state == "cancelled" and not order.cancelled):
            reason = f"{last.progress.reason} ({last.progress.culprit})"
            world.break_rule("recovers", f"{order.job_id} is {last.state}: {reason}")
        elif last.state == "succeeded" and not story.right(order, found, due):
            world.break_rule("exact", f"{order.job_id} has another result than it should")
    _check_disks(world, story)


def _check_disks(world: World, story: Story) -> None:
    """Cut the power everywhere: what was acknowledged must be there."""
    village = story.village
    for service in village.services.values():
        if not service.host.dead:
            service.die(power=True)
    while world.urgent:
        world.urgent.popleft()()
    host = Host("checker", world)

    def check() -> None:
        try:
            Remains(village, story).check()
        except MasqueError as error:
            world.break_rule("acknowledged", f"after a power cut: {error}")

    world.spawn(host, "check", check)
    world.run(lambda: not host.tasks, world.now + 60.0, regardless=True)
