"""What people do in a world: one shares data, one has models trained on it and reads the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masque.client import jobs, opening, sharing
from masque.client.services import Peer, Services
from masque.data.shares import Chunk
from masque.data.table import TableInfo
from masque.errors import Conflict, MasqueError, NotFound, Refused, Unavailable, passing
from masque.jobs.bound import BoundJob
from masque.jobs.spec import EVERYBODY, JobSpec, parse
from masque.mpc import prg
from masque.mpc import sharing as splitting
from masque.mpc.types import Ring
from masque.v1 import party_pb2
from masque.wire.identity import Identity, Role
from masque.wire.outputs import decode_output
from masque.wire.recipients import load_recipient_key
from masque.wire.sealing import sealing_context, unseal
from tests.jobs.examples import table, values
from tests.services.handmade import gram
from tests.simulation.invariants import Monitors
from tests.simulation.villages import PROJECT, Village

NAME = "patients"
ROUNDING = 5e-4
"""How far the result of a job that was resumed may be from that of one that was not."""

PATIENCE = 12.0
"""Seconds that people wait before they try again: longer than anything is on its way."""


@dataclass(frozen=True)
class Order:
    """A job that somebody wants. `output`: "sealed", "kept" or "public"; `cancelled`: its owner
    gives it up again.
    """

    job_id: str
    epochs: int = 1
    stop: bool = False
    output: str = "sealed"
    cancelled: bool = False
    after: float = 0.0

    @property
    def real(self) -> bool:
        """Is it compiled, and not handmade?"""
        return self.job_id.startswith("real")

    @property
    def steps(self) -> int:
        """Training rounds that are run."""
        return 1 if self.stop else 3

    @property
    def discloses(self) -> dict[str, tuple[str, ...]]:
        """What its owner has asked for, as ledgers name it, and who may see it; nothing else."""
        found: dict[str, tuple[str, ...]] = {}
        if self.real:
            for epoch in range(1, self.epochs + 1):
                found[f"epoch {epoch} within bounds"] = ("parties", "coordinator", "dealer")
        if self.stop:
            found["stop"] = ("parties",)
        outputs = ("weights", "intercept") if self.real else ("gram",)
        if self.output == "public":
            found |= dict.fromkeys(outputs, (EVERYBODY,))
        if self.output == "sealed":
            found |= {f"share of {name}, sealed": ("analyst",) for name in outputs}
        return found

    @property
    def text(self) -> str:
        """The job file."""
        changes: dict[str, Any] = {"data__rows": [NAME], "data__holdout": 0.0, "reveal": {}}
        changes |= {"training__epochs": self.epochs, "training__batch_size": 4}
        if self.real:
            changes["data__standardize"] = False
        if self.stop:
            changes["training__early_stop"] = {
                "metric": "log_loss",
                "patience": 1,
                "min_delta": 0.0,
                "validation": 0.2,
            }
        if self.output == "public":
            changes["model_output"] = {"open_to_all": True}
        if self.output == "kept":
            changes["model_output"] = {"keep_shares": f"model-of-{self.job_id}"}
        return json.dumps(values(**changes))


@dataclass(eq=False)
class Shares:
    """A matrix of clear fixed-point numbers as a stream of shares (`masque.client.sharing`)."""

    info: TableInfo
    clear: Ring
    parties: int
    identifiers: None = None

    def chunks(self) -> Iterator[Chunk]:
        draw = prg.reader(prg.derive(bytes(32), "simulated shares"))
        for start in range(0, len(self.clear), 8):
            rows = self.clear[start : start + 8]
            yield Chunk(start, len(rows), tuple(splitting.split(rows, self.parties, draw)))


def clear_table(rows: int) -> tuple[Ring, TableInfo]:
    """Small clear values, features in [-1, 1] and a label."""
    random = np.random.default_rng(rows)
    numbers = random.uniform(-1, 1, (rows, 3))
    numbers[:, -1] = random.integers(0, 2, rows)
    clear = np.round(numbers * 2**24).astype(np.int64).view(np.uint64)
    return clear, table(NAME, rows, "age", "dose").info


@dataclass(eq=False)
class Story:
    """`acknowledged`: the upload that all parties have said to hold; `accepted`: submitted jobs."""

    village: Village
    monitors: Monitors
    orders: list[Order]
    rows: int
    random: Random
    acknowledged: str = ""
    accepted: set[str] = field(default_factory=set)
    ended: dict[str, jobs.JobEvent] = field(default_factory=dict)
    outcomes: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    lost: str = ""
    deletes: bool = False
    deleted: bool = False
    told: bool = False

    def begin(self) -> None:
        """Somebody shares data; others wait for it."""
        self.monitors.asked = {order.job_id: order.discloses for order in self.orders}
        world, owner = self.village.world, self.village.clients["owner"]
        self.clear, self.info = clear_table(self.rows)
        world.spawn(owner, "share", self._share)

    def _tell(self) -> None:
        """Has everything come to its end?"""
        ended = len(self.outcomes) == len(self.orders)
        self.told = ended and (self.deleted or not self.deletes)

    def _try(self, act: Callable[[], Any]) -> Any:
        """What a person does: try again after a while."""
        world = self.village.world
        while True:
            try:
                return act()
            except MasqueError as error:
                told = f"{world.here.name} is told: {type(error).__name__}: {error.message}"
                world.note(told)
                if not passing(error) and not isinstance(error, Conflict | Refused):
                    world.break_rule("recovers", told)
                world.sleep(PATIENCE)

    def _share(self) -> None:
        world, analyst = self.village.world, self.village.clients["analyst"]
        first = [True]

        def share() -> sharing.Shared:
            replace, first[0] = not first[0], False
            stream = Shares(self.info, self.clear, len(self.village.parties))
            with Services(self.village.profile("owner")) as services:
                return sharing.send(services.parties, stream, NAME, replace=replace)

        self.acknowledged = self._try(share).upload_id
        world.note(f"acknowledged: upload {self.acknowledged[:8]}")
        for order in self.orders:
            world.spawn(analyst, order.job_id, partial(self._order, order))

    # -- jobs ------------------------------------------------------------------------------------

    def _order(self, order: Order) -> None:
        world = self.village.world
        world.sleep(order.after)
        with Services(self.village.profile("analyst")) as services:
            spec = parse(order.text)
            self._try(lambda: self._submit(services, order, spec))
            self.accepted.add(order.job_id)
            world.note(f"acknowledged: job {order.job_id}")
            if order.cancelled:
                world.sleep(0.4 * self.random.random())
                self._try(lambda: self._cancel(services, order.job_id))
            last = self._try(lambda: self._watch(services, order.job_id))
            self.ended[order.job_id] = last
            self.monitors.ended(order.job_id, last.state)
            found: dict[str, NDArray[Any]] = {}
            if last.state == "succeeded":
                found = self._try(lambda: self._result(services, order))
            elif last.state == "failed":
                progress = last.progress
                self.monitors.failed(order.job_id, progress.culprit, progress.reason)
            self.outcomes[order.job_id] = found
            self._tell()
        if self.deletes and len(self.outcomes) == len(self.orders):
            world.spawn(self.village.clients["owner"], "delete", self._delete)

    def _delete(self) -> None:
        """The owner of the data deletes it everywhere, once nobody needs it."""
        with Services(self.village.profile("owner")) as services:
            for party in services.parties:
                self._try(partial(self._delete_at, party))
        self.village.world.note("acknowledged: deletion")
        self.deleted = True
        self._tell()

    @staticmethod
    def _delete_at(party: Peer) -> None:
        try:
            with party.calling() as stub:
                stub.DeleteDataset(party_pb2.DeleteDatasetRequest(name=NAME), timeout=10.0)
        except NotFound:
            return  # an answer was lost

    def _submit(self, services: Services, order: Order, spec: JobSpec) -> None:
        try:
            jobs.submit(services, order.text, spec, order.job_id)
        except Conflict as error:  # nobody else uses this id
            self.village.world.break_rule("recovers", f"{order.job_id}: {error.message}")

    def _cancel(self, services: Services, job_id: str) -> None:
        try:
            jobs.cancel(services, job_id)
        except Conflict:
            return  # it has ended
        except NotFound as error:
            self.village.world.break_rule("acknowledged", f"{job_id}: {error.message}")

    def _watch(self, services: Services, job_id: str) -> jobs.JobEvent:
        last = None
        try:
            for event in jobs.watch(services, job_id):
                if last is not None and last.ended:
                    self.village.world.break_rule("one end", f"{job_id} goes on after its end")
                last = event
        except NotFound as error:
            self.village.world.break_rule("acknowledged", f"{job_id}: {error.message}")
        if last is None or not last.ended:
            raise Unavailable(f"the watch of {job_id} broke off.")
        return last

    def _result(self, services: Services, order: Order) -> dict[str, NDArray[Any]]:
        if order.real:
            return dict(opening.fetch(services, order.job_id, "analyst").values)
        if order.output == "public":
            return {"gram": self._opened(services, order.job_id)}
        if order.output == "kept":
            return {}  # the last look at all disks sees it
        bound, sealed = opening._ask(services, order.job_id, "analyst")
        shares = [self._unsealed(bound, party, sealed["gram"][party]) for party in bound.parties]
        return {"gram": splitting.join(shares)}

    def _opened(self, services: Services, job_id: str) -> Ring:
        told = []
        for party in services.parties:
            if party.name == self.lost:
                continue  # the others tell the same
            with party.calling() as stub:
                request = party_pb2.FetchOpenedRequest(job_id=job_id)
                told.append(stub.FetchOpened(request, timeout=10.0).values[0].values)
        if len(set(told)) != 1:
            self.village.world.break_rule("exact", f"{job_id}: parties open different results")
        return np.frombuffer(told[0], "<u8").astype(np.uint64).reshape(3, 3)

    def _unsealed(self, bound: BoundJob, party: str, sealed: bytes) -> Ring:
        ground = self.village.ground
        trust = self.village.profile("analyst").credentials().trust
        key = load_recipient_key(ground.recipients, "analyst", trust)
        context = sealing_context(bound.job_id, bound.attempt, party, "gram", bound.digest())
        sender = Identity(PROJECT, Role.PARTY, party)
        plain = unseal(sealed, key, context=context, sender=sender, trust=trust)
        return decode_output(plain, party)[0]

    # -- what should have come of it -------------------------------------------------------------

    def right(
        self, order: Order, found: dict[str, NDArray[Any]], due: dict[str, NDArray[Any]]
    ) -> bool:
        """Is this the result? Of a handmade job to the bit; of a real one it is `due`, within the
        rounding of what is prepared again.
        """
        if order.output == "kept" or (order.real and not due):
            return True
        if order.real:
            return found.keys() == due.keys() and all(
                bool(np.all(np.abs(found[name] - due[name]) < ROUNDING)) for name in due
            )
        return np.array_equal(found["gram"], gram(self.clear, order.epochs * order.steps))
