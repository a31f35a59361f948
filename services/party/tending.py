"""What a party does now and then: give up jobs that nobody asks for, destroy what is too old."""

from __future__ import annotations

import time
from typing import Any, NoReturn

import structlog

from masque.data.checkpoints import Checkpoints
from masque.data.store import Store
from masque.jobs.bound import BoundJob
from services.party.approvals import Approvals
from services.party.jobs import Jobs
from services.party.settings import PartyLimits

LOOK = 5.0
"""Seconds between two looks."""

_log: Any = structlog.get_logger("masque.party")


class Tending:
    """Run it in a thread of its own."""

    def __init__(
        self,
        jobs: Jobs,
        checkpoints: Checkpoints,
        approvals: Approvals,
        store: Store,
        limits: PartyLimits,
    ) -> None:
        self._jobs, self._checkpoints, self._store = jobs, checkpoints, store
        self._approvals = approvals
        self._limits = limits

    def run(self) -> NoReturn:
        """For as long as the party serves."""
        while True:
            time.sleep(min(LOOK, self._limits.lease_seconds / 2))
            self.look()

    def look(self) -> None:
        """Once. Whatever fails, the rest is done."""
        for step in (self._give_up, self._forget, self._destroy):
            try:
                step()
            except Exception as error:  # the disk, or a mistake of ours: next time it may go well
                _log.error("incident", exc_info=error)

    def _give_up(self) -> None:
        for job in self._jobs.all():
            if job.overdue(self._limits.lease_seconds, self._limits.job_seconds):
                _log.warning("job given up: its coordinator is silent", job=job.state.job_id)

    def _forget(self) -> None:
        self._approvals.sweep(self._limits.job_seconds)

    def _destroy(self) -> None:
        held = {(entry.name, entry.upload_id) for entry in self._store.list()}
        for job_id in self._checkpoints.sweep(lambda job, at: self._wanted(job, at, held)):
            _log.info("checkpoints destroyed: out of date, or their data is gone", job=job_id)

    def _wanted(self, job: bytes, written: float, held: set[tuple[str, str]]) -> bool:
        """Is a checkpoint young enough, and are the data sets that it comes from still here?"""
        if time.time() - written > self._limits.job_seconds:
            return False
        try:
            tables = BoundJob.model_validate_json(job).shared
        except ValueError:
            return False
        return all((table.name, table.upload) in held for table in tables)
