"""Planted mistakes, for each rule and for each kind of fault: what the simulation must find.

Those of a kind of fault meet no other kind: `Planted.plan`. See `test_mutations`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from masque.data import checkpoints, pages, upload
from masque.jobs import computing, conducting, ledger
from masque.jobs.bound import BoundJob
from masque.jobs.conducting import ConductedJob
from masque.jobs.states import State
from masque.mpc import prg
from masque.mpc.graph import Block
from masque.mpc.program import Call, Opening, Program, Ref, TrainingRound
from masque.mpc.trace import Trace
from services.coordinator import course, service, store
from services.coordinator.parting import Parting
from services.coordinator.room import Room
from services.dealer import dealing
from services.party import attempt
from services.party.workshop import PartyWorkshop
from tests.services.handmade import SCALE, compile_handmade
from tests.simulation import faults, shortcuts
from tests.simulation.fault_mutations import (
    glued_ledger,
    jobs_on_a_full_disk,
    no_answer_is_a_no,
    old_attempts_heard,
    openings_on_a_full_disk,
    prepared_anew,
    submitted_anew,
    torn_checkpoints,
)
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


@contextmanager
def room_for_ever() -> Iterator[None]:
    """The coordinator gives back no room that a job has had."""
    with mock.patch.object(Room, "release", _nothing):
        yield


@contextmanager
def memory_for_ever() -> Iterator[None]:
    """A party counts the memory of attempts that are over."""
    with mock.patch.object(PartyWorkshop, "closed", _nothing):
        yield


@contextmanager
def nobody_told() -> Iterator[None]:
    """Parties do not hear that a job has ended."""
    with mock.patch.object(Parting, "_tell_all", return_value=True):
        yield


@contextmanager
def released_again() -> Iterator[None]:
    """What is broken off while results are handed over begins anew, and parties take part."""
    given = (computing.GiveResults(),)
    asked = dict(computing.TABLE[computing.FetchResults])
    asked[State.FINISHING] = lambda job, event: (job, given)
    table = dict(computing.TABLE) | {computing.FetchResults: asked}
    with (
        mock.patch.object(computing, "TABLE", table),
        mock.patch.object(conducting, "_break_off", conducting._another),
    ):
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
    "room for ever": Planted("leaves nothing", room_for_ever, range(1, 10)),
    "memory for ever": Planted("leaves nothing", memory_for_ever, range(1, 10)),
    "nobody told": Planted("leaves nothing", nobody_told, range(1, 10)),
    "released again": Planted("released once", released_again, range(1, 80), ("crash in a write",)),
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
