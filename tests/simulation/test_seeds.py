"""Thousands of schedules: every rule holds in each. In classes, which workers share."""

from __future__ import annotations

from tests.simulation.seeds import run
from tests.simulation.villages import ground as prepared

CHUNKS, EACH = 20, 100


def _hold(first: int) -> None:
    with prepared() as ground:
        for seed in range(first, first + EACH):
            report = run(seed, ground)
            assert not report.violations, f"make simulate SEED={seed}\n{report}"


def _chunk(first: int) -> type:
    def test_every_rule_holds(self: object) -> None:
        _hold(first)

    return type("Seeds", (), {"test_every_rule_holds": test_every_rule_holds})


globals().update({f"TestSeeds{k * EACH + 1}": _chunk(k * EACH + 1) for k in range(CHUNKS)})
