from __future__ import annotations

import datetime as dt
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from masque.errors import IdentityError, MasqueError, Refused, Unavailable
from masque.wire.identity import Identity, Role
from masque.wire.preflight import check, explain
from masque.wire.tls import Credentials, find_credentials
from tests.wire.conftest import ECHO, REFUSE, Project, Running, run_service, unary
from tests.wire.test_server import http_server


def reason(address: str, expected: Identity, credentials: Credentials) -> MasqueError:
    with pytest.raises(MasqueError) as caught:
        check(address, expected, credentials, patience=2)
    assert caught.value.hint
    return caught.value


def test_health_of_what_can_be_reached(running: Running, project: Project) -> None:
    client = project.credentials("client", "analyst")
    assert not check(running.server.address, running.server.identity, client)
    running.server.ready()
    assert check(running.server.address, running.server.identity, client)


def test_who_answers_instead(running: Running, project: Project) -> None:
    dealer = Identity("demo", Role.DEALER, "dealer")
    error = reason(running.server.address, dealer, project.credentials("party", "b"))
    assert isinstance(error, IdentityError)
    assert str(error).startswith(f"Party 'a' answers at {running.server.address}, where dealer")


def test_certificates(running: Running, project: Project, foreign: Project, tmp_path: Path) -> None:
    address, server = running.server.address, running.server.identity
    stranger = foreign.credentials("party", "b")
    assert "issued by another authority" in str(reason(address, server, stranger))
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=400)
    project.authority.issue(Identity("demo", Role.PARTY, "b"), tmp_path / "b", now=past)
    old = find_credentials(tmp_path / "b", at=past)
    assert "certificate of party 'b' expired at" in str(reason(address, server, old))
    project.authority.issue(Identity("demo", Role.PARTY, "c"), tmp_path / "c", now=past)
    party = project.credentials("party", "b")
    for stale in run_service(project, find_credentials(tmp_path / "c", at=past)):
        error = reason(stale.server.address, stale.server.identity, party)
        assert isinstance(error, IdentityError)
        assert "certificate of party 'c'" in str(error) and "has expired" in str(error)


def test_a_server_of_another_authority_that_has_our_name(
    project: Project, foreign: Project
) -> None:
    """Its certificate is checked against ours: it is refused, and learns nothing."""
    for impostor in run_service(foreign, foreign.credentials("party", "a")):
        error = reason(
            impostor.server.address,
            impostor.server.identity,
            project.credentials("party", "b"),
        )
        assert isinstance(error, IdentityError) and "another authority" in str(error)


@contextmanager
def refusing_server(ours: Credentials, directory: Path, believed: bytes) -> Iterator[str]:
    """A TLS server with a certificate that we accept, which accepts another authority only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=believed.decode())
    stem = directory / ours.identity.stem
    context.load_cert_chain(f"{stem}.pem", f"{stem}.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with (
            connection,
            suppress(OSError),
            context.wrap_socket(connection, server_side=True) as tls,
        ):
            tls.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join()
        listener.close()


def test_our_certificate_refused(project: Project, foreign: Project) -> None:
    server = project.credentials("party", "a")
    believed = foreign.credentials("party", "x").authority_pem
    directory = project.root / server.identity.stem
    with refusing_server(server, directory, believed) as address:
        error = reason(address, server.identity, project.credentials("party", "b"))
    assert isinstance(error, IdentityError)
    assert str(error).startswith(f"Party 'a' at {address} does not accept our certificate (unknown")


def test_explain_looks_again(running: Running, project: Project, foreign: Project) -> None:
    """gRPC cannot tell a refused certificate from a dead server; a second look can."""
    stranger = foreign.credentials("party", "b")
    trust = project.credentials("party", "b").trust
    liar = Credentials(stranger.identity, stranger.certificate, stranger.key, trust)
    with running.channel(liar) as channel, pytest.raises(grpc.RpcError) as caught:
        unary(channel, ECHO)
    server = running.server
    error = explain(caught.value, server.address, server.identity, liar)
    assert isinstance(error, IdentityError) and "not issued by this authority" in str(error)
    with (
        running.channel(project.credentials("party", "b")) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        unary(channel, REFUSE)
    good = project.credentials("party", "b")
    assert type(explain(caught.value, server.address, server.identity, good)) is Refused


def test_nothing_and_nonsense(project: Project) -> None:
    party, dealer = project.credentials("party", "b"), Identity("demo", Role.DEALER, "dealer")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        error = reason(address, dealer, party)
        assert isinstance(error, Unavailable) and "does not answer" in str(error)
    error = reason(address, dealer, party)
    assert isinstance(error, Unavailable) and "nothing listens there" in str(error)
    with http_server() as address:
        error = reason(address, dealer, party)
        assert isinstance(error, Unavailable) and "does not speak TLS" in str(error)
    error = reason("no-such-host.invalid:7000", dealer, party)
    assert isinstance(error, Unavailable) and "host name has no address" in str(error)


def test_a_peer_that_leaves_before_tls_begins_leaves_no_socket_open(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    connect = socket.create_connection

    def reset_by_peer(address: tuple[str, int], timeout: float) -> socket.socket:
        with socket.create_server(address) as server:
            plain = connect(server.getsockname(), timeout)
            connection, _ = server.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        opened.append(plain.fileno())
        return plain

    monkeypatch.setattr(socket, "create_connection", reset_by_peer)
    expected = Identity("demo", Role.PARTY, "a")
    with pytest.raises(Unavailable) as caught:
        check("127.0.0.1:0", expected, project.credentials("party", "b"))
    assert "Party 'a' at 127.0.0.1:0" in str(caught.value)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
