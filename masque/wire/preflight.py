"""Finding out why a service cannot be reached, one step after the other.

gRPC says UNAVAILABLE for nearly everything that happens before a call; in particular it cannot
tell a client whose certificate the server refused from a server that died. So `check` makes the
same connection by hand: our certificate, the host's name, the port, TLS, whose certificate
answers, whether ours is accepted; and finally asks for the service's health.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masque.errors import IdentityError, MasqueError, Unavailable
from masque.wire.certificates import certificate_identity, private_pem, read_der, verify
from masque.wire.failures import translate
from masque.wire.identity import Identity
from masque.wire.server import split_address
from masque.wire.symptoms import connection_error
from masque.wire.tls import Credentials, open_channel

PATIENCE = 3.0
"""Seconds that each step may take."""


class _Connection(ssl.SSLSocket):
    """TLS whose socket is closed also when the peer is gone before it begins.

    Python looks for the peer first, and leaves the socket open when there is none any more.
    """

    def getpeername(self) -> Any:
        try:
            return super().getpeername()
        except OSError as error:
            self.close()
            gone = errno.ECONNRESET
            raise ConnectionResetError(gone, os.strerror(gone)) from error


def check(
    address: str, expected: Identity, credentials: Credentials, *, patience: float = PATIENCE
) -> bool:
    """Reach the service `expected` at `address` (`host:port`); returns whether it is serving.

    Raises `IdentityError` or `Unavailable`, saying at which step it ended, and why.
    """
    check_connection(address, expected, credentials, patience=patience)
    with open_channel(address, expected, credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=patience)
        except grpc.RpcError as error:
            raise translate(error, service=expected, address=address) from error
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def explain(
    error: grpc.RpcError, address: str, expected: Identity, credentials: Credentials
) -> MasqueError:
    """Like `failures.translate`, with another look at a connection that failed without reason."""
    translated = translate(error, service=expected, address=address)
    if type(translated) is not Unavailable or translated.where.get("details") is None:
        return translated
    try:
        check_connection(address, expected, credentials)
    except MasqueError as found:
        return found
    return translated


def check_connection(
    address: str, expected: Identity, credentials: Credentials, *, patience: float = PATIENCE
) -> x509.Certificate:
    """The steps of `check` up to the TLS connection; raises like it.

    Returns the certificate that answered, which is verified and not revoked.
    """
    credentials = credentials.renewed()
    verify(credentials.certificate, credentials.trust)
    host, port = split_address(address)
    try:
        with socket.create_connection((host, port), timeout=patience) as plain:
            seen = _check_tls(plain, credentials, expected, address)
    except ssl.SSLCertVerificationError as error:
        raise _doubtful(error, address, expected, patience) from error
    except OSError as error:
        raise _broken(error, address, expected) from error
    try:
        verify(seen, credentials.trust, role=expected.role, name=expected.name)
    except IdentityError as error:
        error.where |= {"service": str(expected), "address": address}
        raise
    return seen


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _Connection
    return context


def _check_tls(
    plain: socket.socket, credentials: Credentials, expected: Identity, address: str
) -> x509.Certificate:
    context = _context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=credentials.authority_pem.decode())
    context.set_alpn_protocols(["h2"])
    with _memory_file(credentials.certificate_pem + private_pem(credentials.key)) as path:
        context.load_cert_chain(path)
    with context.wrap_socket(plain, server_hostname=expected.server_name) as connection:
        # In TLS 1.3 the server judges our certificate after our side of the handshake is done:
        # its first bytes are HTTP/2 settings, or the alert that says what it holds against us.
        if not connection.recv(9):
            raise Unavailable(
                f"{_capital(expected)} at {address} closed the connection at once.",
                hint="It may not accept our certificate, or be about to stop: see its log.",
                service=str(expected),
                address=address,
            )
        return read_der(connection.getpeercert(True) or b"")


def _doubtful(
    error: ssl.SSLCertVerificationError, address: str, expected: Identity, patience: float
) -> MasqueError:
    """What is wrong with the certificate that answered; if the name, whose it is."""
    details = f"CERTIFICATE_VERIFY_FAILED: {error.verify_message}"
    if "ostname mismatch" not in error.verify_message:
        code = grpc.StatusCode.UNAVAILABLE
        return connection_error(code, details, called=str(expected), address=address)
    found = _who_answers(address, patience)
    return IdentityError(
        f"{_capital(found) if found else 'Another service'} answers at {address}, where "
        f"{expected} was expected.",
        hint="Check the addresses in the profile, and which certificate that service was given.",
        service=str(expected),
        address=address,
    )


def _who_answers(address: str, patience: float) -> Identity | None:
    """The identity that a server claims, unverified: for an error text only."""
    context = _context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(split_address(address), timeout=patience) as plain,
            context.wrap_socket(plain) as connection,
        ):
            certificate = read_der(connection.getpeercert(True) or b"")
            return certificate_identity(certificate)
    except (OSError, ValueError, MasqueError):
        return None


def _broken(error: OSError, address: str, expected: Identity) -> MasqueError:
    at = f"{_capital(expected)} at {address}"
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    if isinstance(error, TimeoutError):
        return Unavailable(
            f"{at} does not answer.",
            hint="Check host and port in the profile, and any firewall between.",
            service=str(expected),
            address=address,
        )
    if isinstance(error, ssl.SSLError) and "ALERT" in str(reason):
        return IdentityError(
            f"{at} does not accept our certificate ({_spoken(str(reason))}).",
            hint="Both sides need valid certificates of one authority: compare authority.pem, "
            "and both clocks.",
            service=str(expected),
            address=address,
        )
    details = f"failed to connect: {reason}"
    if isinstance(error, socket.gaierror):
        details = f"DNS resolution failed: {reason}"
    code = grpc.StatusCode.UNAVAILABLE
    return connection_error(code, details, called=str(expected), address=address)


def _spoken(reason: str) -> str:
    """`TLSV13_ALERT_CERTIFICATE_REQUIRED` as a person would say it."""
    return reason.rpartition("ALERT_")[2].replace("_", " ").lower()


def _capital(identity: Identity) -> str:
    text = str(identity)
    return text[:1].upper() + text[1:]


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """A path with `content` that never touches a disk: Python's ssl reads keys from paths only."""
    descriptor = os.memfd_create("masque", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
