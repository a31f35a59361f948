"""Seeds in a process of their own: what `make simulate` shares out."""

from __future__ import annotations

from collections.abc import Sequence

from tests.simulation.seeds import Report, run
from tests.simulation.villages import ground as prepared


def portion_of(seeds: Sequence[int]) -> list[Report]:
    """Reports of seeds; of those that went well without their traces."""
    with prepared() as ground:
        found = []
        for seed in seeds:
            report = run(seed, ground)
            if not report.violations:
                report = _brief(report)
            found.append(report)
    return found


def _brief(report: Report) -> Report:
    return Report(**{**vars(report), "trace": (), "errors": ()})
