"""What is looked at of a service that is called: one step after the other, as far as it goes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masque.client.console import size
from masque.client.doctor.findings import Finding, Limits, doubtful, fine, wrong
from masque.client.doctor.subject import Peer
from masque.errors import IdentityError, MasqueError, ProtocolError, Refused, Unavailable
from masque.version import __version__
from masque.wire import preflight
from masque.wire.failures import clean, translating
from masque.wire.host import CALLERS
from masque.wire.measuring import Told, Way, describe, measure
from masque.wire.protocol import protocol_digest
from masque.wire.server import split_address
from masque.wire.tls import Credentials, open_channel

LINK = "link"
PAUSE = 0.3
SAME_VERSION = "Install the same version of Masque at all services and clients."

Answer = TypeVar("Answer")


class Examination:
    """Of one service, in the name of `credentials`; without them it ends where TLS begins.

    `turn` is held while the way is measured, so that measurements do not disturb one another;
    `until` is the moment of `time.monotonic` at which nobody waits any more.
    """

    def __init__(
        self,
        peer: Peer,
        credentials: Credentials | None,
        limits: Limits,
        turn: threading.Lock,
        until: float,
    ) -> None:
        self.peer, self.credentials, self.limits = peer, credentials, limits
        self.turn, self.until = turn, until
        self.about = f"{peer.identity} at {peer.address}"

    def findings(self) -> Iterator[Finding]:
        """As they are made; a step that fails is the last."""
        check = "name"
        try:
            yield self._fine("name", self._name())
            check = "port"
            yield self._fine("port", self._port())
            if self.credentials is None:
                return
            check = "identity"
            yield self._fine("identity", self._identity(self.credentials))
            check = "health"
            with self._channel(self.credentials) as channel:
                yield self._fine("health", self._health(channel))
                check = "version"
                yield from self._told(describe(channel, timeout=self.limits.patience))
                if self.credentials.identity.role in CALLERS[self.peer.identity.role]:
                    check = LINK
                    yield self._link(channel)
        except MasqueError as error:
            yield wrong(self.about, check, error)

    def _fine(self, check: str, says: str) -> Finding:
        return fine(self.about, check, says)

    # -- up to TLS ---------------------------------------------------------------------------------

    def _name(self) -> str:
        host, port = split_address(self.peer.address)
        hint = f"Correct the name {host!r}, or let this machine's DNS or /etc/hosts know it."
        try:
            found = within(
                self.limits.patience,
                lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
            )
        except TimeoutError:
            text = f"No name server tells the address of {host!r} in time."
            raise Unavailable(text, hint=f"Check /etc/resolv.conf. {hint}") from None
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise Unavailable(f"{host!r} has no address: {reason}.", hint=hint) from None
        return ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found))

    def _port(self) -> str:
        host, port = split_address(self.peer.address)
        began = time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=self.limits.patience):
                return f"{port} answers after {1e3 * (time.monotonic() - began):.1f} ms"
        except TimeoutError:
            raise Unavailable(
                f"Nothing answers at port {port} of {host}.",
                hint=f"Let the firewalls between pass TCP to port {port}, and check that its "
                "machine runs.",
            ) from None
        except ConnectionRefusedError:
            raise Unavailable(
                f"Nothing listens at port {port} of {host}.",
                hint="Start the service there, or correct the address.",
            ) from None
        except OSError as error:
            raise Unavailable(
                f"{host} cannot be reached: {error.strerror or error}.",
                hint="Check the routes between the two machines.",
            ) from None

    def _identity(self, credentials: Credentials) -> str:
        peer, patience = self.peer, self.limits.patience
        try:
            preflight.check_connection(peer.address, peer.identity, credentials, patience=patience)
        except Unavailable as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise
            raise Unavailable(
                "It takes connections and then says nothing.",
                hint="Its process hangs, or is no service of Masque: see its log, start it anew.",
            ) from None
        return f"{peer.identity.uri} by its certificate, and ours is accepted"

    # -- by calls ----------------------------------------------------------------------------------

    @contextmanager
    def _channel(self, credentials: Credentials) -> Iterator[grpc.Channel]:
        peer = self.peer
        with (
            translating(peer.identity, peer.address),
            open_channel(peer.address, peer.identity, credentials) as channel,
        ):
            yield channel

    def _health(self, channel: grpc.Channel) -> str:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=self.limits.patience)
        if reply.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable(
                "It is not serving.", hint="It may be starting or stopping: see its log."
            )
        return "serving"

    def _told(self, told: Told) -> Iterator[Finding]:
        reply = told.reply
        found = (reply.project, reply.role, reply.name)
        wanted = self.peer.identity
        if found != (wanted.project, wanted.role.value, wanted.name):
            text = clean("/".join(found), 200)
            raise IdentityError(f"It says that it is {text}.", hint="Check its configuration.")
        yield self._version(clean(reply.version, 50))
        yield self._protocol(reply.protocol)
        yield self._clock(told)
        yield self._certificate(reply.certificate_ends)
        if reply.keeps:
            yield self._disk(reply.free_bytes)

    def _version(self, version: str) -> Finding:
        if version == __version__:
            return self._fine("version", version)
        told = ProtocolError(f"It runs Masque {version}, this is {__version__}.", hint=SAME_VERSION)
        return wrong(self.about, "version", told, version=version)

    def _protocol(self, found: bytes) -> Finding:
        ours = protocol_digest()
        if found == ours:
            return self._fine("protocol", f"equal ({ours.hex()[:12]})")
        told = ProtocolError(
            f"Its programs or messages differ from ours ({found.hex()[:12]}, not "
            f"{ours.hex()[:12]}), whatever its version says.",
            hint=SAME_VERSION,
        )
        return wrong(self.about, "protocol", told)

    def _clock(self, told: Told) -> Finding:
        off, limits = abs(told.ahead), self.limits
        way = "ahead of" if told.ahead > 0 else "behind"
        text = f"{off:.3f} s {way} ours, give or take {told.within:.3f} s"
        cure = (
            "Synchronise the clocks of both machines, for example by chrony or systemd-timesyncd."
        )
        if off > limits.clock_fail:
            return wrong(self.about, "clock", MasqueError(f"{text}.", hint=cure), ahead=told.ahead)
        if off > limits.clock_warn:
            return doubtful(self.about, "clock", text, cure, ahead=told.ahead)
        return fine(self.about, "clock", text, ahead=told.ahead)

    def _certificate(self, ends: int) -> Finding:
        days = (ends - time.time()) / 86_400
        text = f"valid for {days:.0f} days"
        if days >= self.limits.days_warn:
            return fine(self.about, "certificate", text, days=round(days, 1))
        cure = "Remind its operator to renew it."
        return doubtful(self.about, "certificate", text, cure, days=round(days, 1))

    def _disk(self, free: int) -> Finding:
        text = f"{size(free)} free"
        cure = "Ask its operator to free space before data is shared."
        if free < self.limits.free_fail:
            return wrong(self.about, "disk", Refused(f"{text}.", hint=cure), free=free)
        if free < self.limits.free_warn:
            return doubtful(self.about, "disk", text, cure, free=free)
        return fine(self.about, "disk", text, free=free)

    # -- the way -----------------------------------------------------------------------------------

    def _link(self, channel: grpc.Channel) -> Finding:
        try:
            way = self._measured(channel)
        except MasqueError as error:
            text = f"not measured: {error.message}"
            return doubtful(self.about, LINK, text, error.hint or "Try again.")
        return fine(
            self.about,
            LINK,
            f"round trip {1e3 * way.round_trip:.2f} ms, {size(way.there)}/s there, "
            f"{size(way.back)}/s back",
            round_trip=way.round_trip,
            there=way.there,
            back=way.back,
        )

    def _measured(self, channel: grpc.Channel) -> Way:
        """One service at a time; one that is busy with others is asked again."""
        if not self.turn.acquire(timeout=max(0.0, self.until - time.monotonic())):
            raise Unavailable("the ways to the others took too long.", hint="Try again.")
        try:
            while True:
                try:
                    with translating(self.peer.identity, self.peer.address):
                        return measure(channel, timeout=max(0.1, self.until - time.monotonic()))
                except Refused as error:
                    if not error.where.get("busy") or time.monotonic() + PAUSE > self.until:
                        raise
                time.sleep(PAUSE)
        finally:
            self.turn.release()


def within(seconds: float, function: Callable[[], Answer]) -> Answer:
    """What `function` returns or raises; TimeoutError if it takes longer, and it goes on alone."""
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError
    return answers[0]
