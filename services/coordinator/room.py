"""Room for jobs: how many may run at once, here and everywhere, and the memory that parties lend.

A job has a claim while an attempt of it runs. Who has been told to wait for room comes before
younger jobs, so that a large one is not kept waiting by small ones without end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock

Need = Callable[[], int]
"""Bytes of memory that a job needs at every party; asked only where it matters."""


@dataclass(frozen=True)
class Lent:
    """What a service lends to all jobs together: `memory` in bytes, if that is counted."""

    jobs: int
    memory: int | None = None


@dataclass(frozen=True)
class Waits:
    """Why there is no room just now; `party`: at which service, if it is not here."""

    reason: str
    party: str = ""


class Room:
    """Claims of `jobs` at most. Safe in any thread."""

    def __init__(self, jobs: int) -> None:
        self._jobs, self._lock = jobs, Lock()
        self._claims: dict[str, Need] = {}
        self._waiting: dict[str, None] = {}

    def claim(self, job_id: str, need: Need, lent: Mapping[str, Lent]) -> Waits | None:
        """Room for a job at services that lend so much; None: it has it now.

        A job that no party could ever hold gets it if it is alone: the party says what to do.
        """
        with self._lock:
            waits = self._waits(job_id, need, lent)
            if waits is None:
                self._waiting.pop(job_id, None)
                self._claims[job_id] = need
            else:
                self._waiting.setdefault(job_id)
            return waits

    def crowded(self, job_id: str) -> Waits | None:
        """Why there is no room, as far as that is known without asking parties."""
        with self._lock:
            return self._crowded(job_id)

    def release(self, job_id: str, *, over: bool) -> None:
        """No attempt of the job runs any more; if it is `over`, none will."""
        with self._lock:
            self._claims.pop(job_id, None)
            if over:
                self._waiting.pop(job_id, None)

    def _waits(self, job_id: str, need: Need, lent: Mapping[str, Lent]) -> Waits | None:
        crowded = self._crowded(job_id)
        if crowded is not None or job_id in self._claims or not self._claims:
            return crowded
        for name, service in lent.items():
            if len(self._claims) >= service.jobs:
                return self._full(name)
        taken, needed = sum(other() for other in self._claims.values()), need()
        for party, here in lent.items():
            if here.memory is not None and taken + needed > here.memory:
                free = max(0, here.memory - taken)
                return Waits(f"it needs {needed >> 20} MiB, and {free >> 20} are free", party)
        return None

    def _crowded(self, job_id: str) -> Waits | None:
        if job_id in self._claims or not self._claims:
            return None
        first = next(iter(self._waiting), job_id)
        if first != job_id:
            return Waits(f"job {first} comes before it")
        return self._full() if len(self._claims) >= self._jobs else None

    def _full(self, party: str = "") -> Waits:
        return Waits(f"{len(self._claims)} jobs run already, as many as may", party)
