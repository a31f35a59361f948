"""The server that every service runs: TLS, authorisation, errors, health, a graceful end.

with Server(credentials, "127.0.0.1:0", permissions, [register]) as server:
    server.ready()
    server.wait()        # until SIGTERM, SIGINT or `stop`
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from types import FrameType, TracebackType
from typing import Protocol, Self

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc

from masque.errors import Conflict, InputError, MasqueError
from masque.v1.trust_pb2_grpc import add_TrustServicer_to_server
from masque.wire import HANDSHAKE_REFUSES_TLS_1_2
from masque.wire.authorise import Authorise, Permissions
from masque.wire.callers import Callers
from masque.wire.calls import Calls
from masque.wire.failures import report
from masque.wire.handlers import Gate
from masque.wire.health import Health
from masque.wire.identity import ROLES, Role
from masque.wire.publishing import PERMISSIONS, TrustService
from masque.wire.tls import MAX_MESSAGE, Credentials, server_options

Register = Callable[[grpc.Server], None]
"""Adds a service's handlers to a server, as the generated `add_..._to_server` do."""

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
GRACE = 5.0
BRIEF_GRACE = 0.5
"""Seconds that calls have to end after a signal: the work of the service is over by then."""

LAST = 1.8
"""Seconds after the patience of `Server.wait` at which a process that was told to stop is gone."""

HANDSHAKE = 10.0
"""Seconds that a connection may take to become one of TLS; then its place is free again."""

THREADS = 32
"""Handlers that run at once, long-lived streams included."""

INSTALLED = 1.0
"""Seconds within which certificates and revocation lists that were put on disk are noticed."""

_log = structlog.get_logger("masque.wire")


class Work(Protocol):
    """What a service is doing, as far as its end is concerned; see `Server.finishing`."""

    def drain(self, seconds: float) -> None:
        """Take up nothing new; what is under way may go on for so long."""

    def busy(self) -> bool:
        """Whether there is anything left to wait for."""


class Server:
    """A gRPC server on one port, in the name of one identity.

    `address` is `host:port`; with port 0 the system chooses one, and `address` then says which.
    `permissions` lists the roles of every method; the health check is open to every role.
    `serving` is what the health check says; `calls` counts what has been answered.
    Construction binds the port and raises `Conflict` if another program has it.
    """

    def __init__(
        self,
        credentials: Credentials,
        address: str,
        permissions: Permissions,
        services: Sequence[Register],
        *,
        threads: int = THREADS,
        max_message: int = MAX_MESSAGE,
        grace: float = GRACE,
    ) -> None:
        self.credentials = credentials
        self.identity = credentials.identity
        self._grace = grace
        self._stop_requested = threading.Event()
        self._signals = 0
        self._work: Work | None = None
        self._on_stop: list[Callable[[], None]] = []
        self._stopped: threading.Event | None = None
        self._lock = threading.Lock()
        self._health = Health()
        self.serving = False
        self._threads = futures.ThreadPoolExecutor(threads, f"{self.identity.name}-rpc")
        self.calls = Calls()
        self._callers = Callers(credentials.trust.revocations)
        health_roles = {HEALTH_CHECK: ROLES, HEALTH_WATCH: {Role.COORDINATOR}}
        self._guard = Authorise(
            self.identity.project, {**health_roles, **permissions}, self._callers
        )
        self._server = grpc.server(
            self._threads,
            interceptors=[Gate(self._guard, report, self.calls.begin)],
            options=[
                *server_options(max_message=max_message),
                ("grpc.server_handshake_timeout_ms", int(HANDSHAKE * 1000)),
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        trust = TrustService(credentials, self._callers)
        self.offer(PERMISSIONS, lambda server: add_TrustServicer_to_server(trust, server))
        for register in services:
            register(self._server)
        host, port = split_address(address)
        self.port = self._bind(credentials, host, port)
        self.address = join_address(host, self.port)

    def offer(self, permissions: Permissions, register: Register) -> None:
        """Answer to a further service, with the roles of its methods. Only before `start`."""
        self._guard.permit(permissions)
        register(self._server)

    def start(self) -> None:
        """Begin to answer; the health check says NOT_SERVING until `ready`."""
        if not HANDSHAKE_REFUSES_TLS_1_2:
            _log.warning("TLS 1.2 is refused per call only: masque.wire was imported after grpc")
        self._server.start()
        if self.credentials.trust.revocations.overdue:
            _log.warning("the revocation list is past its date; it stays in force")
        threading.Thread(target=self._watch_files, name="certificates", daemon=True).start()
        _log.info("listening", address=self.address, role=self.identity.role.value)

    def _watch_files(self) -> None:
        """Take up what was installed on disk, also if nobody connects."""
        while not self._stop_requested.wait(INSTALLED):
            self.credentials.renewed()
        self._callers.leave()

    def ready(self, serving: bool = True) -> None:
        """Let the health check say SERVING, or NOT_SERVING when work is impossible for now."""
        self.serving = serving
        self._health.set(serving=serving)

    def finishing(self, work: Work) -> None:
        """Let `work` go on for a while when a signal stops the service."""
        self._work = work

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when that while is over: end long-lived streams in it.

        Streams that go on are cut off when the grace is over.
        """
        self._on_stop.append(callback)

    def request_stop(self) -> None:
        """Make `wait` return. Safe in RPC handlers."""
        self._stop_requested.set()

    def stop(self, grace: float | None = None, *, patience: float = 0.0) -> None:
        """Answer NOT_SERVING; let work end for `patience` seconds, calls for `grace`; end."""
        self._stop_requested.set()
        with self._lock:
            if self._stopped is None:
                self.serving = False
                self._health.stop()
                self._drain(patience)
                for callback in self._on_stop:
                    callback()
                self._stopped = self._server.stop(self._grace if grace is None else grace)
        self._stopped.wait()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def wait(self, patience: float = 0.0) -> None:
        """Block until SIGTERM, SIGINT or `request_stop`, then stop.

        Signals are handled only when called from the main thread. After one, work has `patience`
        seconds to end, and the process is gone `LAST` seconds later, whatever hangs; a second
        signal ends the patience.
        """
        previous = self._handle_signals()
        # Waiting in slices: Python runs signal handlers only between waits.
        while not self._signals and not self._stop_requested.wait(0.1):
            pass
        if self._signals:
            _log.info("stopping", address=self.address)
            threading.Thread(target=self._outlive, args=(patience,), daemon=True).start()
            self.stop(min(self._grace, BRIEF_GRACE), patience=patience)
        else:
            self.stop()
        _log.info("stopped", address=self.address)
        if not self._signals:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _drain(self, patience: float) -> None:
        if self._work is None:
            return
        self._work.drain(patience)
        end = time.monotonic() + patience
        while self._signals < 2 and self._work.busy() and time.monotonic() < end:
            time.sleep(0.02)

    def _outlive(self, patience: float) -> None:
        """In a thread of its own: end the process if it has not ended by itself in time.

        What was acknowledged is on disk; what still runs is a computation nobody waits for.
        """
        end = time.monotonic() + patience + LAST
        while time.monotonic() < end:
            time.sleep(0.05)
            if self._signals > 1:
                end = min(end, time.monotonic() + LAST)
                break
        while time.monotonic() < end:
            time.sleep(0.05)
        _log.warning("ended without waiting for what still ran")
        os._exit(0)

    def _handle_signals(self) -> dict[signal.Signals, signal.Handlers]:
        if threading.current_thread() is not threading.main_thread():
            return {}

        def handle(number: int, frame: FrameType | None) -> None:
            self._signals += 1  # and nothing else: whoever was interrupted may hold any lock

        numbers = (signal.SIGTERM, signal.SIGINT)
        return {number: signal.signal(number, handle) for number in numbers}  # type: ignore[misc]

    def _bind(self, credentials: Credentials, host: str, port: int) -> int:
        try:
            return self._server.add_secure_port(join_address(host, port), credentials.for_server())
        except RuntimeError as error:
            unknown = _cannot_listen(join_address(host, port), "the port could not be bound")
            raise trouble_with_port(host, port) or unknown from error


def split_address(address: str) -> tuple[str, int]:
    """The host and port of `host:port` or `[::1]:port`; `InputError` if it is neither."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InputError(
            f"{address!r} is not an address.", hint="Write host:port, such as 127.0.0.1:7000."
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable_here(listen: str) -> tuple[str, int]:
    """Host and port at which this machine itself reaches what listens at `listen`."""
    host, port = split_address(listen)
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def trouble_with_port(host: str, port: int) -> MasqueError | None:
    """Why a port cannot be had, found out by asking for it in the plain way; None if it can."""
    where = join_address(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, target = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen()
        return None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Conflict(
                f"Port {port} on {host} is in use by another program.",
                hint=f"Stop that program (find it with `ss -ltnp 'sport = :{port}'`) or choose "
                "another port.",
                address=where,
                port=port,
            )
        return _cannot_listen(where, error.strerror or str(error))


def _cannot_listen(where: str, reason: str) -> InputError:
    return InputError(
        f"Cannot listen at {where}: {reason}.",
        hint="Choose an address of this machine and a port above 1023.",
        address=where,
    )
