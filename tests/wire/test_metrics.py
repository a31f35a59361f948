"""The port that Prometheus asks: what it answers, and what it does not."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from masque.errors import Conflict, InputError
from masque.wire import metrics
from masque.wire.metrics import MOST_SCRAPES, Metric, MetricsServer, by, counter, gauge, renderer

PATIENCE = 60.0


def source() -> Iterator[Metric]:
    yield counter("masque_rounds_total", "Rounds.", 3)
    yield gauge("masque_stock_bytes", "Stock.", 2**40)
    yield Metric("masque_sent_bytes_total", "counter", "Sent.", **by("peer", {"b": 1, "c": 2}))


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with MetricsServer("127.0.0.1:0", renderer([source])) as server:
        yield server


def ask(server: MetricsServer, method: str = "GET", path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection(server.address, timeout=PATIENCE)
    connection.request(method, path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.getheader("Server") == "masque"
    return answer.status, text


def connect(server: MetricsServer) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def test_numbers_in_the_words_of_prometheus(server: MetricsServer) -> None:
    status, text = ask(server)
    assert status == 200
    lines = [line for line in text.splitlines() if "masque_" in line]
    assert lines == [
        "# HELP masque_rounds_total Rounds.",
        "# TYPE masque_rounds_total counter",
        "masque_rounds_total 3.0",
        "# HELP masque_stock_bytes Stock.",
        "# TYPE masque_stock_bytes gauge",
        "masque_stock_bytes 1.099511627776e+12",
        "# HELP masque_sent_bytes_total Sent.",
        "# TYPE masque_sent_bytes_total counter",
        'masque_sent_bytes_total{peer="b"} 1.0',
        'masque_sent_bytes_total{peer="c"} 2.0',
    ]
    assert "process_resident_memory_bytes" in text


def test_nothing_else_is_answered(server: MetricsServer) -> None:
    for path in ("/", "/metrics/", "/../etc/passwd", "/metrics2", "/favicon.ico"):
        assert ask(server, path=path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE"):
        assert ask(server, method)[0] == 501
    with connect(server) as plain:
        plain.sendall(b"\x16\x03\x01 this is TLS, or nonsense\r\n\r\n")
        assert b"400" in plain.recv(1000)


def test_silent_clients_are_hung_up_on_and_take_no_more_than_their_places(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(MOST_SCRAPES)]
        refused = connect(server)
        stack.enter_context(refused)
        assert refused.recv(1) == b"", "all places are taken"
        assert metrics.PATIENCE < PATIENCE
        assert [each.recv(1) for each in silent] == [b""] * MOST_SCRAPES, "silent for too long"
        assert ask_when_there_is_a_place(server) == 200


def ask_when_there_is_a_place(server: MetricsServer) -> int:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return ask(server)[0]
        except (ConnectionError, http.client.HTTPException):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_port_that_cannot_be_had_is_named(server: MetricsServer) -> None:
    with pytest.raises(Conflict, match=rf"metrics.listen, {server.address}, is in use"):
        MetricsServer(server.address, bytes)
    with pytest.raises(InputError, match=r"192\.0\.2\.1:9464"):
        MetricsServer("192.0.2.1:9464", bytes)


def test_a_scrape_that_fails_leaves_the_port_open() -> None:
    failing = iter([RuntimeError("oops")])

    def numbers() -> Iterator[Metric]:
        for error in failing:
            raise error
        yield gauge("masque_fine", "Fine.", 1)

    with MetricsServer("127.0.0.1:0", renderer([numbers])) as server:
        status, text = ask(server)
        assert status == 500 and "oops" not in text
        assert "masque_fine 1.0" in ask(server)[1]
