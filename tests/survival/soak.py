"""Many jobs, some at once: what they leave behind in memory, threads, files and connections."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from masque.client import jobs as client
from masque.client import processes
from tests.survival.kills import distance
from tests.survival.villages import KINDS, Outputs, Village, village

PARTIES = 3
EPOCHS = 6
CANCELLED, LONG = 6, 2000
"""One job of so many is cancelled as it trains, and would have so many epochs."""

KIND = ("logistic", "network", "stopping", "open")
SETTLE = 4.0
"""Seconds in which services give memory back after a job."""

LIMITS = {
    "memory": 256 << 10,  # ledger heads, remembered jobs, the noise of an allocator
    "descriptors": 0.1,
    "sockets": 0.1,
    "threads": 0.2,  # pools fill up
    "files": 2.0,  # at a party one that tells the attempt, and in one of four jobs what it opened
    "stored": 64 << 10,  # ledger lines, events, sealed results, logs
}
"""What a job may leave behind, once services have run for a while."""

SLACK = {"memory": 16 << 20, "descriptors": 6, "sockets": 4, "threads": 6}
"""What may come at any time and stays: threads of pools, arenas, kept connections."""


@dataclass(frozen=True)
class Taken:
    """What a service holds: bytes resident, descriptors, sockets among these, threads, and files
    and bytes in its directory.
    """

    memory: int
    descriptors: int
    sockets: int
    threads: int
    files: int
    stored: int


def run(
    directory: Path, jobs: int, at_once: int, say: Callable[[str], None] = lambda text: None
) -> list[str]:
    """`jobs` jobs, `at_once` of them at a time, some given up in the middle; what each leaves.

    AssertionError for a leak.
    """
    with village(directory, PARTIES, settings={"coordinator": {"jobs": at_once}}) as place:
        expected: dict[str, Outputs] = {}
        for kind in KIND:
            expected[kind] = place.outputs(_whole(place, kind))
        warm = max(at_once, len(KIND))
        _batch(place, warm, at_once, expected)
        history = [(0, _all(place))]
        done, step = 0, max(at_once, jobs // 5)
        while done < jobs:
            count = min(step, jobs - done)
            _batch(place, count, at_once, expected)
            done += count
            history.append((done, _all(place)))
            say(f"{done}/{jobs} jobs")
        return list(_judged(history))


def _batch(place: Village, count: int, at_once: int, expected: dict[str, Outputs]) -> None:
    """So many jobs; every result is looked at."""

    def one(number: int) -> None:
        if number % CANCELLED == CANCELLED - 1:
            _given_up(place)
            return
        kind = KIND[number % len(KIND)]
        far = distance(place.outputs(_whole(place, kind)), expected[kind])
        assert far < KINDS[kind][1], f"{kind} is {far} off"

    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(one, range(count)))
    time.sleep(SETTLE)


def _given_up(place: Village) -> None:
    job_id = place.submit("logistic", LONG)
    place.net.until_training(job_id)
    client.cancel(place.net.services, job_id)
    assert place.ended(job_id).state == "cancelled"


def _whole(place: Village, kind: str) -> str:
    job_id = place.submit(kind, EPOCHS)
    view = place.ended(job_id)
    assert view.state == "succeeded", f"{kind} {job_id}: {view.error}"
    return job_id


def _all(place: Village) -> dict[str, Taken]:
    return {name: taken(place, name) for name in place.names}


def taken(place: Village, name: str) -> Taken:
    """What a service holds now."""
    pid = processes.pid_of(place.net.place(name))
    assert pid is not None, f"{name} runs"
    proc = Path(f"/proc/{pid}")
    status = _status(pid)
    links = [_link(path) for path in (proc / "fd").iterdir()]
    stored = [path.stat().st_size for path in _files(place.net.network.home / name)]
    return Taken(
        memory=resident(pid),
        descriptors=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
        threads=int(status["Threads"]),
        files=len(stored),
        stored=sum(stored),
    )


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(_status(pid)["VmRSS"].split()[0]) << 10


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


def _files(directory: Path) -> Iterator[Path]:
    for root, _, names in os.walk(directory):
        for name in names:
            path = Path(root, name)
            if path.is_file():
                yield path


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _judged(history: list[tuple[int, dict[str, Taken]]]) -> Iterator[str]:
    """A line a service: what it held at first, half-way and at last, and its growth a job.

    Growth is that of a line through the second half: what fills up at the beginning is no leak.
    """
    leaks = []
    for name in history[0][1]:
        words = []
        for field in fields(Taken):
            values = [float(getattr(found[name], field.name)) for _, found in history]
            half = (len(values) - 1) // 2
            counts = [float(count) for count, _ in history[half:]]
            slope = float(np.polyfit(counts, values[half:], 1)[0])
            told = " -> ".join(f"{value:.0f}" for value in (values[0], values[half], values[-1]))
            words.append(f"{field.name} {told} ({slope:+.2g} a job)")
            grown = values[-1] - values[half]
            if grown > SLACK.get(field.name, 0) and slope > LIMITS[field.name]:
                leaks.append(f"{name}: {words[-1]}")
        yield f"{name}: " + ", ".join(words)
    assert not leaks, "it leaks: " + "; ".join(leaks)
