"""How long a job waits until it is looked at again."""

from __future__ import annotations

import pytest

from masque.jobs.conducting import MOST_FRUITLESS
from services.coordinator.pauses import LONGEST_LOOK, LONGEST_PAUSE, LONGEST_YES, Pauses


def test_attempts_that_lead_nowhere_come_ever_more_rarely() -> None:
    """So that what lasts for some minutes ends no job."""
    pauses = [Pauses().after(count) for count in range(1, MOST_FRUITLESS)]
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0] and pauses[-1] == LONGEST_PAUSE
    assert pauses == sorted(pauses) and sum(pauses) > 15 * 60


@pytest.mark.parametrize(("asks", "longest"), [(False, LONGEST_LOOK), (True, LONGEST_YES)])
def test_who_is_absent_is_looked_for_again_soon(asks: bool, longest: float) -> None:
    found = [Pauses(looks, asks).after(0) for looks in range(40)]
    assert found[:3] == [0.25, 0.25, 0.5] and found[-1] == longest
    assert Pauses(3, asks).after(10) > longest, "an attempt was broken off"
