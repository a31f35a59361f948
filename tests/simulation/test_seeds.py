"""Thousands of schedules: every rule holds in each. In classes, which workers share."""

from __future__ import annotations

from collections import Counter

from tests.simulation.faults import KINDS, fired
from tests.simulation.seeds import plan, run
from tests.simulation.villages import ground as prepared

CHUNKS, EACH = 20, 100

RARE = 2
"""Kinds of faults that may happen to be missing in a chunk."""


def _hold(first: int) -> None:
    happened = Counter[str]()
    with prepared() as ground:
        for seed in range(first, first + EACH):
            report = run(seed, ground)
            assert not report.violations, f"make simulate SEED={seed}\n{report}"
            happened += fired(report.trace)
            happened["twice"] += any(text.startswith("twice ") for _, text in report.trace)
    assert len(set(KINDS) - set(happened)) <= RARE, happened
    assert happened["twice"] > EACH / 5


def _chunk(first: int) -> type:
    def test_every_rule_holds(self: object) -> None:
        _hold(first)

    return type("Seeds", (), {"test_every_rule_holds": test_every_rule_holds})


def test_what_is_planned_has_everything_often_enough() -> None:
    plans = [plan(seed) for seed in range(1, CHUNKS * EACH + 1)]
    kinds = Counter(fault.kind for what in plans for fault in what.faults)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 100, kinds
    hit = Counter(fault.who for what in plans for fault in what.faults)
    assert min(hit[name] for name in ("dealer", "party-a", "party-b", "coordinator")) >= 200, hit
    on_disks = {f.who for p in plans for f in p.faults if "disk" in f.kind or "write" in f.kind}
    assert on_disks == {"party-a", "party-b", "party-c", "coordinator"}, "who writes anything"
    orders = [order for what in plans for order in what.orders]
    rare = {
        "three parties": sum(len(what.parties) == 3 for what in plans),
        "nothing goes wrong": sum(not what.faults for what in plans),
        "requests twice": sum(what.weather.twice > 0 for what in plans),
        "long after others": sum(what.weather.twice * what.weather.behind > 0 for what in plans),
        "slow messages": sum(what.weather.slow > 0 for what in plans),
        "two jobs": sum(len(what.orders) == 2 for what in plans),
        "more jobs than may run": sum(len(p.orders) > p.at_once for p in plans),
        "early stopping": sum(order.stop for order in orders),
        "cancelled": sum(order.cancelled for order in orders),
        "deleted": sum(what.deletes for what in plans),
        **Counter(order.output for order in orders),
    }
    assert min(rare.values()) >= 150, rare
    assert sum(order.real for order in orders) >= 40
    lost = Counter(what.lost for what in plans)
    assert min(lost[name] for name in ("dealer", "party-a", "party-b")) >= 10, lost


globals().update({f"TestSeeds{k * EACH + 1}": _chunk(k * EACH + 1) for k in range(CHUNKS)})
