"""A local network for a benchmark: all services as processes of their own, mutual TLS, loopback.

Everything goes through the client's SDK, as for any user. The services end with the block, and
with this process, however it ends.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.wire import Host
from masque.client import datasets, jobs, local, local_files, opening, processes, sharing
from masque.client.machine import Machine
from masque.client.opening import Result
from masque.client.planning import Plan, plan
from masque.client.profile import load
from masque.client.services import BRIEF, Services
from masque.client.sharing import Shared
from masque.jobs import spec
from masque.jobs.fit import SharedTable
from masque.v1 import party_pb2

PARTIES = 2
PORT = 7000
"""Where every service listens that has a host of its own."""
COUNTERS = ("exchanges", "sent", "received", "corrections")
SECONDS = ("seconds", "waiting_for_peers", "waiting_for_dealer")


@dataclass
class Run:
    """A finished job.

    `starts`: seconds since its submission at which each state or training round began, by name;
    `counters`: what every party says of it, by party.
    """

    job_id: str
    result: Result
    starts: dict[str, float] = field(default_factory=dict)
    counters: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0

    def lasted(self, prefix: str) -> list[float]:
        """Seconds of every training round (or state) whose name begins with `prefix`."""
        names = list(self.starts)
        return [
            self.starts[after] - self.starts[name]
            for name, after in itertools.pairwise(names)
            if name.startswith(prefix)
        ]


class Network:
    """The services that run, a client's connections to them, and a directory for files."""

    def __init__(self, directory: Path, places: local.Network, services: Services) -> None:
        self.directory, self.services, self._places = directory, services, places

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by the services' names: dealer, party-1, ..., coordinator."""
        found = {place.name: processes.pid_of(place) for place in self._places.places}
        return {name: pid for name, pid in found.items() if pid is not None}

    def share(self, path: Path, schema: Path, name: str, *, replace: bool = False) -> Shared:
        """Share a file with all parties."""
        return sharing.share(self.services.parties, path, schema, name, replace=replace)

    def delete(self, name: str) -> None:
        """Delete a data set everywhere."""
        datasets.delete(self.services.parties, name)

    def plan(self, text: str, shared: Sequence[Shared]) -> Plan:
        """What a job costs, as the `plan` command tells."""
        tables = [SharedTable(name=s.name, upload=s.upload_id, info=s.info) for s in shared]
        return plan(spec.parse(text), tables, len(self.services.parties), Machine())

    def run(self, text: str, watcher: Any = None) -> Run:
        """Submit a job, wait for its end, open its result.

        `watcher` is called with the name of every state and round as it begins.
        """
        before = self._counters()
        began = time.monotonic()
        job_id = jobs.submit(self.services, text, spec.parse(text))
        starts: dict[str, float] = {}
        last = None
        for last in jobs.watch(self.services, job_id):
            name = last.progress.round_name if last.state == "training" else last.state
            if name not in starts:
                starts[name] = last.progress.seconds
                if watcher is not None:
                    watcher(name)
        assert last is not None, "watch yields or raises"
        jobs.check(last, job_id)
        run = Run(job_id, opening.fetch(self.services, job_id), starts)
        run.seconds = time.monotonic() - began
        run.counters = _differences(before, self._counters())
        return run

    def _counters(self) -> dict[str, dict[str, float]]:
        found = {}
        for party in self.services.parties:
            with party.calling() as stub:
                told = stub.Describe(party_pb2.DescribePartyRequest(), timeout=BRIEF).traffic
            found[party.name] = {name: getattr(told, name) for name in (*COUNTERS, *SECONDS)}
        return found


@contextmanager
def spread(hosts: Mapping[str, Host], parties: int = PARTIES) -> Iterator[Network]:
    """As `network`, every service at the host of its name; the client is wherever we are."""
    with _directory() as directory:
        places = local.Network(directory / "network", parties)
        addresses = [f"{hosts[place.name].address}:{PORT}" for place in places.places]
        local_files.write(places, addresses)
        entering = {place.name: hosts[place.name].entering for place in places.places}
        with _running(directory, places, entering) as made:
            yield made


@contextmanager
def stocked(prefetch: int, parties: int = PARTIES) -> Iterator[Network]:
    """As `network`, with parties that fetch up to `prefetch` bytes of material ahead."""
    with _directory() as directory:
        places = local.Network(directory / "network", parties)
        local_files.write(places, [f"127.0.0.1:{port}" for port in local._ports(places, None)])
        for place in places.places:
            if place.role == "party":
                with place.config.open("a", encoding="utf-8") as file:
                    file.write(f"limits: {{prefetch_bytes: {prefetch}}}\n")
        with _running(directory, places, {}) as made:
            yield made


@contextmanager
def _directory() -> Iterator[Path]:
    """A fresh one, removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="masque-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _running(
    directory: Path, places: local.Network, entering: Mapping[str, Sequence[str]]
) -> Iterator[Network]:
    """Start the services of files that are there; stop them at the end."""
    try:
        started = [
            processes.start(place, bound_to_us=True, entering=entering.get(place.name, ()))
            for place in places.places
        ]
        processes.wait_until_ready(places.places, started)
        with Services(load(places.profile)) as services:
            yield Network(directory, places, services)
    finally:
        processes.stop(places.places)


@contextmanager
def network(parties: int = PARTIES) -> Iterator[Network]:
    """Start everything in a fresh directory; stop and remove it at the end."""
    with _directory() as directory:
        places = local.up(directory / "network", parties, bound_to_us=True)
        try:
            with Services(load(places.profile)) as services:
                yield Network(directory, places, services)
        finally:
            processes.stop(places.places)


def synthetic(directory: Path, rows: int, columns: int) -> tuple[Path, Path]:
    """A CSV file of `columns` features in [-1, 1] and a noisy linear label, and its schema.

    Written in blocks of rows, so that memory stays small.
    """
    random = np.random.default_rng(7)
    weights = random.normal(size=columns)
    names = [f"x{index}" for index in range(columns)]
    name = f"synthetic-{rows}-{columns}-{secrets.token_hex(2)}"
    path, schema = directory / f"{name}.csv", directory / f"{name}.yaml"
    with path.open("w", encoding="ascii") as file:
        file.write(",".join([*names, "y"]) + "\n")
        for start in range(0, rows, 20_000):
            features = random.uniform(-1, 1, (min(20_000, rows - start), columns)).round(4)
            noise = 0.3 * random.normal(size=len(features))
            labels = (features @ weights + noise > 0).astype(int)
            np.savetxt(file, np.c_[features, labels], "%g", ",")
    lines = [f"  {name}: {{type: number, range: [-1, 1]}}" for name in names]
    label = "label: {column: y, type: binary, classes: [0, 1], positive: 1}"
    schema.write_text("\n".join(["columns:", *lines, label]) + "\n", encoding="ascii")
    return path, schema


def _differences(
    before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    return {
        party: {name: value - before[party][name] for name, value in counters.items()}
        for party, counters in after.items()
    }
