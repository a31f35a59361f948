"""The interpreters alone, for one iteration of logistic regression: no network, no waiting.

A party runs against what its peer said in an earlier run (with the same seeds every run says the
same), and against a stock dealt beforehand; the dealer deals to nobody. Times are of the calling
thread's CPU, so that a busy machine disturbs them little. What a real iteration takes more than
this is the network's: see the benchmarks `lr` and `profile`.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks.figures import Outcome, median_of
from benchmarks.iteration import BATCH, COLUMNS, ITERATIONS, ROWS, job
from masque.client.planning import bound_for_planning
from masque.data.schema import loads
from masque.jobs import spec
from masque.jobs.compile import compile_job
from masque.jobs.fit import SharedTable
from masque.mpc import inprocess, prg, sharing
from masque.mpc.dealer import Dealer
from masque.mpc.doors import Buffer, Source
from masque.mpc.inprocess import Meeting, Seat, Stock
from masque.mpc.party import Party
from masque.mpc.program import Program

PARTIES = 2
HOT = 12
"""Functions listed of each interpreter."""


@dataclass
class Recorder(Seat):
    """A seat that remembers what the peer said."""

    heard: list[bytes] = field(default_factory=list)

    def swap(self, payload: bytes) -> list[Buffer]:
        """One round."""
        others = super().swap(payload)
        self.heard += [bytes(other) for other in others]
        return others


@dataclass
class Replay:
    """An `Exchange` that says again what was heard."""

    heard: Iterator[bytes]

    def swap(self, payload: bytes) -> list[Buffer]:
        """One round."""
        return [next(self.heard)]


def program(epochs: int) -> Program:
    """The program of the benchmark `lr`."""
    columns = "\n".join(f"  x{i}: {{type: number, range: [-1, 1]}}" for i in range(COLUMNS))
    label = "label: {column: y, type: binary, classes: [0, 1], positive: 1}"
    info = loads(f"columns:\n{columns}\n{label}\n").describe(ROWS)
    table = SharedTable(name="synthetic", upload="planned", info=info)
    return compile_job(bound_for_planning(spec.parse(job("synthetic", epochs)), [table], PARTIES))


def stores(seed: int = 7) -> list[Source]:
    """Shares of a synthetic data set, one store a party."""
    random = np.random.default_rng(seed)
    features = random.uniform(-1, 1, (ROWS, COLUMNS))
    labels = (features @ random.normal(size=COLUMNS) > 0).astype(float)
    whole = np.rint(np.c_[features, labels] * 2.0**24).astype(np.int64).view(np.uint64)
    shares = sharing.split(whole, PARTIES, prg.reader(prg.derive(bytes(32), "benchmark")))

    def source(index: int) -> Source:
        return lambda name, rows: shares[index][rows]

    return [source(index) for index in range(PARTIES)]


def record(made: Program, seeds: list[bytes], sources: list[Source]) -> list[bytes]:
    """What party 0 hears in a run of all parties in threads."""
    meeting = Meeting(PARTIES)
    recorders = [Recorder(meeting, index) for index in range(PARTIES)]
    meet(made, recorders, inprocess.stock(made, seeds), seeds, sources)
    return recorders[0].heard


def seats(parties: int) -> list[Seat]:
    """Seats of one meeting."""
    meeting = Meeting(parties)
    return [Seat(meeting, index) for index in range(parties)]


def meet(
    made: Program,
    chosen: Sequence[Seat],
    stocks: Sequence[Stock],
    seeds: Sequence[bytes],
    sources: Sequence[Source],
) -> None:
    """Run a program with all parties in threads of this process."""

    def work(index: int) -> None:
        seat = chosen[index]
        try:
            run_all(Party(made, index, seeds[index], stocks[index], seat, sources[index]))
        except BaseException:
            seat.meeting.abort()
            raise

    with ThreadPoolExecutor(len(chosen)) as threads:
        list(threads.map(work, range(len(chosen))))


def run_all(party: Party) -> None:
    """Every training round."""
    for k in range(len(party.program.rounds)):
        party.run_round(k)


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds of this thread's CPU for each of an epoch's iterations."""
    began = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - began) / ITERATIONS


def measure(quick: bool) -> Outcome:
    """Party 0 and the dealer, epoch by epoch; then once more under a profiler."""
    epochs, repeats = (3, 1) if quick else (6, 3)
    made, sources = program(epochs), stores()
    seeds = [prg.derive(bytes(32), "benchmark", index) for index in range(PARTIES)]
    heard = record(made, seeds, sources)
    names = [training_round.name for training_round in made.rounds]
    party_times, dealer_times = [], []

    def party() -> Party:
        stock = inprocess.stock(made, seeds)[0]
        return Party(made, 0, seeds[0], stock, Replay(iter(heard)), sources[0])

    for _ in range(repeats):
        one = party()
        for k, name in enumerate(names):
            milliseconds = timed(partial(one.run_round, k))
            if name.startswith("epoch") and name != "epoch 1":
                party_times.append(milliseconds)
        dealer_times += _deal(made, seeds)
    figures = [
        median_of("a party's interpreter, one iteration", party_times, "ms"),
        median_of("the dealer's interpreter, one iteration", dealer_times, "ms"),
    ]
    one = party()
    hot = {
        "party": hottest(lambda: run_all(one)),
        "dealer": hottest(lambda: list(Dealer(made, seeds).deal())),
    }
    title = f"The interpreters alone: one iteration, {ROWS:,} x {COLUMNS}, batch {BATCH}"
    return Outcome(title, figures, {"hot": hot})


def _deal(made: Program, seeds: list[bytes]) -> list[float]:
    """Milliseconds an iteration of the dealer, by epoch but the first."""
    dealer = Dealer(made, seeds)
    marks: dict[int, float] = {}
    for position, k, call in made.positions():
        marks.setdefault(k, time.thread_time())
        dealer.deal_call(position, call)
    times = [
        1e3 * (marks[k + 1] - marks[k]) / ITERATIONS
        for k, training_round in enumerate(made.rounds[:-1])
        if training_round.name.startswith("epoch")
    ]
    return times[1:]


def hottest(work: Callable[[], Any]) -> list[dict[str, Any]]:
    """Where the time goes: functions by their own time, in percent of all."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    stats: Any = pstats.Stats(profiler, stream=io.StringIO())
    return ranked(stats)


def ranked(stats: Any, most: int = HOT) -> list[dict[str, Any]]:
    """The functions of a `pstats.Stats` with the most time of their own."""
    total = stats.total_tt or 1.0
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:most]
    return [
        {
            "function": _place(*key),
            "own_percent": round(100 * own / total, 1),
            "with_callees_percent": round(100 * below / total, 1),
            "calls": calls,
        }
        for key, (_, calls, own, below, _) in rows
    ]


def _place(file: str, line: int, name: str) -> str:
    if file == "~":
        return name
    parts = file.replace("\\", "/").split("/")
    return f"{'/'.join(parts[-2:])}:{line} {name}"
