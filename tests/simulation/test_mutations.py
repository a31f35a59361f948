"""A planted mistake of each kind is found, by the rule that it breaks."""

from __future__ import annotations

import pytest

from tests.simulation.mutations import PLANTS
from tests.simulation.seeds import plan, run
from tests.simulation.villages import ground as prepared


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_mistake_is_found(name: str) -> None:
    rule, planted, seeds = PLANTS[name]
    with prepared() as ground, planted():
        for seed in seeds:
            if rule in ("stuck", "named") and not plan(seed).lost:
                continue  # only who never comes back keeps a job waiting to its end
            found = {violation.rule for violation in run(seed, ground).violations}
            if rule in found:
                break
    assert rule in found
