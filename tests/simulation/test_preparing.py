"""Who prepares may take his time for as long as he comes further; one who hangs may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from masque.wire import heartbeat
from services.coordinator.leases import MARGIN
from services.dealer.service import DealerService
from services.party.workshop import PartyWorkshop
from tests.simulation import seeds
from tests.simulation.network import Weather
from tests.simulation.seeds import Plan, Report, run
from tests.simulation.stories import Order
from tests.simulation.villages import LEASE, ground
from tests.simulation.worlds import World

CALM = Plan(("party-a", "party-b"), (Order("job-1", 1),), 10, Weather(), ())
HOW = {"party-b": (PartyWorkshop, "compile"), "dealer": (DealerService, "_prepare")}


def once(who: str, seconds: float) -> Any:
    """The first time that `who` prepares, compiling takes so long."""
    place, method = HOW[who]
    real: Callable[..., Any] = getattr(place, method)
    slow = [who]

    def late(self: Any, *arguments: Any) -> Any:
        if World.current.here.name in slow:
            slow.clear()
            heartbeat.begin("compiles the job")
            World.current.sleep(seconds)
        return real(self, *arguments)

    return mock.patch.object(place, method, late)


def computing() -> Callable[[], float]:
    """The clock of a thread that computes all the time."""
    return lambda: World.current.now


def told(report: Report) -> str:
    return "\n".join(text for _, text in report.trace)


@pytest.mark.parametrize("who", HOW)
def test_one_who_hangs_is_named_within_a_lease_and_the_job_goes_on(who: str) -> None:
    with ground() as made, once(who, 300.0):
        report = run(1, made, chosen=CALM, tracing=True)
    assert not report.violations, report
    assert "succeeded attempt=2" in told(report)
    assert f"no progress for {LEASE + MARGIN:g} s: compiles the job" in told(report)


@pytest.mark.parametrize("who", HOW)
def test_one_who_computes_may_take_much_longer_than_a_lease(who: str) -> None:
    busy = mock.patch.object(heartbeat, "thread_clock", computing)
    time = mock.patch.object(seeds, "SETTLED", 20 * (LEASE + MARGIN))
    with ground() as made, busy, time, once(who, 10 * (LEASE + MARGIN)):
        report = run(1, made, chosen=CALM, tracing=True)
    assert not report.violations, report
    assert "succeeded attempt=1" in told(report)
