"""A network of real processes that somebody can kill, suspend and start again, and jobs for it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import yaml
from numpy.typing import NDArray

from masque.client import jobs, local_files, opening, processes
from masque.client.local_files import Network
from masque.client.ports import free_ports
from masque.data.encode import from_fixed
from masque.data.kept import KeptModels
from masque.data.keys import load_key
from masque.errors import MasqueError, passing
from masque.jobs import spec
from masque.mpc import sharing
from masque.mpc.types import Ring
from masque.wire.outputs import decode_output
from tests.client.networks import Running

Outputs = Mapping[str, NDArray[np.float64]]

_HEAD = "name: small\ndata: {rows: [left, right], label: y, holdout: 0.2, standardize: true}\n"
_TAIL = "reveal: {metrics: [accuracy], to: [analyst]}\nmodel_output: {sealed_to: [analyst]}\n"
_SGD = "optimizer: {kind: sgd, learning_rate: 0.3, momentum: 0.8}"

KINDS: dict[str, tuple[str, float]] = {
    "logistic": (
        f"{_HEAD}model: {{kind: logistic_regression}}\n"
        f"training: {{epochs: EPOCHS, batch_size: 16, {_SGD}}}\n{_TAIL}",
        5e-4,
    ),
    "stopping": (
        f"{_HEAD}model: {{kind: logistic_regression}}\n"
        f"training: {{epochs: EPOCHS, batch_size: 16, {_SGD},"
        " early_stop: {metric: log_loss, patience: HALF, min_delta: 10, validation: 0.1}}\n"
        f"{_TAIL}",
        5e-4,
    ),
    "network": (
        f"{_HEAD}model: {{kind: sequential, layers: [{{kind: dense, units: 4}}, {{kind: relu}},"
        " {kind: dense, units: 1}]}\n"
        "training: {epochs: EPOCHS, batch_size: 24,"
        f" optimizer: {{kind: adam, learning_rate: 0.01}}}}\n{_TAIL}",
        2e-3,
    ),
    "kept": (
        f"{_HEAD}model: {{kind: logistic_regression}}\n"
        f"training: {{epochs: EPOCHS, batch_size: 16, {_SGD}}}\n"
        "reveal: {metrics: [accuracy], to: [analyst]}\nmodel_output: {keep_shares: NAME}\n",
        5e-4,
    ),
    "open": (
        f"{_HEAD}model: {{kind: logistic_regression}}\n"
        f"training: {{epochs: EPOCHS, batch_size: 16, {_SGD}}}\n"
        "reveal: {metrics: [accuracy], to: [analyst]}\nmodel_output: {open_to_all: true}\n",
        5e-4,
    ),
}
"""Jobs, and how far the model of a resumed one may be from that of an uninterrupted one."""


def text_of(kind: str, epochs: int, name: str = "model") -> str:
    """The job file of a kind; one that can stop early does so after a half of its epochs."""
    text = KINDS[kind][0].replace("EPOCHS", str(epochs)).replace("NAME", name)
    return text.replace("HALF", str(max(1, epochs // 2)))


@dataclass
class Village:
    """`net` with hands that kill and revive."""

    net: Running

    @property
    def names(self) -> list[str]:
        """Every service."""
        return [place.name for place in self.net.network.places]

    def submit(self, kind: str, epochs: int, persist: Callable[[], bool] = lambda: False) -> str:
        """A job of a kind; returns its id. Tried again while services are away, if we `persist`."""
        job_id = jobs.new_id(kind)
        text = text_of(kind, epochs, job_id)
        while True:
            try:
                return jobs.submit(self.net.services, text, spec.parse(text), job_id)
            except MasqueError as error:
                if not (passing(error) and persist()):
                    raise
            time.sleep(0.2)

    def outputs(self, job_id: str) -> Outputs:
        """What has come of a job: fetched and opened, or joined from what the parties keep."""
        return {**opening.fetch(self.net.services, job_id).values, **self._kept(job_id)}

    def _kept(self, job_id: str) -> Outputs:
        """Nobody but a test on the machine of all parties can see this."""
        shares: dict[str, list[Ring]] = {}
        scales: dict[str, int] = {}
        for party in self.net.network.party_names:
            folder = self.file(party, "kept")
            kept = KeptModels(folder, load_key(self.file(party, "key"), create_if_missing=False))
            for path in (folder / job_id).glob("*.share"):
                name = unquote(path.stem)
                share, scales[name] = decode_output(kept.share(job_id, name), party)
                shares.setdefault(name, []).append(share)
        return {
            name: from_fixed(sharing.join(parts), scales[name]) for name, parts in shares.items()
        }

    def kill(self, names: list[str], number: signal.Signals = signal.SIGKILL) -> list[str]:
        """Those that run; who was hit."""
        hit = []
        for name in names:
            pid = processes.pid_of(self.net.place(name))
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    hit.append(name)
                if number == signal.SIGKILL:
                    processes._children.pop(pid).wait()
        return hit

    def start(self, names: list[str]) -> None:
        """Begin to start them; what runs of them is killed before."""
        self.kill(names)
        for name in names:
            processes.start(self.net.place(name), bound_to_us=True)

    def await_ready(self) -> None:
        """Until all serve."""
        end = time.monotonic() + 120
        for name in self.names:
            while not self.net.place(name).ready.exists():
                assert time.monotonic() < end, f"{name} does not come up"
                time.sleep(0.02)

    def states(self) -> list[jobs.JobView] | None:
        """How the latest jobs are, if the coordinator answers."""
        try:
            return jobs.listed(self.net.services, limit=40)
        except MasqueError:
            return None

    def state(self, job_id: str) -> jobs.JobView | None:
        """How a job is, if the coordinator answers and it is one of the latest."""
        return next((view for view in self.states() or () if view.job_id == job_id), None)

    def ended(
        self, job_id: str, patience: float = 240.0, persist: Callable[[], bool] = lambda: False
    ) -> jobs.JobView:
        """The job once it has ended; AssertionError if it has not in time, of which that counts
        during which we do not `persist`.
        """
        end = time.monotonic() + patience
        while True:
            view = self.state(job_id)
            if view is not None and view.ended:
                return view
            if persist():
                end = time.monotonic() + patience
            assert time.monotonic() < end, f"{job_id} does not end: {view}"
            time.sleep(0.1)

    def file(self, party: str, *parts: str) -> Path:
        """A place in a party's data."""
        return self.net.network.home.joinpath(party, "data", *parts)


Settings = Mapping[str, Mapping[str, object]]
"""What is said in the files of services beside what every network has, by their role."""


@contextlib.contextmanager
def village(
    directory: Path, parties: int = 2, settings: Settings | None = None
) -> Iterator[Village]:
    """A network with the data sets `left` and `right`, stopped at the end."""
    network, files = Network(directory / "network", parties), directory / "files"
    files.mkdir()
    ports = free_ports(len(network.places))
    local_files.write(network, [f"127.0.0.1:{port}" for port in ports])
    for place in network.places:
        more = (settings or {}).get(place.role, {})
        content = yaml.safe_load(place.config.read_text()) | dict(more)
        place.config.write_text(yaml.safe_dump(content))
    try:
        started = [processes.start(place, bound_to_us=True) for place in network.places]
        processes.wait_until_ready(network.places, started)
        made = Village(Running(network, files))
        made.net.share_small()
        with made.net.services:
            yield made
    finally:
        processes.stop(network.places)


def until(true: Callable[[], bool], patience: float, tick: float = 0.05) -> bool:
    """Wait for something, and look every `tick` seconds; whether it came."""
    end = time.monotonic() + patience
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(tick)
    return True
