"""Mutual TLS 1.3 between services: who we are, and channels that reach only whom they mean.

**Who answers.** gRPC compares the DNS names of the server's certificate with the name it meant to
reach, never the URI in it. So every certificate carries `<name>.<role>.<project>.masque`, and
`open_channel` tells the handshake to expect exactly that, whatever the address: a channel meant
for party hospital-a cannot be answered by hospital-b, by the coordinator, or by another project.

**Who calls.** Servers demand a certificate of the authority; `masque.wire.authorise` reads the URI
in it.

**Which TLS.** gRPC's Python API has no minimum version. TLS 1.2 is refused twice: importing
`masque.wire` before `grpc` leaves it no usable cipher suite, so that the handshake fails; and
`masque.wire.authorise` refuses every call whose connection is not TLS 1.3.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from masque.errors import IdentityError, MasqueError, NotFound
from masque.wire import CIPHER_SETTING, NO_TLS_1_2
from masque.wire.authority import AUTHORITY_FILE
from masque.wire.certificates import (
    certificate_pem,
    load_authorities,
    load_certificate,
    load_signing_key,
    private_pem,
    public_bytes,
    verify,
)
from masque.wire.identity import Identity
from masque.wire.revocation import LISTS_FILE, Revocations, changed
from masque.wire.tracing import traced
from masque.wire.trust import Trust

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of the largest message either way, unless a channel or server is told otherwise."""

MAX_REPLY = 64 * 1024 * 1024
"""Bytes of the largest reply that a caller takes from the service it meant to reach: lists grow."""

TLS_ENVIRONMENT: Mapping[str, str] = {CIPHER_SETTING: NO_TLS_1_2}
"""What to put into the environment of a process that imports `grpc` before `masque.wire`."""

_log = structlog.get_logger("masque.wire")

Option = tuple[str, str | int]

_BOTH_SIDES: tuple[Option, ...] = (
    ("grpc.max_metadata_size", 32 * 1024),  # errors travel in trailing metadata
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    # A ping after 4 s of silence, answered within 4 s: a dead peer is known within 8 s.
    ("grpc.keepalive_time_ms", 4_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.ping_timeout_ms", 4_000),  # 60 s by default, which overrides the one above
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True)
class Credentials:
    """One identity's certificate and key, and the authority that both sides believe.

    With a `source`, what is renewed on disk is taken up without a restart, also another bundle of
    authorities: by a server at the next connection made to it, by `open_channel` when it opens the
    next channel.
    """

    identity: Identity
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    trust: Trust
    source: CredentialFiles | None = field(default=None, repr=False, compare=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM text."""
        return certificate_pem(self.certificate)

    @property
    def authority_pem(self) -> bytes:
        """The authorities' certificates as PEM text."""
        return self.trust.pem

    def renewed(self) -> Credentials:
        """The credentials now on disk if they were replaced by good ones; otherwise the last."""
        return self if self.source is None else self.source.latest()

    def for_server(self) -> grpc.ServerCredentials:
        """What a gRPC server needs: client certificates of the same authority are required."""
        current = self

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            """Called by gRPC before every handshake; None means: as before."""
            nonlocal current
            before, current = current, current.renewed()
            return None if current is before else current._configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            fetch,  # type: ignore[arg-type]  # the stubs forget the None
            require_client_authentication=True,
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (private_pem(self.key), self.certificate_pem)
        return grpc.ssl_server_certificate_configuration([pair], self.authority_pem)

    def for_channel(self, only: x509.Certificate | None = None) -> grpc.ChannelCredentials:
        """What a gRPC channel needs; with `only`, this very certificate must answer."""
        believed = self.authority_pem if only is None else certificate_pem(only)
        return grpc.ssl_channel_credentials(believed, private_pem(self.key), self.certificate_pem)


class CredentialFiles:
    """Where an identity is loaded from, and the last good state of it. Safe in any thread."""

    def __init__(self, certificate: Path, key: Path, authority: Path) -> None:
        self.certificate, self.key, self.authority = certificate, key, authority
        self._lock = threading.Lock()
        self._good: tuple[object, Credentials] | None = None
        self._refused: object = None

    def load(self, revocations: Revocations, *, at: dt.datetime | None = None) -> Credentials:
        """Read and check the files for the first time; raises as `load_credentials`."""
        state = self._state()
        found = self._read(revocations, at)
        self._good = state, found
        return found

    def latest(self) -> Credentials:
        """What is on disk if it is good and a renewal; otherwise what was good before.

        Certificate and key are two files: while only one of them was replaced they do not belong
        together, and the old pair stays in use until the other follows.
        """
        with self._lock:
            assert self._good is not None, "loaded before"
            (before, last), state = self._good, self._state()
            if state != before:
                try:
                    last = self._renewal(last)
                    self._good = state, last
                except (MasqueError, OSError) as error:
                    if state != self._refused:
                        _log.warning("renewal ignored", error=error)
                    self._refused = state
        last.trust.revocations.refresh(last.trust.authorities)
        return last

    def _renewal(self, last: Credentials) -> Credentials:
        found = self._read(last.trust.revocations)
        old, new = last.trust, found.trust
        shared = set(old.authorities) & set(new.authorities)
        if found.identity != last.identity or not (shared or old.accepts(new.authorities)):
            raise IdentityError(f"{self.certificate} is no renewal of {last.identity.uri}.")
        _log.info("certificate renewed", until=found.certificate.not_valid_after_utc)
        return found

    def _read(self, revocations: Revocations, at: dt.datetime | None = None) -> Credentials:
        leaf = load_certificate(self.certificate)
        signing_key = load_signing_key(self.key)
        waiting = next_key(self.key)
        if public_bytes(leaf) != public_bytes(signing_key) and waiting.exists():
            signing_key = load_signing_key(waiting)  # its certificate is just being installed
        trust = Trust(load_authorities(self.authority), revocations)
        if public_bytes(leaf) != public_bytes(signing_key):
            raise IdentityError(
                f"The key {self.key} does not belong to the certificate {self.certificate}.",
                hint="Restore both files of one issue, or issue again with --replace.",
                file=str(self.key),
            )
        return Credentials(verify(leaf, trust, at=at), leaf, signing_key, trust, self)

    def _state(self) -> object:
        return tuple(changed(path) for path in (self.certificate, self.key, self.authority))


def next_key(key: Path) -> Path:
    """Where the key that is to replace this one waits for its certificate."""
    return key.with_name(f"{key.stem}.next.key")


def load_credentials(
    certificate: Path,
    key: Path,
    authority: Path,
    *,
    revoked: Path | None = None,
    at: dt.datetime | None = None,
) -> Credentials:
    """Load and check an identity's files, so that a bad one is named before anything connects.

    `authority.crl` beside the authority's certificate is what it has revoked; new lists are written
    to `revoked`, by default there. Raises `IdentityError` (expired, foreign, revoked, key of
    another certificate, key readable by others) or `NotFound`. `at` (UTC) is the moment of
    validity, by default now.
    """
    lists = authority.with_name(LISTS_FILE)
    revocations = Revocations(lists, revoked or lists)
    revocations.read(load_authorities(authority))
    return CredentialFiles(certificate, key, authority).load(revocations, at=at)


def find_credentials(
    directory: Path,
    stem: str | None = None,
    *,
    revoked: Path | None = None,
    at: dt.datetime | None = None,
) -> Credentials:
    """Load the identity in `directory`, as `Authority.issue` left it there.

    `stem` is its `<name>.<role>`; without it the directory must hold one certificate only.
    """
    authority = directory / AUTHORITY_FILE
    if stem is None:
        found = sorted(path for path in directory.glob("*.*.pem") if path != authority)
        if len(found) != 1:
            names = ", ".join(path.stem for path in found) or "none"
            raise NotFound(
                f"{directory} should hold one identity; it holds: {names}.",
                hint="Name one, or issue one with `masque pki issue`.",
                directory=str(directory),
            )
        stem = found[0].stem
    certificate, key = directory / f"{stem}.pem", directory / f"{stem}.key"
    return load_credentials(certificate, key, authority, revoked=revoked, at=at)


def channel_options(
    expected: Identity, *, max_message: int = MAX_MESSAGE, max_reply: int = MAX_MESSAGE
) -> list[Option]:
    """The options of a channel to `expected`: its name, its patience, and no proxy."""
    return [
        ("grpc.ssl_target_name_override", expected.server_name),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_send_message_length", max_message),
        ("grpc.max_receive_message_length", max_reply),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 3_000),  # for one attempt to connect
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.use_local_subchannel_pool", 1),  # no other channel's failures and connections
        ("grpc.keepalive_permit_without_calls", 0),
        *_BOTH_SIDES,
    ]


def server_options(*, max_message: int = MAX_MESSAGE) -> list[Option]:
    """The options of a server: one owner of a port, and clients' pings welcome."""
    return [
        ("grpc.so_reuseport", 0),  # otherwise two servers share a port in silence
        ("grpc.max_send_message_length", MAX_REPLY),
        ("grpc.max_receive_message_length", max_message),
        ("grpc.max_concurrent_streams", 256),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 2_000),
        ("grpc.http2.max_ping_strikes", 0),
        *_BOTH_SIDES,
    ]


def open_channel(
    address: str,
    expected: Identity,
    credentials: Credentials,
    *,
    max_message: int = MAX_MESSAGE,
) -> grpc.Channel:
    """A channel to the service `expected` at `address` (`host:port`).

    It connects when first used. If another identity answers, the handshake fails. Close it, or use
    it in a `with` statement.
    """
    options = channel_options(expected, max_message=max_message, max_reply=MAX_REPLY)
    channel = grpc.secure_channel(address, credentials.renewed().for_channel(), options=options)
    return traced(channel)
