"""One attempt of one job at a party: interpreter, material, exchange, and a thread for them.

Everything secret of a job at this party, apart from the data sets, hangs on an `Attempt` and goes
with it. It is built by `preparing`, told what to do by `job`, and knows no gRPC itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from threading import Lock
from typing import Protocol, TypeVar

from masque.data.checkpoints import Checkpoint, Checkpoints
from masque.errors import MasqueError
from masque.jobs.bound import BoundJob
from masque.jobs.ledger import Ledger
from masque.jobs.resuming import commits
from masque.mpc.doors import Buffer, Source, Spool, in_memory
from masque.mpc.footprint import footprint
from masque.mpc.party import Party
from masque.mpc.program import Opening, Program
from masque.wire import tracing
from masque.wire.recipients import Recipient
from services.party.stock import Stock

Result = TypeVar("Result")


class LinkTraffic(Protocol):
    """Bytes of one link, without framing, and seconds spent waiting for the peer."""

    sent: int
    received: int
    waited: float


class Channel(Protocol):
    """The exchange of one attempt: `masque.wire.exchange.PeerExchange`, or a test's."""

    rounds: int
    awaits: str | None

    @property
    def traffic(self) -> Mapping[str, LinkTraffic]:
        """Bytes by peer."""

    @property
    def waited(self) -> float:
        """Seconds spent waiting for peers."""

    def open(self) -> object:
        """Connect to all peers and compare what is to be run."""

    def swap(self, payload: bytes) -> Sequence[Buffer]:
        """One round."""

    def abort(self, reason: MasqueError) -> None:
        """Give up, telling the peers why."""

    def close(self) -> None:
        """End in peace."""


@dataclass(frozen=True)
class Doors:
    """What an attempt reaches the world through; `let_go` closes what they need."""

    stock: Stock
    exchange: Channel
    source: Source
    ledger: Ledger
    checkpoints: Checkpoints
    let_go: Callable[[], None]
    spool: Spool = in_memory


@dataclass
class Account:
    """What a party has seen and sent, in numbers; see `Traffic` in party.proto."""

    exchanges: int = 0
    sent: int = 0
    received: int = 0
    corrections: int = 0
    declared_openings: int = 0
    sealed_outputs: int = 0
    seconds: float = 0.0
    waiting_for_peers: float = 0.0
    waiting_for_dealer: float = 0.0

    def add(self, other: Account) -> None:
        """Add the numbers of another account to this one."""
        for field in fields(self):
            total = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, total)


class Attempt:
    """`index`: which party this is; `openings`: what each training round opens, by its number."""

    def __init__(
        self,
        job: BoundJob,
        program: Program,
        index: int,
        openings: Sequence[Sequence[Opening]],
        recipients: Mapping[str, Recipient],
        doors: Doors,
    ) -> None:
        self.job, self.program, self.index = job, program, index
        self.recipients = recipients
        self.memory = footprint(program)
        """Bytes that it declares to need."""
        self.trained = 0
        """Training rounds that were run, without those that early stopping left out."""
        self.commitments: Mapping[str, str] = {}
        """To this party's shares of the job's data sets, by name."""
        self._openings, self._doors = openings, doors
        self._worker = ThreadPoolExecutor(1, f"job-{job.job_id}")
        self._party: Party | None = None
        self._lock = Lock()
        self._ended: MasqueError | None = None
        self._begun: float | None = None
        self._last = _checkpoint_before(job)
        self._committing = False
        self._account = Account()

    def __repr__(self) -> str:
        return f"Attempt({self.job.job_id}, {self.job.attempt})"

    def start(self) -> None:
        """Let the dealer's stream begin, so that dealing runs ahead; checkpoints are ours now."""
        self._doors.checkpoints.begin(self.job.job_id, self.job.attempt)
        self._doors.stock.start()

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run `work` in this attempt's thread, the only one that computes."""
        return self._worker.submit(tracing.inherit(work))

    @property
    def round(self) -> int:
        """The training round that the interpreter has next."""
        return self._party.round if self._party is not None else 0

    @property
    def stopped(self) -> bool:
        """Whether an early-stop bit has said so, in this attempt or before what it goes on from."""
        here = self.job.resume
        return (here is not None and here.stopped) or (
            self._party is not None and self._party.stopped
        )

    def skips(self, k: int) -> bool:
        """Whether training round `k` is left out, or was over before this attempt."""
        here = self.program.rounds[k]
        return not here.name or (self.stopped and here.skippable)

    def run(self, k: int) -> bool:
        """Run training round `k`, in this attempt's thread; skip those before it that were left.

        False if `k` itself is left out.
        """
        party = self._party if self._party is not None else self._begin()
        while party.round < k:
            assert self.skips(party.round), "checked before"
            party.skip_round(party.round)
        if self.skips(k):
            party.skip_round(k)
            return False
        for opening in self._openings[k]:
            job = self.job
            self._doors.ledger.record(
                job.job_id, job.attempt, opening.name, opening.bits, opening.to
            )
            self._account.declared_openings += 1
        self._note_release(k)
        party.run_round(k)
        self.trained += 1
        return True

    def commit(self, k: int) -> bool:
        """Keep what it takes to go on after round `k`, which was run; False if that is nothing.

        Returns once it is on disk, so that the coordinator may count on it.
        """
        if not commits(self.job, self.program, k):
            return False
        party, job = self._party, self.job
        if party is None:
            assert self._ended is not None
            raise self._ended
        state = Checkpoint(
            job.job_id, job.attempt, k + 1, self.stopped, job.subject(), party.state()
        )
        self._committing = True
        kept = self._doors.checkpoints.write(state, job.canonical(), self._last)
        self._committing = False
        if not kept or self._ended is not None:
            raise self._ended or MasqueError(f"job {job.job_id} has been forgotten.")
        self._last = (job.attempt, k + 1)
        return True

    def doing(self) -> tuple[str, str]:
        """What it is about just now, in words; and whom it waits for, or ""."""
        stock, exchange = self._doors.stock, self._doors.exchange
        if self._committing:
            return "writes its checkpoint", ""
        if stock.hungry:
            return f"waits for material of {self.job.dealer}", self.job.dealer
        peer = exchange.awaits
        if peer is not None:
            return f"waits for {peer} in exchange {exchange.rounds + 1}", peer
        return "computes", ""

    def _note_release(self, k: int) -> None:
        """Every attempt that gets as far draws fresh noise: a release of its own, which adds up."""
        release, job = self.program.release, self.job
        if release is not None and k == len(self.program.rounds) - 1:
            self._doors.ledger.record(job.job_id, job.attempt, str(release), 0, release.to)

    def complete(self) -> Party:
        """The interpreter after the last round, for its outputs."""
        assert self._party is not None and self._party.round == len(self.program.rounds)
        self._doors.stock.finish()
        return self._party

    def sealed(self, count: int) -> None:
        """Enter into the account that `count` shares have been sealed."""
        self._account.sealed_outputs += count

    def account(self) -> Account:
        """The numbers so far."""
        exchange, stock, account = self._doors.exchange, self._doors.stock, self._account
        links = exchange.traffic
        account.exchanges = exchange.rounds
        account.sent = sum(link.sent for link in links.values())
        account.received = sum(link.received for link in links.values())
        account.corrections = stock.received
        account.waiting_for_peers, account.waiting_for_dealer = exchange.waited, stock.waited
        if self._begun is not None and self._ended is None:
            account.seconds = time.monotonic() - self._begun
        return account

    @property
    def links(self) -> Mapping[str, LinkTraffic]:
        """What went to and came from every peer so far."""
        return self._doors.exchange.traffic

    @property
    def material(self) -> int:
        """Bytes of corrections that wait to be used."""
        return self._doors.stock.waiting

    def abort(self, error: MasqueError) -> bool:
        """Give up: tell the peers, leave the dealer, destroy everything secret.

        False, and nothing happens, if the attempt was over before; so with `close`.
        """
        if not self._end(error):
            return False
        self._doors.exchange.abort(error)
        self._destroy(error)
        return True

    def close(self) -> bool:
        """The outputs have been taken: let go of the rest."""
        over = MasqueError("the job is over.")
        if not self._end(over):
            return False
        self._doors.exchange.close()
        self._destroy(over)
        return True

    def _begin(self) -> Party:
        self._begun = time.monotonic()
        doors = self._doors
        doors.exchange.open()
        seed = doors.stock.seed()
        party = Party(
            self.program,
            self.index,
            seed,
            doors.stock,
            doors.exchange,
            doors.source,
            doors.spool,
        )
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._party = party
        return party

    def _end(self, error: MasqueError) -> bool:
        self.account()
        with self._lock:
            first = self._ended is None
            self._ended = self._ended or error
        self._doors.checkpoints.end(self.job.job_id, self.job.attempt)
        return first

    def _destroy(self, error: MasqueError) -> None:
        self._doors.stock.close(error)
        self._worker.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._party = None
        self._doors.let_go()


def _checkpoint_before(job: BoundJob) -> tuple[int, int] | None:
    """The checkpoint that an attempt goes on from."""
    here = job.resume
    return None if here is None else (here.attempt, here.round)
