"""What a party does now and then: one thing that fails hinders no other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.party import approvals as module
from services.party.approvals import Approvals
from services.party.settings import PartyLimits
from services.party.tending import Tending
from tests.jobs.examples import bound
from tests.jobs.test_ledger import opened


def failing(*_: object) -> None:
    raise OSError("the disk")


@pytest.mark.parametrize("broken", ["jobs", "approvals", "checkpoints"])
def test_a_step_that_fails_hinders_no_other(broken: str) -> None:
    done: list[str] = []

    def does(what: str) -> Callable[..., Any]:
        def does_it(*_: object) -> list[str]:
            done.append(what)
            return []

        return failing if what == broken else does_it

    jobs: Any = SimpleNamespace(all=does("jobs"))
    approvals: Any = SimpleNamespace(sweep=does("approvals"))
    checkpoints: Any = SimpleNamespace(sweep=does("checkpoints"))
    store: Any = SimpleNamespace(list=list)
    with capture_logs() as logs:
        Tending(jobs, checkpoints, approvals, store, PartyLimits()).look()
    assert {broken, *done} == {"jobs", "approvals", "checkpoints"} and len(done) == 2
    assert [line["event"] for line in logs] == ["incident"]


def test_what_is_forgotten_just_then_is_no_accident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    approvals, job = Approvals(tmp_path / "cases", opened(tmp_path), "party-a"), bound()
    assert approvals.missing(job, [["officer"]]) == ["officer"]
    threads = []

    def now() -> float:
        thread = threading.Thread(target=approvals.forget, args=("job-1", job.coordinator))
        thread.start()
        thread.join(0.3)
        threads.append(thread)
        return time.time()

    monkeypatch.setattr(module, "time", SimpleNamespace(time=now))
    approvals.sweep(3600.0)
    for thread in threads:
        thread.join(20)
    assert os.listdir(tmp_path / "cases") == []
