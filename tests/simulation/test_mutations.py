"""A planted mistake of each kind is found, by the rule that it breaks."""

from __future__ import annotations

import pytest

from tests.simulation.mutations import PLANTS
from tests.simulation.seeds import run
from tests.simulation.villages import ground as prepared


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_mistake_is_found(name: str) -> None:
    planted = PLANTS[name]
    with prepared() as ground:
        for seed in planted.seeds:
            what = planted.plan(seed)
            if planted.rule in ("stuck", "named") and not what.lost:
                continue  # only who never comes back keeps a job waiting to its end
            with planted.how():
                found = {v.rule for v in run(seed, ground, chosen=what).violations}
            if planted.rule in found:
                break
        assert planted.rule in found
        assert not run(seed, ground, chosen=what).violations, "it is the mistake that is found"
