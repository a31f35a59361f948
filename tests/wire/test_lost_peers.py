"""A peer that dies, hangs or is told to stop: the other side knows within ten seconds."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Iterator

import pytest

from masque.errors import Unavailable
from masque.wire.failures import translated
from masque.wire.tls import open_channel
from tests.wire.conftest import ECHO, STREAM, Project, unary
from tests.wire.processes import service_process


def seconds_to_notice(project: Project, number: signal.Signals) -> tuple[float, Unavailable]:
    """How long an open stream takes to fail after its server got a signal, and with what."""
    server, party = project.credentials("party", "a"), project.credentials("party", "b")
    requests: queue.Queue[bytes | None] = queue.Queue()
    with (
        service_process(project.root / server.identity.stem) as service,
        open_channel(service.address, server.identity, party) as channel,
    ):
        requests.put(b"hello")
        call = channel.stream_stream(STREAM, bytes, bytes)(iter(requests.get, None), timeout=60)
        answers: Iterator[bytes] = translated(call, server.identity, service.address)
        assert next(answers) == b"hello"
        os.kill(service.process.pid, number)
        start = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            next(answers)
        seconds = time.monotonic() - start
        requests.put(None)
        if number == signal.SIGTERM:  # let it end by itself: the fixture would tell it again
            service.process.wait(timeout=20)
        return seconds, caught.value


@pytest.mark.slow
def test_a_hanging_peer(project: Project) -> None:
    seconds, error = seconds_to_notice(project, signal.SIGSTOP)
    assert seconds < 10
    assert "Party 'a' at 127.0.0.1:" in str(error) and "stopped answering" in str(error)


def test_a_killed_peer(project: Project) -> None:
    seconds, error = seconds_to_notice(project, signal.SIGKILL)
    assert seconds < 3
    assert "party 'a'" in str(error).lower()


def test_a_peer_told_to_stop(project: Project) -> None:
    """Streams get the grace they were promised, then end."""
    seconds, _ = seconds_to_notice(project, signal.SIGTERM)
    assert seconds < 8


def test_a_peer_that_comes_back(project: Project) -> None:
    """The same channel finds a service again after its restart on the same port."""
    server, party = project.credentials("party", "a"), project.credentials("party", "b")
    directory = project.root / server.identity.stem
    with service_process(directory) as service:
        address = service.address
        channel = open_channel(address, server.identity, party)
        assert unary(channel, ECHO) == b"hello"
    with channel, service_process(directory, address=address):
        reply = channel.unary_unary(ECHO, bytes, bytes)
        assert reply(b"again", timeout=5, wait_for_ready=True) == b"again"
