"""TLS 1.2 is refused twice: in the handshake, and by the guard if the handshake let it through."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from masque.errors import IdentityError
from masque.wire.authorise import identify
from masque.wire.identity import Identity, Role
from masque.wire.server import split_address
from masque.wire.tls import TLS_ENVIRONMENT, Credentials, open_channel
from tests.wire.conftest import PROJECT, WHO, Project, unary
from tests.wire.processes import service_process


def tls_connection(
    address: str, directory: Path, identity: Identity, version: ssl.TLSVersion
) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(directory / "authority.pem")
    stem = directory / identity.stem
    context.load_cert_chain(f"{stem}.pem", f"{stem}.key")
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(split_address(address), timeout=5)
    return context.wrap_socket(plain, server_hostname="localhost")


def http2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def raw_call(connection: ssl.SSLSocket, method: str) -> bytes:
    """A gRPC call written by hand in HTTP/2 frames; the raw answer until the stream ends."""
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )
    connection.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + http2_frame(4, 0, 0)
        + http2_frame(1, 0x4, 1, block)
        + http2_frame(0, 0x1, 1, b"\x00" + (5).to_bytes(4, "big") + b"hello")
    )
    answer = b""
    connection.settimeout(3)
    try:
        while part := connection.recv(65536):
            answer += part
            if b"grpc-status" in answer:
                break
    except TimeoutError:
        pass
    return answer


@pytest.fixture
def party(project: Project) -> tuple[Credentials, Path]:
    credentials = project.credentials("party", "b")
    return credentials, project.root / credentials.identity.stem


@pytest.mark.parametrize(
    ("imports", "extra"),
    [("import masque.wire", {}), ("import grpc", dict(TLS_ENVIRONMENT))],
    ids=["imported-first", "by-environment"],
)
def test_the_handshake_refuses_tls_1_2(
    project: Project, party: tuple[Credentials, Path], imports: str, extra: dict[str, str]
) -> None:
    credentials, directory = party
    server = project.credentials("party", "a").identity
    with service_process(project.root / server.stem, imports, **extra) as service:
        with pytest.raises(OSError, match=r"EOF|reset|alert|handshake"):
            tls_connection(service.address, directory, credentials.identity, ssl.TLSVersion.TLSv1_2)
        with tls_connection(
            service.address, directory, credentials.identity, ssl.TLSVersion.TLSv1_3
        ) as connection:
            assert connection.version() == "TLSv1.3"
            assert credentials.identity.uri.encode() in raw_call(connection, WHO)
        with open_channel(service.address, server, credentials) as channel:
            assert unary(channel, WHO) == credentials.identity.uri.encode()


def test_the_guard_refuses_what_the_handshake_let_through(
    project: Project, party: tuple[Credentials, Path]
) -> None:
    credentials, directory = party
    server = project.credentials("party", "a").identity
    with service_process(project.root / server.stem, "import grpc") as service:
        with tls_connection(
            service.address, directory, credentials.identity, ssl.TLSVersion.TLSv1_2
        ) as connection:
            assert connection.version() == "TLSv1.2"
            answer = raw_call(connection, WHO)
        assert b"TLSv1.3 only" in answer and credentials.identity.uri.encode() not in answer


def test_the_guard_needs_exactly_one_identity() -> None:
    tls = {"ssl_tls_version": [b"TLSv1.3"]}
    one = Identity(PROJECT, Role.PARTY, "a").uri.encode()
    assert identify({**tls, "peer_uri": [b"https://x", one]}).uri == one.decode()
    for properties in (
        {},
        tls,
        {"peer_uri": [one]},
        {"ssl_tls_version": [b"TLSv1.2"], "peer_uri": [one]},
        {**tls, "peer_uri": [one, one]},
        {**tls, "peer_uri": [b"masque://demo/party"]},
    ):
        with pytest.raises(IdentityError):
            identify(properties)
