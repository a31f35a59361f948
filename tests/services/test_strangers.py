"""Port scans, HTTP, nonsense and silence at the ports of all services, while a job runs."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from masque.client import jobs, local
from tests.client.networks import Running, running
from tests.waiting import until

MANY = 150
"""Connections of each kind, to each service."""

EPOCHS = 150
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SCANS = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http2": PREFACE + bytes(9),
    "nonsense": os.urandom(4096),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half": b"\x16\x03\x01\x02\x00\x01",
}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("strangers")) as made:
        yield made


def addresses(net: Running) -> dict[str, tuple[str, int]]:
    return {
        peer.name: ("127.0.0.1", int(peer.address.rpartition(":")[2]))
        for peer in net.services.everybody
    }


def knock(address: tuple[str, int], message: bytes) -> None:
    """Connect, say something, listen a moment, leave."""
    with suppress(OSError), socket.create_connection(address, timeout=5) as connection:
        connection.sendall(message)
        connection.settimeout(0.02)
        answer = connection.recv(4096)
        assert b"200" not in answer


def greet(address: tuple[str, int]) -> None:
    """TLS without a certificate, and without saying which protocol is spoken in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        suppress(OSError),
        socket.create_connection(address, timeout=5) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.settimeout(0.02)
        connection.recv(10)


def scan(address: tuple[str, int]) -> None:
    for message in SCANS.values():
        for _ in range(MANY // 5):
            knock(address, message)
    for _ in range(MANY // 5):
        greet(address)


def test_strangers_are_no_trouble(net: Running) -> None:
    """Services stay healthy, give back what strangers took, and say little; the job succeeds."""
    jobs.finished(net.services, net.submit())
    processes = {name: psutil.Process(net.pid(name)) for name in addresses(net)}
    before = {name: (process.num_fds(), size(process)) for name, process in processes.items()}
    lines = {name: said(net, name) for name in processes}
    job_id = net.submit(EPOCHS)
    net.until_training(job_id)
    with ThreadPoolExecutor(len(processes)) as pool:
        list(pool.map(scan, addresses(net).values()))
    with ExitStack() as silent:
        for address in addresses(net).values():
            for _ in range(MANY):
                silent.enter_context(socket.create_connection(address, timeout=5))
        until(
            lambda: all(p.num_fds() > before[name][0] + MANY // 2 for name, p in processes.items()),
            "the silent ones are not let in",
        )
        assert jobs.finished(net.services, job_id).state == "succeeded"
        assert [health.state for health in local.status(net.network.home)] == ["serving"] * 4
        until(
            lambda: all(p.num_fds() < before[name][0] + 40 for name, p in processes.items()),
            "silent connections are kept",
        )
    assert jobs.finished(net.services, net.submit()).state == "succeeded"
    for name, process in processes.items():
        grown = size(process) - before[name][1]
        assert grown < 64 << 20, f"{name} holds {grown} bytes more"
        assert said(net, name) - lines[name] < 4 * EPOCHS + 200, f"{name} was made to talk"
        text = net.place(name).log.read_text()
        assert "Traceback" not in text and "incident" not in text
        assert all(line.startswith("{") for line in text.splitlines()), "gRPC speaks for itself"


def size(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def said(net: Running, name: str) -> int:
    log: Path = net.place(name).log
    return log.read_text(errors="replace").count("\n")
