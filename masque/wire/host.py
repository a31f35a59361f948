"""The service `Host`, which every server offers: who it is, how it is, and how far away.

`masque doctor` asks it before the first job. Nothing that it tells depends on data; free space is
told in whole MiB, and nothing at all to a dealer, which calls nobody.

`Measure` moves bytes for those who call this service in jobs anyway. A caller cannot load the
service by it: see `Bounds`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from masque.errors import InputError, Refused
from masque.v1 import host_pb2 as messages
from masque.v1.host_pb2_grpc import HostServicer, add_HostServicer_to_server
from masque.version import __version__
from masque.wire.authorise import Permissions, caller
from masque.wire.identity import ROLES, Role
from masque.wire.protocol import protocol_digest
from masque.wire.server import Server

MIB = 1 << 20

CALLERS: dict[Role, frozenset[Role]] = {
    Role.DEALER: frozenset({Role.PARTY, Role.COORDINATOR}),
    Role.PARTY: frozenset({Role.PARTY, Role.COORDINATOR, Role.CLIENT}),
    Role.COORDINATOR: frozenset({Role.CLIENT}),
}
"""Who calls a service of each role in jobs: they may measure the way to it."""


def permissions(role: Role) -> Permissions:
    """Who may call what at a service of this role."""
    return {
        "/masque.v1.Host/Describe": ROLES if role is Role.DEALER else ROLES - {Role.DEALER},
        "/masque.v1.Host/Measure": CALLERS[role],
    }


@dataclass(frozen=True)
class Bounds:
    """Of measuring: calls at once (one of each caller), seconds of a call, bytes of an answer, and
    bytes that a caller may move within `window` seconds, both ways together, in which a message or
    a call counts as `least` bytes at least.
    """

    at_once: int = 4
    seconds: float = 6.0
    answer: int = 256 << 10
    budget: int = 256 * MIB
    window: float = 60.0
    least: int = 16 << 10


class Allowance:
    """Who measures now, and how much everybody has moved lately."""

    def __init__(self, bounds: Bounds, now: Callable[[], float] = time.monotonic) -> None:
        self._bounds, self._now = bounds, now
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._spent: dict[str, tuple[float, int]] = {}

    @contextmanager
    def taken(self, who: str) -> Iterator[None]:
        """Measuring, in the name of `who`. Raises Refused."""
        with self._lock:
            if who in self._busy or len(self._busy) >= self._bounds.at_once:
                raise Refused(
                    "Others are measuring the way to this service just now.",
                    hint="Try again in a few seconds.",
                    busy=True,
                )
            self._busy.add(who)
        try:
            self.spend(who, 0)
            yield
        finally:
            with self._lock:
                self._busy.discard(who)

    def spend(self, who: str, count: int) -> None:
        """Note `count` bytes more. Raises Refused when that was too many."""
        bounds, now = self._bounds, self._now()
        with self._lock:
            began, spent = self._spent.get(who, (now, 0))
            if now - began >= bounds.window:
                began, spent = now, 0
            spent += max(count, bounds.least)
            if spent > bounds.budget:
                raise Refused(
                    f"{who} has measured {bounds.budget // MIB} MiB within {bounds.window:.0f} s.",
                    hint="Try again in a minute.",
                )
            self._spent = {w: s for w, s in self._spent.items() if now - s[0] < bounds.window}
            self._spent[who] = began, spent


class Host(HostServicer):
    """Speaks for `server`, whose data is kept on the volume of `volume`, if it keeps any."""

    def __init__(
        self,
        server: Server,
        volume: Path | None = None,
        *,
        bounds: Bounds | None = None,
        version: str = __version__,
        protocol: bytes | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._server, self._volume, self._clock = server, volume, clock
        self._credentials = server.credentials
        self._bounds = bounds or Bounds()
        self._allowance = Allowance(self._bounds)
        self._version, self._protocol = version, protocol or protocol_digest()

    def Describe(
        self, request: messages.DescribeHostRequest, context: grpc.ServicerContext
    ) -> messages.DescribeHostReply:
        """What is to be known before the first job."""
        who = self._server.identity
        self._credentials = self._credentials.renewed()
        ends = self._credentials.certificate.not_valid_after_utc
        return messages.DescribeHostReply(
            name=who.name,
            role=who.role.value,
            project=who.project,
            version=self._version,
            protocol=self._protocol,
            clock=self._clock(),
            certificate_ends=int(ends.timestamp()),
            serving=self._server.serving,
            keeps=self._volume is not None,
            free_bytes=self._free(),
        )

    def _free(self) -> int:
        try:
            return free_bytes(self._volume) // MIB * MIB if self._volume else 0
        except OSError:
            return 0

    def Measure(
        self, request: Iterator[messages.MeasureRequest], context: grpc.ServicerContext
    ) -> Iterator[messages.MeasureReply]:
        """Answer every message with as many bytes as it asks for, within the bounds."""
        who = str(caller(context))
        with self._allowance.taken(who):
            late = threading.Timer(self._bounds.seconds, context.cancel)
            late.daemon = True
            late.start()
            try:
                for message in request:
                    yield self._answer(who, message)
            finally:
                late.cancel()

    def _answer(self, who: str, message: messages.MeasureRequest) -> messages.MeasureReply:
        if message.answer_bytes > self._bounds.answer:
            raise InputError(f"An answer has {self._bounds.answer} bytes at most.")
        self._allowance.spend(who, len(message.payload) + message.answer_bytes)
        return messages.MeasureReply(payload=bytes(message.answer_bytes))


def offer_host(server: Server, host: Host) -> None:
    """Let a server offer it; before it is started."""
    server.offer(
        permissions(server.identity.role),
        lambda registry: add_HostServicer_to_server(host, registry),
    )


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the volume of `path`, or where it would be made.

    Raises OSError.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
