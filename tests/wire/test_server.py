from __future__ import annotations

import datetime as dt
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masque.errors import (
    Conflict,
    IdentityError,
    InputError,
    MasqueError,
    ProtocolError,
    Refused,
    Unavailable,
)
from masque.wire.failures import translate, translated
from masque.wire.identity import Identity, Role
from masque.wire.server import Server, split_address
from masque.wire.tls import Credentials, find_credentials, open_channel
from tests.wire.conftest import (
    CRASH,
    ECHO,
    LONG,
    REFUSE,
    SECRET,
    SLEEP,
    STREAM,
    UNLISTED,
    WHO,
    Project,
    Running,
    run_service,
    unary,
)


def failure(running: Running, channel: grpc.Channel, method: str = ECHO) -> MasqueError:
    """What a call over `channel` fails with, as a user would see it; nothing reached a handler."""
    before = len(running.service.calls)
    with channel, pytest.raises(grpc.RpcError) as caught:
        unary(channel, method)
    assert len(running.service.calls) == before
    error = translate(caught.value, service=running.server.identity, address=running.server.address)
    assert SECRET.decode("latin1") not in str(error) and "secret-share" not in str(error)
    return error


def still_serves(running: Running) -> None:
    assert running.call(ECHO, b"still") == b"still"


def test_a_good_client_is_served_and_known(running: Running) -> None:
    assert running.call(ECHO, b"x") == b"x"
    assert running.call(WHO, role="client", name="analyst") == b"masque://demo/client/analyst"


def test_without_a_certificate(running: Running, project: Project) -> None:
    good = project.credentials("party", "b")
    channel = grpc.secure_channel(
        running.server.address,
        grpc.ssl_channel_credentials(good.authority_pem),
        options=[("grpc.ssl_target_name_override", running.server.identity.server_name)],
    )
    assert isinstance(failure(running, channel), Unavailable)
    still_serves(running)


def test_of_a_foreign_authority(running: Running, project: Project, foreign: Project) -> None:
    stranger = foreign.credentials("party", "b")
    error = failure(running, running.channel(stranger))
    assert isinstance(error, IdentityError) and "another authority" in str(error)
    # A stranger who knows our authority's certificate and believes it
    ours = project.credentials("party", "b").trust
    liar = Credentials(stranger.identity, stranger.certificate, stranger.key, ours)
    error = failure(running, running.channel(liar))
    # Its handshake is over before ours is refused: on a busy machine gRPC has lost the reason,
    # which `preflight.explain` then finds out (see test_preflight).
    assert isinstance(error, Unavailable) and str(error).startswith("Party 'a' at ")
    still_serves(running)


def test_expired(running: Running, project: Project, tmp_path: Path) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=400)
    for name in ("a", "b"):
        identity = Identity("demo", Role.PARTY, name)
        project.authority.issue(identity, tmp_path / name, now=past)
    client = find_credentials(tmp_path / "b", at=past)
    assert isinstance(failure(running, running.channel(client)), Unavailable)
    still_serves(running)
    server = find_credentials(tmp_path / "a", at=past)
    for stale in run_service(project, server):
        error = failure(stale, stale.channel(project.credentials("party", "b")))
        assert isinstance(error, IdentityError)
        assert str(error).startswith("The certificate of party 'a' at 127.0.0.1:")
        assert "has expired" in str(error)


def test_wrong_role_and_unlisted_method(running: Running, project: Project) -> None:
    error = failure(running, running.channel(project.credentials("client", "analyst")))
    assert isinstance(error, IdentityError)
    assert "client 'analyst' may not call /test.Echo/Echo" in str(error)
    assert "serves the role coordinator or party" in str(error)
    party = project.credentials("party", "b")
    error = failure(running, running.channel(party), UNLISTED)
    assert isinstance(error, IdentityError) and "open to nobody" in str(error)
    error = failure(running, running.channel(party), "/no.Such/Method")
    assert isinstance(error, ProtocolError) and "does not know this call" in str(error)


def test_a_channel_reaches_only_whom_it_means(running: Running, project: Project) -> None:
    party = project.credentials("party", "b")
    for expected in (
        Identity("demo", Role.PARTY, "c"),
        Identity("demo", Role.DEALER, "a"),
        Identity("other", Role.PARTY, "a"),
    ):
        error = failure(running, running.channel(party, expected=expected))
        assert isinstance(error, IdentityError)
        assert "Another service answers" in str(error)


def test_plain_text_and_http(running: Running) -> None:
    with grpc.insecure_channel(running.server.address) as channel:
        assert isinstance(failure(running, channel), Unavailable)
    host, port = split_address(running.server.address)
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.settimeout(5)
        assert b"200" not in connection.recv(1000)
    still_serves(running)


@contextmanager
def http_server() -> Iterator[str]:
    """Something else that listens where a service was expected."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def answer() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # whoever called may have left at any moment
                connection.settimeout(5)
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):  # closing with bytes unread would reset what was sent
                    pass

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_services_that_are_none(project: Project) -> None:
    party, expected = project.credentials("party", "b"), Identity("demo", Role.DEALER, "dealer")
    with http_server() as address, open_channel(address, expected, party) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, ECHO)
        error = translate(caught.value, service=expected, address=address)
        assert isinstance(error, Unavailable)
        assert f"dealer 'dealer' at {address} does not speak TLS" in str(error)
    with socket.socket() as taken:  # bound, so that nobody else takes the port, but not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        nothing_listens(address, expected, party)


def nothing_listens(address: str, expected: Identity, party: Credentials) -> None:
    with open_channel(address, expected, party) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, ECHO)
        error = translate(caught.value, service=expected, address=address)
        assert isinstance(error, Unavailable) and "nothing listens there" in str(error)
        assert error.where["service"] == "dealer 'dealer'"


def test_errors_arrive_as_they_left(running: Running, project: Project) -> None:
    party = project.credentials("party", "b")
    error = failure(running, running.channel(party), REFUSE)
    assert type(error) is Refused
    assert (error.message, error.hint) == ("The policy says no.", "Ask its owner.")
    assert re.fullmatch("[0-9a-f]{32}", str(error.where.pop("request")))
    assert error.where == {"field": "epochs", "service": "party 'a'"}
    with running.channel(party) as channel:
        call = channel.stream_stream(STREAM, bytes, bytes)(iter([b"1", b"refuse", b"2"]), timeout=5)
        received: list[bytes] = []
        with pytest.raises(Refused, match="policy says no"):
            received.extend(translated(call, running.server.identity))
        assert received == [b"1"]
        still_serves(running)


def test_the_longest_error_arrives(running: Running, project: Project) -> None:
    error = failure(running, running.channel(project.credentials("party", "b")), LONG)
    assert type(error) is Refused
    assert len(error.message) == 1_500 and error.message.startswith("\N{SNOWMAN}")


def test_accidents_become_incidents(running: Running, project: Project) -> None:
    party = project.credentials("party", "b")
    error = failure(running, running.channel(party), CRASH)
    assert type(error) is MasqueError and "incident" in str(error)
    assert "unexpected" not in str(error) and "unexpected" not in json.dumps(error.where)
    still_serves(running)


def test_too_late_is_unavailable(running: Running, project: Project) -> None:
    with running.channel(project.credentials("party", "b")) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, SLEEP, b"1", timeout=0.3)
        error = translate(caught.value, service=running.server.identity, address="here:1")
        assert isinstance(error, Unavailable)
        assert str(error).startswith("Party 'a' at here:1 did not answer in time.")


def test_health_tells_the_truth(running: Running, project: Project) -> None:
    def status() -> int:
        with running.channel(project.credentials("client", "analyst")) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            return int(answer.status)

    assert status() == health_pb2.HealthCheckResponse.NOT_SERVING
    running.server.ready()
    assert status() == health_pb2.HealthCheckResponse.SERVING
    running.server.ready(False)
    assert status() == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_port_in_use(running: Running, project: Project) -> None:
    with pytest.raises(Conflict, match=rf"Port {running.server.port} .* in use") as caught:
        Server(project.credentials("party", "b"), running.server.address, {}, [])
    assert "choose another port" in caught.value.hint
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(Conflict):
        Server(project.credentials("party", "b"), f"127.0.0.1:{other.getsockname()[1]}", {}, [])
    with pytest.raises(InputError, match=r"Cannot listen at 192\.0\.2\.1"):
        Server(project.credentials("party", "b"), "192.0.2.1:7000", {}, [])


@pytest.mark.parametrize("address", ["", "7000", "host:", ":1", "host:x", "host:99999"])
def test_addresses(address: str) -> None:
    with pytest.raises(InputError, match="not an address"):
        split_address(address)
    assert split_address("[::1]:7000") == ("::1", 7000)


def test_a_stop_lets_running_calls_finish(running: Running, project: Project) -> None:
    with running.channel(project.credentials("party", "b")) as channel:
        future = channel.unary_unary(SLEEP, bytes, bytes).future(b"0.4", timeout=5)
        until = time.monotonic() + 5
        while "sleep" not in running.service.calls and time.monotonic() < until:
            time.sleep(0.01)
        running.server.stop(grace=3)
        assert future.result() == b"0.4"
        with pytest.raises(grpc.RpcError):
            unary(channel, ECHO, timeout=1)


def test_a_stop_is_announced_once(project: Project) -> None:
    announced: list[str] = []
    for running in run_service(project, project.credentials("party", "a")):
        running.server.on_stop(lambda: announced.append("stop"))
        running.server.stop()
        assert announced == ["stop"]
    assert announced == ["stop"]
