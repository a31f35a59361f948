"""One attempt of one job being dealt: fresh seeds, one thread that deals, one stream a party.

Nothing here depends on data: what is dealt follows from the program, when it is dealt from the
clock and from how fast the network takes it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from masque.errors import Conflict, JobFailed, MasqueError
from masque.jobs.bound import BoundJob
from masque.mpc import prg
from masque.mpc.dealer import Dealer
from masque.mpc.program import Program
from masque.v1.dealer_pb2 import Material
from masque.wire import memory, tracing
from masque.wire.material import pack, seed_message
from services.dealer.outbox import Outbox

_log = structlog.get_logger("masque.dealer")

Randomness = Callable[[int], bytes]
Ended = Callable[[MasqueError | None], None]
"""Called once: with None when everything has been sent, else with what went wrong."""


@dataclass(frozen=True)
class Pace:
    """How dealing and sending keep step; bytes and seconds."""

    budget: int = 32 << 20
    message: int = 512 << 10
    patience: float = 30.0  # with an attempt that nobody comes for, if another needs its place
    linger: float = 0.004  # for a message to fill, once a stream is under way
    small: int = 64 << 10  # a message of this size does not wait any longer
    prompt: int = 4  # messages at the beginning that do not wait at all


class Dealing:
    """The material of one (job, attempt): dealt once, sent once, then gone."""

    def __init__(
        self,
        job: BoundJob,
        program: Program,
        ended: Ended,
        *,
        pace: Pace | None = None,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._job, self._program, self._ended = job, program, ended
        self._pace = pace or Pace()
        self._seeds = [_seed(job, party, randomness) for party in job.parties]
        self._outboxes = {party: Outbox(self._pace.budget) for party in job.parties}
        self._joined: set[str] = set()
        self._served: set[str] = set()
        self._changed = threading.Condition()
        self._error: MasqueError | None = None
        self._over = False
        self._since = time.monotonic()
        self.sent = dict.fromkeys(job.parties, 0)
        deal = tracing.inherit(self._deal)
        self._thread = threading.Thread(target=deal, name=f"deal-{job.job_id}", daemon=True)

    def __repr__(self) -> str:
        return f"Dealing({self._job.job_id}, attempt {self._job.attempt})"

    def deserted(self, seconds: float) -> bool:
        """Whether no party at all has come in so long."""
        return not self._joined and time.monotonic() - self._since > seconds

    def start(self) -> None:
        """Begin to wait for the parties."""
        self._thread.start()

    def join(self, party: str) -> Iterator[Material]:
        """The stream of `party`: its seed, then its corrections. It is given out once, ever.

        Raises Conflict the second time; what ended the dealing, if something has.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            if party in self._joined:
                raise Conflict(
                    f"party {party!r} has been given its material of job {self._job.job_id}, "
                    f"attempt {self._job.attempt}, already.",
                    hint="Material is never sent twice: try the job again, as a new attempt.",
                    party=party,
                    again=True,
                )
            self._joined.add(party)
            seed = self._seeds[self._job.parties.index(party)]
            self._changed.notify_all()
        return self._stream(party, seed)

    def waiting(self) -> dict[str, int]:
        """Bytes that have been dealt and not yet been sent, by party."""
        return {party: outbox.waiting for party, outbox in self._outboxes.items()}

    def left(self, party: str) -> None:
        """The stream of `party` is over; before its end, that ends the job for all."""
        if party not in self._served:
            text = f"party {party!r} broke off its stream of material."
            self.fail(JobFailed(text, service=party, job=self._job.job_id, again=True))

    def fail(self, error: MasqueError) -> None:
        """Stop; destroy seeds and material; every stream ends with `error`."""
        with self._changed:
            if self._over:
                return
            self._over, self._error = True, error
            self._seeds = []
            self._changed.notify_all()
        for outbox in self._outboxes.values():
            outbox.fail(error)
        self._ended(error)
        memory.give_back_soon()

    def _stream(self, party: str, seed: bytes) -> Iterator[Material]:
        outbox, pace = self._outboxes[party], self._pace
        yield seed_message(seed)
        del seed
        number = 0
        while True:
            if number >= pace.prompt and outbox.waiting < pace.small:
                time.sleep(pace.linger)
            items = outbox.take(pace.message)
            if not items:
                break
            for message in pack(items):
                self.sent[party] += len(message.corrections)
                yield message
            number += 1
        self._serve(party)

    def _serve(self, party: str) -> None:
        with self._changed:
            self._served.add(party)
            if self._over or len(self._served) < len(self._job.parties):
                return
            self._over = True
        self._ended(None)
        memory.give_back_soon()

    def _deal(self) -> None:
        try:
            self._await_parties()
            with self._changed:
                if self._error is not None:
                    return
                dealer = Dealer(self._program, self._seeds)
            outboxes = [self._outboxes[party] for party in self._job.parties]
            with tracing.span("deal", job=self._job.job_id, attempt=self._job.attempt):
                for position, parts in dealer.deal():
                    for outbox, part in zip(outboxes, parts, strict=True):
                        if part:
                            outbox.put(position, part)
            with self._changed:
                self._seeds = []
            for outbox in outboxes:
                outbox.close()
        except MasqueError as error:
            self.fail(error)
        except Exception as error:
            incident = secrets.token_hex(4)
            _log.error("incident", incident=incident, job=self._job.job_id, exc_info=error)
            self.fail(
                MasqueError(
                    f"the dealer failed on its own account (incident {incident}).",
                    hint="Its log has the reason under that number.",
                )
            )

    def _await_parties(self) -> None:
        """For as long as it takes: they come when they have prepared, and it is the coordinator who
        sees that nobody hangs. If it is gone, those who have come leave, which ends it.
        """
        wanted = set(self._job.parties)
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._joined == wanted)


def _seed(job: BoundJob, party: str, randomness: Randomness) -> bytes:
    """A fresh seed, in a domain of its own even if the system's randomness were to repeat."""
    root = randomness(prg.SEED_SIZE)
    return prg.derive(root, "party material", job.job_id, job.attempt, party)
