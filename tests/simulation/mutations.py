"""Planted mistakes, for each rule and for each kind of fault: what the simulation must find.

Those of a kind of fault meet no other kind: `Planted.plan`. See `test_mutations`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from masque.data import checkpoints, disk, pages, upload
from masque.errors import Conflict, MasqueError, Unavailable, passing
from masque.jobs import computing, conducting, ledger
from masque.jobs.bound import BoundJob
from masque.jobs.conducting import ConductedJob
from masque.jobs.states import State
from masque.mpc import prg
from masque.mpc.graph import Block
from masque.mpc.program import Call, Opening, Program, Ref, TrainingRound
from masque.mpc.trace import Trace
from services.coordinator import course, service, store
from services.dealer import dealing
from services.party import attempt
from tests.services.handmade import SCALE, compile_handmade
from tests.simulation import faults, shortcuts
from tests.simulation.network import Weather
from tests.simulation.seeds import Plan, plan
from tests.simulation.villages import JOB

Plant = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Planted:
    """`rule`: which must find it; `seeds`: one of them must. With `kinds`, faults of these alone
    happen, several in each seed, under `weather`, and all `within` so many seconds, if it says so;
    without, what the seed says.
    """

    rule: str
    how: Plant
    seeds: range
    kinds: tuple[str, ...] | None = None
    weather: Weather | None = None
    within: float = 0.0

    def plan(self, seed: int) -> Plan:
        """What a seed is about."""
        what = plan(seed)
        if self.kinds is None:
            return what
        random, names = Random(f"{seed}/planted"), ["dealer", *what.parties, "coordinator"]
        found = [faults.one(random, names, kind) for kind in self.kinds for _ in range(MANY)]
        if self.within:
            found = [replace(fault, at=self.within * random.random()) for fault in found]
        return replace(what, faults=tuple(found), weather=self.weather or Weather(), lost="")


MANY = 2
"""Faults of each kind that meet a mistake that is planted for it."""


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
def later_deadlines(factor: float) -> Iterator[None]:
    """A job may take longer than its time."""
    real = course.Course.__init__

    def init(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        self._expires += (factor - 1) * JOB

    with mock.patch.object(course.Course, "__init__", init):
        yield


def deadline_doubled() -> AbstractContextManager[None]:
    """A job may take twice its time."""
    return later_deadlines(2.0)


def deadline_late() -> AbstractContextManager[None]:
    """A job may take a little more than its time."""
    return later_deadlines(1.02)


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
def one_thing_more() -> Iterator[None]:
    """Dealer and parties compile a program that declares and reveals what nobody has asked for."""

    def compile_any(job: BoundJob) -> Program:
        how = shortcuts._real_compile if job.job_id.startswith("real") else _with_a_peek
        return shortcuts.compiled(job, how)

    with mock.patch.object(shortcuts, "compile_any", compile_any):
        yield


def _with_a_peek(job: BoundJob) -> Program:
    program = compile_handmade(job)
    prepare, first, *more = program.rounds
    peek = _peek(program.parties, job.tables[0].info.columns)

    def calls() -> list[Call]:
        return [*first.calls(), Call(peek, {"gram": Ref("gram")})]

    rounds = [prepare, TrainingRound(first.name, calls, first.count + 1, first.skippable), *more]
    openings = (*program.openings, Opening("peek", 64, ("parties",)))
    return replace(program, rounds=rounds, openings=openings)


def _peek(parties: int, columns: int) -> Block:
    trace = Trace("peek", parties)
    total = trace.input("gram", (columns, columns), 2 * SCALE, 2.0**10)
    trace.reveal("peek", total[0, 0])
    return trace.freeze()


@contextmanager
def careless() -> Iterator[None]:
    """A party's code meets something that nobody has thought of."""

    def skips(self: Any, k: int) -> bool:
        raise IndexError("list index out of range")

    with mock.patch.object(attempt.Attempt, "skips", skips):
        yield


# -- for one kind of fault -------------------------------------------------------------------------


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
    with mock.patch.object(ledger.Ledger, "_repair", _nothing):
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


TWICE = Weather(twice=1.0)
SLOW = Weather(slow=0.3, slowest=0.3)
LATE = Weather(slow=0.3, slowest=0.3, twice=1.0, behind=6.0)
"""Requests that come again after others on other connections."""

PLANTS: dict[str, Planted] = {
    "unsynced shares": Planted("acknowledged", unsynced_shares, range(1, 20)),
    "unsynced jobs": Planted("acknowledged", unsynced_jobs, range(1, 10)),
    "repeated seeds": Planted("masks once", repeated_seeds, range(1, 40)),
    "unwritten openings": Planted("declared", unwritten_openings, range(1, 10)),
    "unsynced openings": Planted("declared", unsynced_openings, range(1, 10)),
    "one thing more": Planted("declared", one_thing_more, range(1, 10)),
    "hasty endings": Planted("one end", hasty_endings, range(1, 60)),
    "no deadline": Planted("stuck", no_deadline, range(1, 200)),
    "deadline doubled": Planted("stuck", deadline_doubled, range(1, 200)),
    "deadline late": Planted("stuck", deadline_late, range(1, 200)),
    "nobody named": Planted("named", nobody_named, range(1, 200)),
    "wrong checkpoints": Planted("exact", wrong_checkpoints, range(1, 60)),
    "no second try": Planted("recovers", no_second_try, range(1, 60)),
    "careless": Planted("accidents", careless, range(1, 10)),
    "submitted anew": Planted("recovers", submitted_anew, range(1, 10), (), TWICE),
    "prepared anew": Planted("recovers", prepared_anew, range(1, 10), (), TWICE),
    "glued ledger": Planted("acknowledged", glued_ledger, range(1, 30), ("crash in a write",)),
    "torn checkpoints": Planted(
        "exact", torn_checkpoints, range(1, 40), ("power cut", "crash in a write"), SLOW
    ),
    "openings on a full disk": Planted(
        "declared", openings_on_a_full_disk, range(1, 20), ("full disk",)
    ),
    "jobs on a full disk": Planted(
        "acknowledged", jobs_on_a_full_disk, range(1, 40), ("full disk",)
    ),
    "no answer is a no": Planted("recovers", no_answer_is_a_no, range(1, 20), ("partition", "cut")),
    "old attempts heard": Planted(
        "recovers", old_attempts_heard, range(1, 40), ("cut",) * 3, LATE, within=5.0
    ),
}
"""By name. Every kind of fault has one that only it brings to light."""
