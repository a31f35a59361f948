"""What must hold in every world: monitors, which watch services from outside.

masks once      no party begins twice with a seed, and none expands a position of one twice
declared        what is revealed is in the durable ledger before; so is what is sealed; and both
                are what the job's owner has asked for (`Order.discloses`)
released once   what is sealed leaves a party in one attempt of a job only
one end         a job that was told to have ended one way never ends another way
named           a job that failed names its culprit
accidents       no service meets an exception that nobody foresaw
acknowledged    what was acknowledged is there after a power cut (`checked_disks`)
stuck, exact    see `seeds`
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from masque.errors import MasqueError
from masque.jobs.conducting import ConductedJob
from masque.jobs.states import State
from masque.mpc.dealer import Dealer
from masque.mpc.graph import Block, Node
from masque.mpc.party import Party
from masque.v1 import coordinator_pb2, party_pb2
from services.coordinator.store import Store
from services.party.attempt import Attempt
from tests.simulation import servers
from tests.simulation.villages import Village
from tests.simulation.worlds import World

Opening = tuple[str, int, str]
"""Job, attempt, what."""

ENDS = {State.SUCCEEDED.value, State.FAILED.value, State.CANCELLED.value}
SHOWN = ("job", "state", "attempt", "round", "reason", "culprit", "error", "text", "dataset")


@dataclass(eq=False)
class Monitors:
    """The monitors of one world. `asked`: what each job may disclose, and to whom; `begun_at`
    and `over_at`: when a coordinator first had a job in its hands, and when it stored its end.
    """

    village: Village
    ends: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    asked: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    begun_at: dict[str, float] = field(default_factory=dict)
    over_at: dict[str, float] = field(default_factory=dict)
    _seeds: set[bytes] = field(default_factory=set)
    _dealt: set[bytes] = field(default_factory=set)
    _drawn: set[tuple[bytes, int]] = field(default_factory=set)
    _handed: dict[tuple[str, str], int] = field(default_factory=dict)
    _ledgers: dict[str, tuple[int, dict[Opening, tuple[str, ...]]]] = field(default_factory=dict)

    @property
    def world(self) -> World:
        return self.village.world

    def broken(self, rule: str, text: str) -> None:
        """A rule was broken, by somebody who is not dead."""
        if not self.world.here.dead:
            self.world.break_rule(rule, text)

    # -- logs ------------------------------------------------------------------------------------

    def heard(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """A line of a service's log."""
        world = self.world
        if world.here.dead:
            return
        shown = " ".join(f"{key}={fields[key]}" for key in SHOWN if fields.get(key))
        world.note(f"{world.here.name}: {event} {shown}")
        if event == "incident":
            error = fields.get("exc_info")
            if isinstance(error, MasqueError | OSError):
                return  # a disk's word
            text = f"{world.here.name}: {type(error).__name__}: {error}"
            if isinstance(error, BaseException):
                world.errors.append(error)
                where = traceback.extract_tb(error.__traceback__)[-1]
                text += f" at {where.filename}:{where.lineno}"
            self.broken("accidents", text)

    # -- masks -----------------------------------------------------------------------------------

    def dealing(self, seeds: Sequence[bytes]) -> None:
        """A dealer begins to deal with these seeds."""
        for seed in seeds:
            if seed in self._dealt:
                self.broken("masks once", "a dealer deals twice with one seed")
            self._dealt.add(seed)

    def begun(self, seed: bytes) -> None:
        """A party begins with a seed."""
        self.attempts += 1
        if seed in self._seeds:
            self.broken("masks once", f"{self.world.here.name} begins twice with one seed")
        self._seeds.add(seed)

    def drawn(self, seed: bytes, position: int) -> None:
        """A party expands the masks of a position."""
        if (seed, position) in self._drawn:
            self.broken("masks once", f"{self.world.here.name} draws position {position} again")
        self._drawn.add((seed, position))

    # -- openings --------------------------------------------------------------------------------

    def opens(self, job: str, attempt: int, what: str) -> None:
        """A party lets others see something: is that in its ledger, whatever happens, and has
        anybody asked for it?
        """
        name = self.world.here.name
        to = self._disclosed(name).get((job, attempt, what))
        if to is None:
            self.broken("declared", f"{name} opens {what!r} of {job}, attempt {attempt}")
        else:
            self.noted(name, job, what, to)

    def noted(self, name: str, job: str, what: str, to: Sequence[str]) -> None:
        """A ledger says that something was opened to somebody: the job's owner has asked for it."""
        due = self.asked[job].get(what)
        if due != tuple(to):
            text = f"{name} opens {what!r} of {job} to {', '.join(to)}; asked was {due}"
            self.broken("declared", text)

    def _disclosed(self, name: str) -> dict[Opening, tuple[str, ...]]:
        raw = self.village.services[name].disk.durable("ledger.jsonl")
        size, found = self._ledgers.get(name, (0, {}))
        if len(raw) != size:
            found = {}
            for line in raw.splitlines():
                with suppress(ValueError, KeyError):  # torn, or of another kind
                    entry = json.loads(line)["entry"]
                    to = tuple(entry["to"])
                    found[entry["job"], entry["attempt"], entry["what"]] = to
            self._ledgers[name] = len(raw), found
        return found

    # -- time ------------------------------------------------------------------------------------

    def stored(self, job: ConductedJob) -> None:
        """A coordinator has stored a job."""
        if not self.world.here.dead:
            self.begun_at.setdefault(job.job_id, self.world.now)
            if job.ended:
                self.over_at.setdefault(job.job_id, self.world.now)

    # -- answers ---------------------------------------------------------------------------------

    def answers(self, message: Any, request: Any) -> None:
        """A service sends a message."""
        if isinstance(message, coordinator_pb2.Event):
            if message.ended:
                self.ended(message.job_id, message.state)
        elif isinstance(message, coordinator_pb2.ListJobsReply):
            for job in message.jobs:
                if job.state in ENDS or job.job_id in self.ends:
                    self.ended(job.job_id, job.state)
        elif isinstance(message, party_pb2.SealedChunk) and message.recipient:
            what = f"share of {message.output}, sealed"
            self.hands_over(request.job_id, request.attempt)
            self.opens(request.job_id, request.attempt, what)

    def hands_over(self, job_id: str, attempt: int) -> None:
        """A party hands over results of a job."""
        name = self.world.here.name
        first = self._handed.setdefault((name, job_id), attempt)
        if first != attempt:
            text = f"{name} hands over {job_id} of attempt {first}, and of attempt {attempt}"
            self.broken("released once", text)

    def ended(self, job_id: str, state: str) -> None:
        """Somebody is told that a job has ended so."""
        if self.ends.setdefault(job_id, state) != state:
            self.broken("one end", f"{job_id} has {self.ends[job_id]}, and then {state}")

    def failed(self, job_id: str, culprit: str, reason: str) -> None:
        """A client sees a job that has failed."""
        if not culprit:
            self.world.break_rule("named", f"{job_id} failed, nobody is named: {reason}")


def _wrapped(real: Callable[..., Any], before: Callable[..., None]) -> Callable[..., Any]:
    def wrapper(self: Any, *arguments: Any, **named: Any) -> Any:
        before(self, *arguments, **named)
        return real(self, *arguments, **named)

    return wrapper


@contextmanager
def monitoring(monitors: Monitors) -> Iterator[None]:
    """Let the monitors see what services do."""
    seeds: dict[Any, bytes] = {}
    jobs: dict[Any, tuple[str, int]] = {}

    def begun(party: Any, program: Any, index: int, seed: bytes, *more: Any) -> None:
        seeds[party] = seed
        monitors.begun(seed)

    def drawn(party: Any, block: Block) -> None:
        monitors.drawn(seeds[party], party._position)

    def rounds(attempt: Any, k: int) -> None:
        jobs[monitors.world.here] = attempt.job.job_id, attempt.job.attempt
        if attempt._party is not None:
            jobs[attempt._party] = jobs[monitors.world.here]

    def opens(party: Any, nodes: Sequence[Node], *more: Any) -> None:
        for node in nodes:
            if node.op == "reveal":
                job, attempt = jobs.get(party, jobs[monitors.world.here])
                monitors.opens(job, attempt, str(node.params[0]))

    def answers(context: Any, message: Any, request: Any) -> None:
        monitors.answers(message, request)

    update = Store.update

    def stored(store: Any, job: ConductedJob, *more: Any, **named: Any) -> None:
        update(store, job, *more, **named)
        monitors.stored(job)

    def dealing(dealer: Any, program: Any, seeds: Sequence[bytes]) -> None:
        monitors.dealing(seeds)

    with (
        mock.patch.object(Party, "__init__", _wrapped(Party.__init__, begun)),
        mock.patch.object(Party, "_draw", _wrapped(Party._draw, drawn)),
        mock.patch.object(Party, "open", _wrapped(Party.open, opens)),
        mock.patch.object(Attempt, "run", _wrapped(Attempt.run, rounds)),
        mock.patch.object(Dealer, "__init__", _wrapped(Dealer.__init__, dealing)),
        mock.patch.object(Store, "update", stored),
        mock.patch.object(servers.Context, "observe", answers),
    ):
        yield
