"""One training iteration of the four networks of the field, MNIST's shape, batches of 128.

The job runs as any user's does. An epoch is 20 iterations and ends with the check of bounds; its
time, by the coordinator's clock, divided by 20 is one sample. The first epoch warms up.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import floor, machine, rivals
from benchmarks.figures import Figure, Outcome, judged
from benchmarks.iteration import check_counters
from benchmarks.network import Network, Run, network, stocked

BATCH, ITERATIONS = 128, 20
ROWS, PIXELS, CLASSES = BATCH * ITERATIONS, 784, 10
NAMES = ("a", "b", "c", "d")
TARGETS = {"a": 1.0, "b": 10.0, "c": 15.0, "d": 2.0}  # times network A
MIB = 1 << 20
PAUSE = 3.0
NET_A_AHEAD = 40.0
PARTY_BYTES, DEALER_BYTES = 600e6, 500e6
NET_A_MILLISECONDS, NET_A_ROUNDS, NET_A_SENT, NET_A_DEALT = 60.0, 40, 4e6, 10e6


def job(name: str, dataset: str, epochs: int) -> str:
    """The job file."""
    return f"""
name: network-{name}
data: {{rows: [{dataset}], label: digit}}
model: {{kind: sequential, network: {name}}}
training:
  epochs: {epochs}
  batch_size: {BATCH}
  optimizer: {{kind: sgd, learning_rate: 0.1}}
  seed: 7
model_output: {{sealed_to: [analyst]}}
"""


def images(directory: Path, rows: int) -> tuple[Path, Path]:
    """A Parquet file of made-up images, some of them brighter in a class's own place; a schema."""
    random = np.random.default_rng(7)
    labels = random.integers(0, CLASSES, rows)
    path, schema = directory / f"images-{rows}.parquet", directory / "images.yaml"
    names = [f"p{index}" for index in range(PIXELS)]
    arrow = pa.schema([*((name, pa.uint8()) for name in names), ("digit", pa.string())])
    with pq.ParquetWriter(path, arrow) as writer:
        for start in range(0, rows, 10_000):
            some = labels[start : start + 10_000]
            pixels = random.integers(0, 64, (len(some), PIXELS))
            pixels[np.arange(len(some))[:, None], some[:, None] * 70 + np.arange(70)] += 150
            columns = [pa.array(column.astype(np.uint8)) for column in pixels.T]
            writer.write_table(pa.table([*columns, pa.array(some.astype(str))], schema=arrow))
    lines = [f"  {name}: {{type: integer, range: [0, 255]}}" for name in names]
    classes = ", ".join(f'"{digit}"' for digit in range(CLASSES))
    label = f"label: {{column: digit, type: classes, classes: [{classes}]}}"
    schema.write_text("\n".join(["columns:", *lines, label]) + "\n", encoding="ascii")
    return path, schema


def measure(quick: bool) -> Outcome:
    """All four; network A with what the dealer and the parties spend."""
    figures: list[Figure] = []
    details = {}
    base = 0.0
    with network() as services:
        shared = services.share(*images(services.directory, ROWS), "images")
        for name in NAMES:
            epochs = 2 if quick else 6 if name == "a" else 4
            text = job(name, shared.name, epochs)
            planned = services.plan(text, [shared])
            samples, busy, run, cpu = _run(services, text, epochs)
            details[name] = {"ms": samples, "counters": check_counters(planned, run)}
            epoch = next(part for part in planned.parts if part.name == "epoch 2")
            found = statistics.median(samples)
            base = base or found
            target = NET_A_MILLISECONDS if name == "a" else TARGETS[name] * base
            figures += judged(
                f"network {name.upper()}, one iteration",
                list(zip(samples, busy, strict=True)),
                "ms",
                at_most=target,
                rivals=rivals.NET_A_MILLISECONDS if name == "a" else {},
            )
            exact = name == "a"
            figures += [
                Figure(
                    "- rounds",
                    epoch.rounds / ITERATIONS,
                    "rounds",
                    at_most=NET_A_ROUNDS if exact else None,
                ),
                Figure(
                    "- a party sends",
                    epoch.sent_by_a_party / ITERATIONS,
                    "bytes",
                    at_most=NET_A_SENT if exact else None,
                ),
                Figure(
                    "- the dealer sends, in all",
                    sum(epoch.corrections) / ITERATIONS,
                    "bytes",
                    at_most=NET_A_DEALT if exact else None,
                ),
                *(Figure(f"- CPU of {service}", spent, "ms") for service, spent in cpu.items()),
            ]
            each = [epoch.multiplications, epoch.sent_by_a_party, sum(epoch.corrections)]
            work = floor.Work(*(total / ITERATIONS for total in (*each, epoch.rounds)))
            figures += floor.figures(work, found / 1e3)
    title = "One iteration of a network, 28 x 28, batch 128"
    return Outcome(title, figures, details)


def _run(
    services: Network, text: str, epochs: int
) -> tuple[list[float], list[float], Run, dict[str, float]]:
    """(milliseconds by epoch, cores that others used, the run, CPU milliseconds by service)."""
    marks: dict[str, dict[str, float]] = {}
    busy: dict[str, float] = {}
    elsewhere = machine.Others(list(services.pids.values()))

    def watcher(name: str) -> None:
        marks[name] = {key: machine.cpu_seconds(pid) for key, pid in services.pids.items()}
        busy[name] = elsewhere.lap()

    run = services.run(text, watcher)
    names = list(marks)
    begun = names.index("epoch 1")
    over = names[begun + epochs]
    count = ITERATIONS * epochs
    first = marks["epoch 1"] | {"dealer": marks["submitted"]["dealer"]}
    cpu = {key: 1e3 * (marks[over][key] - before) / count for key, before in first.items()}
    samples = [1e3 * seconds / ITERATIONS for seconds in run.lasted("epoch")[1:]]
    return samples, [busy[name] for name in names[begun + 2 : begun + epochs + 1]], run, cpu


def ahead(quick: bool) -> Outcome:
    """Network A with a dealer that has finished before the first iteration begins.

    The coordinator is stopped for a moment after the job's preparation, while the dealer works
    ahead and the parties' stocks fill.
    """
    epochs = 2 if quick else 4
    with stocked(int(1.5 * (epochs + 1) * ITERATIONS * NET_A_DEALT)) as services:
        shared = services.share(*images(services.directory, ROWS), "images")
        marks: dict[str, float] = {}
        busy: dict[str, float] = {}
        pids, elsewhere = services.pids, machine.Others(list(services.pids.values()))

        def watcher(name: str) -> None:
            if name == "start":
                os.kill(pids["coordinator"], signal.SIGSTOP)
                time.sleep(PAUSE)
                os.kill(pids["coordinator"], signal.SIGCONT)
            marks[name] = machine.cpu_seconds(pids["dealer"])
            busy[name] = elsewhere.lap()

        run = services.run(job("a", shared.name, epochs), watcher)
    names = list(marks)
    last = names[names.index("epoch 1") + epochs]
    spent = 1e3 * (marks[last] - marks["epoch 1"]) / epochs / ITERATIONS
    samples = [1e3 * seconds / ITERATIONS for seconds in run.lasted("epoch")[1:]]
    begun = names.index("epoch 1")
    pairs = list(
        zip(samples, [busy[n] for n in names[begun + 2 : begun + epochs + 1]], strict=True)
    )
    figures = judged("network A, dealt beforehand", pairs, "ms", at_most=NET_A_AHEAD, rivals={})
    figures.append(Figure("CPU of the dealer meanwhile, an iteration", spent, "ms", at_most=1.0))
    return Outcome("Network A with material dealt beforehand", figures)


def memory(quick: bool) -> Outcome:
    """Network A on as many rows as MNIST has: peaks from upload to result, fresh services."""
    rows = 10_000 if quick else 60_000
    with network() as services:
        shared = services.share(*images(services.directory, rows), "images")
        services.run(job("a", shared.name, 1))
        peaks = {name: machine.peak_bytes(pid) for name, pid in services.pids.items()}
    figures = [Figure("a party's share of the data", shared.info.share_bytes / MIB, "MiB")]
    for name, peak in peaks.items():
        limit = {"dealer": DEALER_BYTES, "coordinator": None}.get(name, PARTY_BYTES)
        figures.append(Figure(f"peak of {name}", peak / MIB, "MiB", at_most=limit and limit / MIB))
    return Outcome(f"Memory of network A with {rows:,} rows", figures)
