"""Parties as operating-system processes: one is killed, one is stopped, one computes for long."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from masque.errors import JobFailed, MasqueError, Unavailable
from masque.wire.binding import Binding
from masque.wire.exchange import PeerExchange
from masque.wire.tls import find_credentials
from tests.wire.conftest import Project
from tests.wire.parties import NAMES, PROGRAM, SPEC, Ring, Site, start_site

SWAPS = 5
LIMIT = 10.0
"""Seconds within which everybody must know who failed."""


def cyd(directory: Path, pause: float, pipe: Connection) -> None:
    """The third party, a process of its own: a few swaps, then a long pause, then one more."""
    own = start_site(find_credentials(directory))
    pipe.send(own.address)
    addresses = pipe.recv()
    others = [
        Site(own.credentials, _Named(name), None, address)  # type: ignore[arg-type]
        for name, address in addresses.items()
    ]
    names = (*addresses, own.name)
    binding = Binding("job", 1, names, len(names) - 1, SPEC, PROGRAM)
    channels = {other.name: own.channel(other) for other in others}
    with PeerExchange(own.hub, binding, channels, patience=60).open() as exchange:
        for _ in range(SWAPS):
            exchange.swap(b"x" * 100)
        pipe.send("swapped")
        time.sleep(pause)
        exchange.swap(b"y" * 100)
    pipe.send("done")
    pipe.recv()


@dataclass
class _Named:
    name: str


@dataclass
class Away:
    """The process, the line to it, and the parties that stayed."""

    process: Any
    pipe: Any
    ring: Ring

    def run(self, swaps: int) -> tuple[list[Any], list[float]]:
        """Both local parties swap; their results or errors, and when each was done."""
        done: list[float] = []

        def work(index: int, exchange: PeerExchange) -> str:
            try:
                for number in range(swaps):
                    exchange.swap((b"x" if number < SWAPS else b"y") * 100)
            finally:
                done.append(time.monotonic())
            return "done"

        return self.ring.run(work, [0, 1], patience=60.0), done


@pytest.fixture(params=[10.0])
def away(project: Project, request: pytest.FixtureRequest) -> Iterator[Away]:
    credentials = project.credentials("party", "cyd")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    directory = project.root / credentials.identity.stem
    process = context.Process(target=cyd, args=(directory, request.param, theirs))
    process.start()
    theirs.close()
    local = [start_site(project.credentials("party", name)) for name in NAMES[:2]]
    remote = Site(credentials, _Named("cyd"), None, ours.recv())  # type: ignore[arg-type]
    ours.send({site.name: site.address for site in local})
    bindings = [Binding("job", 1, NAMES[:3], index, SPEC, PROGRAM) for index in range(3)]
    yield Away(process, ours, Ring([*local, remote], bindings))
    process.kill()
    process.join()
    for site in local:
        site.hub.close()
        site.server.stop(0).wait()


def strike(away: Away, number: signal.Signals) -> list[float]:
    struck: list[float] = []

    def wait() -> None:
        assert away.pipe.recv() == "swapped"
        time.sleep(0.3)  # the others wait in the next swap
        struck.append(time.monotonic())
        os.kill(away.process.pid, number)

    threading.Thread(target=wait).start()
    return struck


def check_culprit(results: list[Any]) -> None:
    assert any(isinstance(error, Unavailable) for error in results), results
    for error in results:
        assert isinstance(error, Unavailable | JobFailed), error
        assert "arty 'cyd'" in str(error)
        assert error.where["party"] == "cyd"
        assert f"swap {SWAPS}" in str(error)


def test_a_killed_party_is_noticed_at_once_by_everybody(away: Away) -> None:
    struck = strike(away, signal.SIGKILL)
    results, done = away.run(SWAPS + 1)
    check_culprit(results)
    assert max(done) - struck[0] < 3.0


@pytest.mark.slow
@pytest.mark.parametrize("away", [60.0], indirect=True)
def test_a_party_that_hangs_is_noticed_by_everybody(away: Away) -> None:
    """Stopped, its connections stay up: only keepalive can tell."""
    struck = strike(away, signal.SIGSTOP)
    results, done = away.run(SWAPS + 1)
    check_culprit(results)
    assert max(done) - struck[0] < LIMIT + 1.0  # of scheduling


@pytest.mark.slow
@pytest.mark.parametrize("away", [14.0], indirect=True)
def test_a_party_that_computes_for_long_is_not_taken_for_dead(away: Away) -> None:
    """Longer than keepalive allows for an answer, with nobody waiting on its connections."""
    results, _ = away.run(SWAPS + 1)
    assert results == ["done", "done"], [str(error) for error in results]
    assert not any(isinstance(error, MasqueError) for error in results)
    assert away.pipe.recv() == "swapped"
    assert away.pipe.recv() == "done"
