"""Planted mistakes that only one kind of fault brings to light. See `mutations`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

from masque.data import checkpoints, disk
from masque.errors import Conflict, MasqueError, Unavailable, passing
from masque.jobs import computing, ledger
from masque.jobs.states import State
from services.coordinator import course, store


@contextmanager
def submitted_anew() -> Iterator[None]:
    """Duplicated requests: a job that is submitted twice is taken as a new one twice."""
    add, find = store.Store.add, store.Store.job

    def added(self: Any, job: Any) -> None:
        with self._transaction() as database:
            for table in ("owed", "events", "sealed", "jobs"):
                database.execute(f"DELETE FROM {table} WHERE job_id=?", (job.job_id,))
        add(self, job)

    def found(self: Any, job_id: str) -> Any:
        accepting = sys._getframe(1).f_code.co_name in ("submit", "_bind")
        return None if accepting else find(self, job_id)

    with (
        mock.patch.object(store.Store, "add", added),
        mock.patch.object(store.Store, "job", found),
    ):
        yield


@contextmanager
def prepared_anew() -> Iterator[None]:
    """Duplicated requests: a party that is asked twice to prepare an attempt begins it twice."""
    real = computing.step

    def step(state: Any, event: Any) -> Any:
        after, effects = real(state, event)
        same = isinstance(event, computing.Prepare) and not effects
        if same and state.state is not State.PREPARING:
            after, effects = computing._prepare(state, event)
            effects = (computing.Release(state.attempt, "it was asked for again"), *effects)
        return after, effects

    with mock.patch.object(computing, "step", step):
        yield


@contextmanager
def glued_ledger() -> Iterator[None]:
    """Torn writes: what comes after a torn line of the ledger is written behind it."""
    with mock.patch.object(ledger.Ledger, "_repair", return_value=None):
        yield


@contextmanager
def torn_checkpoints() -> Iterator[None]:
    """Torn writes: checkpoints are written in place, and what of them is missing is read as 0."""

    def written(path: Path, content: bytes) -> None:
        if path.suffix != checkpoints._SUFFIX:
            disk.replace(path, content)
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, content)
        os.close(descriptor)
        disk.sync(path.parent)

    def read(stored: bytes, *key_and_place: object) -> bytes:
        head, end, words = stored.partition(b"\n")
        if not end:
            return stored
        shapes = json.loads(head)["registers"].values()
        return head + end + words.ljust(8 * sum(map(prod, shapes)), bytes(1))

    with (
        mock.patch.object(checkpoints, "replace", written),
        mock.patch.object(checkpoints, "seal", lambda content, *_: content),
        mock.patch.object(checkpoints, "unseal", read),
    ):
        yield


@contextmanager
def openings_on_a_full_disk() -> Iterator[None]:
    """Full disk: a party opens though its ledger could not be written."""

    def forgive(self: Any, kind: Any, error: object, trace: object) -> bool:
        return isinstance(error, OSError)

    with mock.patch.object(ledger._Disk, "__exit__", forgive):
        yield


@contextmanager
def jobs_on_a_full_disk() -> Iterator[None]:
    """Full disk: a job is acknowledged though it could not be stored."""
    real = store.Store.add

    def add(self: Any, job: Any) -> None:
        try:
            real(self, job)
        except Conflict:
            raise
        except MasqueError:
            return

    with mock.patch.object(store.Store, "add", add):
        yield


@contextmanager
def no_answer_is_a_no() -> Iterator[None]:
    """Partitions and cuts: the coordinator takes an answer that was lost for a refusal."""

    def again(error: Exception) -> bool:
        return passing(error) and not isinstance(error, Unavailable)

    with mock.patch.object(course, "passing", again):
        yield


@contextmanager
def old_attempts_heard() -> Iterator[None]:
    """Reordering: a party that has begun an attempt obeys a request of the one before."""
    real = computing.step

    def step(state: Any, event: Any) -> Any:
        if isinstance(event, computing.Prepare) and event.attempt < state.attempt:
            after, effects = computing._prepare(state, event)
            return after, (computing.Release(state.attempt, "another was asked for"), *effects)
        return real(state, event)

    with mock.patch.object(computing, "step", step):
        yield
