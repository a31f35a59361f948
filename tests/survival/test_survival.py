"""Some kills and some jobs of `make kills` and `make soak`, with real processes."""

from __future__ import annotations

from pathlib import Path

from tests.survival import kills, soak


def test_jobs_outlive_kills_of_two_parties_and_their_helpers(tmp_path: Path) -> None:
    report = kills.run(tmp_path, 8, seed=11, kinds=("stopping", "kept"), at_once=2, scale=0.5)
    assert report.kills >= 8
    assert sum(report.attempts) > len(report.attempts) >= 2, "some were broken off"


def test_jobs_that_run_at_once_leave_nothing_behind(tmp_path: Path) -> None:
    lines = soak.run(tmp_path, 12, 4)
    assert len(lines) == 5, "dealer, three parties, coordinator"
