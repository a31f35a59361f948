"""Planted mistakes, one for each rule: what the simulation must find. See `test_mutations`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

from masque.data import checkpoints, pages, upload
from masque.jobs import conducting, ledger
from masque.jobs.conducting import ConductedJob
from masque.mpc import prg
from services.coordinator import course, service, store
from services.dealer import dealing
from services.party import attempt

Plant = Callable[[], AbstractContextManager[object]]


def _nothing(*arguments: object, **named: object) -> None:
    return None


@contextmanager
def unsynced_shares() -> Iterator[None]:
    """An upload is acknowledged though nothing of it was synced."""
    with (
        mock.patch.object(pages, "flush", lambda file: file.flush()),
        mock.patch.object(upload, "sync", _nothing),
    ):
        yield


@contextmanager
def unsynced_jobs() -> Iterator[None]:
    """A job is acknowledged though the coordinator's store does not sync what it commits."""
    real = store.Store._prepare

    def prepare(self: Any, path: Any) -> None:
        real(self, path)
        self._database.execute("PRAGMA synchronous=OFF")

    with mock.patch.object(store.Store, "_prepare", prepare):
        yield


@contextmanager
def repeated_seeds() -> Iterator[None]:
    """The dealer's seeds do not depend on the attempt."""

    def seed(job: Any, party: str, randomness: object) -> bytes:
        return prg.derive(bytes(prg.SEED_SIZE), "party material", job.job_id, party)

    with mock.patch.object(dealing, "_seed", seed):
        yield


@contextmanager
def unwritten_openings() -> Iterator[None]:
    """A party opens without a line in its ledger."""
    with mock.patch.object(ledger.Ledger, "record", _nothing):
        yield


@contextmanager
def unsynced_openings() -> Iterator[None]:
    """A party opens before the line is certain to survive."""
    lazy = SimpleNamespace(**{name: getattr(os, name) for name in dir(os) if name[0] != "_"})
    lazy.fsync = _nothing
    with mock.patch.object(ledger, "os", lazy):
        yield


@contextmanager
def hasty_endings() -> Iterator[None]:
    """Watchers are told that a job has failed which only waits for its next attempt."""
    real = service.CoordinatorService.Watch

    def watch(self: Any, request: Any, context: Any) -> Iterator[Any]:
        for event in real(self, request, context):
            if event.state == "waiting":
                event.state, event.ended = "failed", True
            yield event
            if event.ended:
                return

    with mock.patch.object(service.CoordinatorService, "Watch", watch):
        yield


@contextmanager
def no_deadline() -> Iterator[None]:
    """A job may wait for ever."""
    real = course.Course.__init__

    def init(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        self._expires = float("inf")

    with (
        mock.patch.object(course.Course, "__init__", init),
        mock.patch.object(course, "seconds_until", return_value=1e6),
    ):
        yield


@contextmanager
def nobody_named() -> Iterator[None]:
    """Nobody is named when a job fails."""
    real = conducting.step

    def step(job: ConductedJob, event: Any) -> Any:
        after, effects = real(job, event)
        return (replace(after, culprit="") if after.ended else after), effects

    with mock.patch.object(course, "step", step):
        yield


@contextmanager
def wrong_checkpoints() -> Iterator[None]:
    """A job goes on from other numbers than it had."""
    real = checkpoints.Checkpoints.read

    def read(self: Any, *arguments: Any) -> Any:
        found = real(self, *arguments)
        return replace(found, shares={name: share + 1 for name, share in found.shares.items()})

    with mock.patch.object(checkpoints.Checkpoints, "read", read):
        yield


@contextmanager
def no_second_try() -> Iterator[None]:
    """Whatever breaks an attempt ends the job."""
    with mock.patch.object(course, "passing", return_value=False):
        yield


@contextmanager
def careless() -> Iterator[None]:
    """A party's code meets something that nobody has thought of."""

    def skips(self: Any, k: int) -> bool:
        raise IndexError("list index out of range")

    with mock.patch.object(attempt.Attempt, "skips", skips):
        yield


PLANTS: dict[str, tuple[str, Plant, range]] = {
    "unsynced shares": ("acknowledged", unsynced_shares, range(1, 20)),
    "unsynced jobs": ("acknowledged", unsynced_jobs, range(1, 10)),
    "repeated seeds": ("masks once", repeated_seeds, range(1, 40)),
    "unwritten openings": ("declared", unwritten_openings, range(1, 10)),
    "unsynced openings": ("declared", unsynced_openings, range(1, 10)),
    "hasty endings": ("one end", hasty_endings, range(1, 60)),
    "no deadline": ("stuck", no_deadline, range(1, 200)),
    "nobody named": ("named", nobody_named, range(1, 200)),
    "wrong checkpoints": ("exact", wrong_checkpoints, range(1, 60)),
    "no second try": ("recovers", no_second_try, range(1, 60)),
    "careless": ("accidents", careless, range(1, 10)),
}
"""By name: the rule that finds it, how it is planted, and seeds of which one must find it."""
