"""Where an iteration of logistic regression goes: CPU by thread of every service, calls, waiting.

Two runs of the job of `lr` on real services. In the first the kernel's own accounts of every thread
are read at the first and the last epoch: CPU, time spent ready but without a core (that is other
programs', or our own processes in each other's way), switches. In the second, the threads that
compute run under a profiler of calls, which makes Python slower than it is: take its shares, not
its times.
"""

from __future__ import annotations

import os
import pstats
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.core import ranked
from benchmarks.figures import Figure, Outcome
from benchmarks.iteration import BATCH, COLUMNS, ITERATIONS, ROWS, job
from benchmarks.network import Network, Run, network, synthetic
from benchmarks.observed.sitecustomize import CALLS, COMPUTING, DIRECTORY

LEAST = 0.01
"""Milliseconds an iteration below which a thread is not listed."""

MOST_CALLS = 15


@dataclass(frozen=True)
class Thread:
    """What the kernel says of a thread: seconds of CPU, seconds ready without a core, switches."""

    cpu: float
    ready: float
    switches: int


Snapshot = dict[str, dict[str, Thread]]
"""Service to thread to account."""


def measure(quick: bool) -> Outcome:
    """Account for the threads, then for the calls."""
    epochs = 6 if quick else 16
    with observed() as directory, network() as services:
        run, first, last = _follow(services, directory, epochs)
    count = (epochs - 1) * ITERATIONS
    wall = 1e3 * sum(run.lasted("epoch")[1:]) / count
    threads = _rows(first, last, count)
    with observed(calls=True) as directory:
        with network() as services:
            _follow(services, directory, 3)
            pids = {pid: name for name, pid in services.pids.items()}
        calls = _calls(directory, pids)
    figures = [Figure("one iteration", wall, "ms"), *_figures(threads), *_waiting(run, epochs)]
    title = f"Where an iteration goes: logistic regression, {ROWS:,} x {COLUMNS}, batch {BATCH}"
    return Outcome(title, figures, {"threads": threads, "calls": calls})


@contextmanager
def observed(*, calls: bool = False) -> Iterator[Path]:
    """Services that start within the block note their threads (and calls) in a directory."""
    before = dict(os.environ)
    path = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).with_name("observed"))
    os.environ["PYTHONPATH"] = os.pathsep.join([here, path] if path else [here])
    with tempfile.TemporaryDirectory(prefix="masque-observed-") as directory:
        os.environ[DIRECTORY] = directory
        if calls:
            os.environ[CALLS] = "1"
        try:
            yield Path(directory)
        finally:
            os.environ.clear()
            os.environ.update(before)


def _follow(services: Network, directory: Path, epochs: int) -> tuple[Run, Snapshot, Snapshot]:
    """Run the job; the threads' accounts when epoch 2 begins, and when the last one has ended."""
    shared = services.share(*synthetic(services.directory, ROWS, COLUMNS), "synthetic")
    marks: dict[str, Snapshot] = {}
    run = services.run(
        job(shared.name, epochs), lambda name: marks.update({name: _look(services, directory)})
    )
    names = list(marks)
    return run, marks["epoch 2"], marks[names[names.index(f"epoch {epochs}") + 1]]


def _look(services: Network, directory: Path) -> Snapshot:
    return {name: _threads(pid, directory) for name, pid in services.pids.items()}


def _threads(pid: int, directory: Path) -> dict[str, Thread]:
    lines = (directory / f"{pid}.threads").read_text(encoding="utf-8").splitlines()
    names = dict(line.split(" ", 1) for line in lines)
    found: dict[str, Thread] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            cpu, ready, switches = map(int, (task / "schedstat").read_text().split())
            native = (task / "comm").read_text().strip()
        except OSError:  # it has ended meanwhile
            continue
        name = _readable(names.get(task.name, f"native {native}"))
        before = found.get(name, Thread(0.0, 0.0, 0))
        found[name] = Thread(
            before.cpu + cpu / 1e9, before.ready + ready / 1e9, before.switches + switches
        )
    return found


def _readable(name: str) -> str:
    """Names of threads that do the same are the same: those of a pool, of gRPC, of one job."""
    if name.startswith(COMPUTING):
        return f"{name.partition('-')[0]}: computes"
    if "(_serve)" in name:
        return "gRPC server, Python"
    return name.rstrip("0123456789").rstrip("_-")


def _rows(first: Snapshot, last: Snapshot, count: int) -> list[dict[str, Any]]:
    rows = []
    for service, threads in last.items():
        for name, after in threads.items():
            before = first[service].get(name, Thread(0.0, 0.0, 0))
            rows.append(
                {
                    "service": service,
                    "thread": name,
                    "cpu_ms": round(1e3 * (after.cpu - before.cpu) / count, 3),
                    "ready_ms": round(1e3 * (after.ready - before.ready) / count, 3),
                    "switches": round((after.switches - before.switches) / count, 2),
                }
            )
    return sorted(rows, key=lambda row: (row["service"], -row["cpu_ms"]))


def _figures(threads: list[dict[str, Any]]) -> Iterator[Figure]:
    for row in threads:
        if row["cpu_ms"] >= LEAST:
            what = f"{row['service']}, {row['thread']}"
            yield Figure(f"{what}: CPU", row["cpu_ms"], "ms")
            yield Figure("- ready, without a core", row["ready_ms"], "ms")
            yield Figure("- switches", row["switches"], "")


def _waiting(run: Run, epochs: int) -> Iterator[Figure]:
    for party, counted in run.counters.items():
        for what in ("peers", "dealer"):
            share = 100 * counted[f"waiting_for_{what}"] / counted["seconds"]
            yield Figure(f"{party} waits for {what}, share of the whole job", share, "%")


def _calls(directory: Path, pids: dict[int, str]) -> dict[str, list[dict[str, Any]]]:
    """The functions with the most time of their own, by service and thread that computes."""
    found = {}
    for path in sorted(directory.glob("*.calls")):
        pid, _, name = path.stem.split(".", 2)
        stats: Any = pstats.Stats(str(path))
        found[f"{pids[int(pid)]}, {_readable(name)}"] = ranked(stats, MOST_CALLS)
    return found
