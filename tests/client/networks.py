"""A local network of real processes, small data to share there, and jobs for it."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from masque.client import jobs, local, processes, sharing
from masque.client.profile import load
from masque.client.services import Services
from masque.jobs import spec

SCHEMA = """\
table: small
columns:
  x: {type: number, range: [-10, 10]}
  z: {type: number, range: [0, 5]}
label: {column: y, type: binary, classes: [no, yes], positive: yes}
"""

JOB = """\
name: small
data: {rows: [left, right], label: y, holdout: 0.2}
model: {kind: logistic_regression}
training: {epochs: EPOCHS, batch_size: 16, optimizer: {kind: sgd, learning_rate: 0.5}}
reveal: {metrics: [accuracy], to: [analyst]}
model_output: {sealed_to: [analyst]}
"""
SHORT, LONG = 2, 600
"""Epochs: a job that is over at once, and one that lasts a minute or so."""


def job_text(epochs: int = SHORT) -> str:
    return JOB.replace("EPOCHS", str(epochs))


@dataclass
class Running:
    """A network that runs, a directory with files for it, and its client."""

    network: local.Network
    files: Path
    services: Services = field(init=False)

    def __post_init__(self) -> None:
        self.services = Services(load(self.network.profile))

    @property
    def profile(self) -> str:
        return str(self.network.profile)

    def place(self, name: str) -> processes.Place:
        return next(place for place in self.network.places if place.name == name)

    def pid(self, name: str) -> int:
        found = processes.pid_of(self.place(name))
        assert found is not None, f"{name} does not run"
        return found

    def revive(self, *names: str) -> None:
        """Stop services, if they run, and start them, all at once."""
        places = [self.place(name) for name in names]
        processes.stop(places)
        started = [processes.start(place, bound_to_us=True) for place in places]
        processes.wait_until_ready(places, started)

    def submit(self, epochs: int = SHORT, job_id: str | None = None) -> str:
        text = job_text(epochs)
        return jobs.submit(self.services, text, spec.parse(text), job_id)

    def until_training(self, job_id: str) -> None:
        """Return once the first epochs of a job are done."""
        for event in jobs.watch(self.services, job_id):
            assert not event.ended, event.error
            if event.progress.round > 3:
                return

    def share_small(self) -> None:
        for name in ("left", "right"):
            table = write_small(self.files / f"{name}.csv", seed=name)
            schema = self.files / "schema.yaml"
            schema.write_text(SCHEMA)
            sharing.share(self.services.parties, table, schema, name, replace=True)


def write_small(path: Path, rows: int = 60, seed: str = "a") -> Path:
    chance = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["x", "z", "y"])
        for _ in range(rows):
            x, z = chance.uniform(-10, 10), chance.uniform(0, 5)
            writer.writerow([f"{x:.3f}", f"{z:.3f}", "yes" if x + 2 * z > 5 else "no"])
    return path


@contextmanager
def running(directory: Path, parties: int = 2) -> Iterator[Running]:
    """A network with the data sets `left` and `right`, stopped at the end."""
    files = directory / "files"
    files.mkdir()
    network = local.up(directory / "network", parties, bound_to_us=True)
    try:
        made = Running(network, files)
        made.share_small()
        with made.services:
            yield made
    finally:
        processes.stop(network.places)
