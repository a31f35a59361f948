"""All parties in one process, a thread each: for tests, examples and calibration; no network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from masque.mpc.dealer import Dealer
from masque.mpc.doors import Buffer, Source
from masque.mpc.party import Party
from masque.mpc.program import Program


class Meeting:
    """Where the threads of n parties swap payloads; counts messages and bytes a party sends."""

    def __init__(self, parties: int) -> None:
        self._slots: list[bytes] = [b""] * parties
        self._barrier = threading.Barrier(parties)
        self.rounds = [0] * parties
        self.sent = [0] * parties

    def swap(self, index: int, payload: bytes) -> list[Buffer]:
        """One round for party `index`."""
        self._slots[index] = payload
        self.rounds[index] += 1
        self.sent[index] += len(payload)
        self._barrier.wait()
        others: list[Buffer] = [p for i, p in enumerate(self._slots) if i != index]
        self._barrier.wait()
        return others

    def abort(self) -> None:
        """Wake the others after a failure."""
        self._barrier.abort()


@dataclass
class Seat:
    """One party's view of a meeting: its `Exchange`."""

    meeting: Meeting
    index: int

    def swap(self, payload: bytes) -> list[Buffer]:
        """One round."""
        return self.meeting.swap(self.index, payload)


@dataclass
class Stock:
    """Corrections of one party, dealt beforehand: a `Supply`."""

    parts: dict[int, bytes] = field(default_factory=dict)
    received: int = 0

    def corrections(self, position: int, size: int) -> Buffer:
        """Take what was dealt for `position`; it can be taken once."""
        part = self.parts.pop(position)
        self.received += len(part)
        return part


@dataclass(frozen=True)
class Run:
    """A finished run: the parties, and what they and the dealer sent."""

    parties: list[Party]
    meeting: Meeting
    stocks: list[Stock]


def stock(program: Program, seeds: Sequence[bytes]) -> list[Stock]:
    """Deal a whole program beforehand."""
    stocks = [Stock() for _ in seeds]
    for position, parts in Dealer(program, seeds).deal():
        for held, part in zip(stocks, parts, strict=True):
            held.parts[position] = part
    return stocks


def run(
    program: Program, sources: Sequence[Source], seeds: Sequence[bytes], until: int | None = None
) -> Run:
    """Run the training rounds of a program; `sources` and `seeds` are one a party.

    `until`: only those before this one.
    """
    meeting = Meeting(program.parties)
    stocks = stock(program, seeds)
    parties = [
        Party(program, i, seeds[i], stocks[i], Seat(meeting, i), sources[i])
        for i in range(program.parties)
    ]
    _together([_job(party, meeting, until) for party in parties])
    return Run(parties, meeting, stocks)


def _job(party: Party, meeting: Meeting, until: int | None) -> Callable[[], None]:
    def work() -> None:
        try:
            for k, training_round in enumerate(party.program.rounds[:until]):
                if training_round.skippable and party.stopped:
                    party.skip_round(k)
                else:
                    party.run_round(k)
        except BaseException:
            meeting.abort()
            raise

    return work


def _together(jobs: Sequence[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as failure:  # handed to the caller below
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    real = [f for f in failures if not isinstance(f, threading.BrokenBarrierError)]
    for failure in real or failures:
        raise failure
