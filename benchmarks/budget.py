"""Where an iteration of network A goes, and what the least is that it could take here.

CPU of every service is the kernel's account of its process. What of it is computing comes from the
interpreters alone (as in `core`): a party against what its peer said before, the dealer dealing to
nobody, timed by the CPU of their thread; a profile divides that into kernels, randomness and Python
(numpy's loops included). The rest of a process is its network: gRPC, TLS, copies.

For the floor see `floor`.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import core, floor, machine
from benchmarks.figures import Figure, Outcome
from benchmarks.network import Network, network
from benchmarks.neural import CLASSES, ITERATIONS, PIXELS, ROWS, images, job
from masque.client.planning import bound_for_planning
from masque.data.schema import loads
from masque.jobs import spec
from masque.jobs.compile import compile_job
from masque.jobs.fit import SharedTable
from masque.mpc import inprocess, prg, sharing
from masque.mpc.cost import cost
from masque.mpc.dealer import Dealer
from masque.mpc.doors import Source
from masque.mpc.party import Party
from masque.mpc.program import Program
from masque.wire import memory

KERNELS: tuple[str, ...] = ("ring", "packing", "comparison", "conjunction", "convolution")
KERNELS += ("narrow", "trig", "slabs", "blocks", "truncation", "scaling", "classes", "waves")
RANDOMNESS = "update_into"


def measure(quick: bool) -> Outcome:
    """The services first, then the interpreters alone."""
    epochs = 3 if quick else 6
    with network() as services:
        wall, cpu, waiting = _services(services, epochs)
    memory.keep_freed()
    made = program()
    seeds = [prg.derive(bytes(32), "budget", index) for index in range(core.PARTIES)]
    sources = stores()
    heard = core.record(made, seeds, sources)
    alone = {"party-1": _party(made, seeds, sources, heard), "dealer": _dealer(made, seeds)}
    figures = [Figure("one iteration", wall, "ms")]
    for service, (spent, shares) in alone.items():
        total = cpu[service]
        figures.append(Figure(f"{service}: CPU", total, "ms"))
        figures += [Figure(f"- {what}", spent * share, "ms") for what, share in shares.items()]
        figures.append(Figure("- network: gRPC, TLS, copies", max(0.0, total - spent), "ms"))
        for what, share in waiting.get(service, {}).items():
            figures.append(Figure(f"- waits for {what}, not CPU", wall * share, "ms"))
    figures += _floor(made, wall)
    return Outcome("Where an iteration of network A goes", figures)


def program() -> Program:
    """The program of the benchmark `networks` for network A, one epoch."""
    columns = "\n".join(f"  p{i}: {{type: integer, range: [0, 255]}}" for i in range(PIXELS))
    classes = ", ".join(f'"{digit}"' for digit in range(CLASSES))
    label = f"label: {{column: digit, type: classes, classes: [{classes}]}}"
    info = loads(f"columns:\n{columns}\n{label}\n").describe(ROWS)
    table = SharedTable(name="images", upload="planned", info=info)
    parsed = spec.parse(job("a", "images", 1))
    return compile_job(bound_for_planning(parsed, [table], core.PARTIES))


def stores() -> list[Source]:
    """Shares of made-up images."""
    random = np.random.default_rng(7)
    pixels = random.uniform(-1, 1, (ROWS, PIXELS))
    labels = np.eye(CLASSES)[random.integers(0, CLASSES, ROWS)]
    whole = np.rint(np.c_[pixels, labels] * 2.0**24).astype(np.int64).view(np.uint64)
    shares = sharing.split(whole, core.PARTIES, prg.reader(prg.derive(bytes(32), "budget")))

    def source(index: int) -> Source:
        return lambda name, rows: shares[index][rows]

    return [source(index) for index in range(core.PARTIES)]


def _services(
    services: Network, epochs: int
) -> tuple[float, dict[str, float], dict[str, dict[str, float]]]:
    """Milliseconds an iteration, CPU by service, shares of a party's time that it waits."""
    shared = services.share(*images(services.directory, ROWS), "images")
    marks: dict[str, dict[str, float]] = {}

    def watcher(name: str) -> None:
        marks[name] = {key: machine.cpu_seconds(pid) for key, pid in services.pids.items()}

    run = services.run(job("a", shared.name, epochs), watcher)
    names = list(marks)
    over, count = names[names.index("epoch 1") + epochs], ITERATIONS * epochs
    first = marks["epoch 1"] | {"dealer": marks["submitted"]["dealer"]}
    cpu = {key: 1e3 * (marks[over][key] - before) / count for key, before in first.items()}
    waiting = {
        name: {
            what: counted[f"waiting_for_{what}"] / counted["seconds"]
            for what in ("peers", "dealer")
        }
        for name, counted in run.counters.items()
    }
    return 1e3 * statistics.median(run.lasted("epoch")[1:]) / ITERATIONS, cpu, waiting


def _party(
    made: Program, seeds: list[bytes], sources: list[Source], heard: Sequence[bytes]
) -> tuple[float, dict[str, float]]:
    """(milliseconds an iteration, what they go to) of party 0's interpreter."""
    epoch = next(k for k, r in enumerate(made.rounds) if r.name.startswith("epoch"))

    def ready() -> Party:
        stock = inprocess.stock(made, seeds)[0]
        party = Party(made, 0, seeds[0], stock, core.Replay(iter(heard)), sources[0])
        for k in range(epoch):
            party.run_round(k)
        return party

    times = []
    for _ in range(3):
        party = ready()
        began = time.thread_time()
        party.run_round(epoch)
        times.append(1e3 * (time.thread_time() - began) / ITERATIONS)
    party, profile = ready(), cProfile.Profile()
    profile.runcall(party.run_round, epoch)
    return statistics.median(times), _shares(profile)


def _dealer(made: Program, seeds: list[bytes]) -> tuple[float, dict[str, float]]:
    """The same of the dealer's."""
    times, profile = [], cProfile.Profile()
    for last in (False, False, False, True):
        dealer, spent = Dealer(made, seeds), 0.0
        for position, k, call in made.positions():
            epoch = made.rounds[k].name.startswith("epoch")
            if last and epoch:
                profile.enable()
            began = time.thread_time()
            dealer.deal_call(position, call)
            spent += (time.thread_time() - began) * epoch
            profile.disable()
        if not last:
            times.append(1e3 * spent / ITERATIONS)
    return statistics.median(times), _shares(profile)


def _shares(profile: cProfile.Profile) -> dict[str, float]:
    """Shares of kernels, randomness, and the rest, by functions' own time."""
    stats: Any = pstats.Stats(profile)
    found = {"kernels": 0.0, "randomness": 0.0, "Python and numpy": 0.0}
    for (file, _, name), (_, _, own, _, _) in stats.stats.items():
        module = file.rpartition("/")[2].removesuffix(".py")
        what = "kernels" if module in KERNELS and "/mpc/" in file else "Python and numpy"
        found["randomness" if RANDOMNESS in name else what] += own
    total = sum(found.values()) or 1.0
    return {what: own / total for what, own in found.items()}


def _floor(made: Program, wall: float) -> list[Figure]:
    found = next(r for r in cost(made).rounds_by_name if r.name.startswith("epoch"))
    totals = (found.multiplications, found.sent, sum(found.corrections), found.rounds)
    return floor.figures(floor.Work(*(total / ITERATIONS for total in totals)), wall / 1e3)
