"""A project with certificates on disk, and a small real service behind real TLS on loopback."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from masque.errors import Refused
from masque.wire.authorise import caller
from masque.wire.authority import Authority, create_authority
from masque.wire.identity import Identity, Role
from masque.wire.server import Server
from masque.wire.tls import Credentials, find_credentials, open_channel

PROJECT = "demo"
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)

ECHO, STREAM, REFUSE, CRASH, UNLISTED, SLEEP, WHO, LONG = (
    f"/test.Echo/{name}"
    for name in ("Echo", "Stream", "Refuse", "Crash", "Unlisted", "Sleep", "Who", "Long")
)
PERMISSIONS = {
    ECHO: {Role.PARTY, Role.COORDINATOR},
    STREAM: {Role.PARTY},
    REFUSE: {Role.PARTY},
    CRASH: {Role.PARTY},
    SLEEP: {Role.PARTY},
    WHO: set(Role),
    LONG: {Role.PARTY},
}
SECRET = b"\x13\x37secret-share"


@dataclass
class Project:
    """An authority, and certificates of it made when first asked for."""

    root: Path
    authority: Authority

    def credentials(self, role: str, name: str) -> Credentials:
        identity = Identity(self.authority.project, Role(role), name)
        directory = self.root / identity.stem
        if not directory.exists():
            self.authority.issue(identity, directory)
        return find_credentials(directory)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("pki")
    return Project(root, create_authority(root / "authority", PROJECT))


@pytest.fixture(params=[True, False], ids=["direct", "queued"])
def pair(project: Project, request: pytest.FixtureRequest) -> Iterator[Ring]:
    from tests.wire.parties import ring

    with ring(project, 2, direct=request.param) as two:
        yield two


@pytest.fixture
def three(project: Project) -> Iterator[Ring]:
    from tests.wire.parties import ring

    with ring(project, 3) as parties:
        yield parties


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Another authority for a project of the same name: an impostor."""
    root = tmp_path_factory.mktemp("foreign")
    return Project(root, create_authority(root / "authority", PROJECT))


if TYPE_CHECKING:  # a handler is generic in the stubs only
    from tests.wire.parties import Ring

    GenericHandler = grpc.GenericRpcHandler[bytes, bytes]
else:
    GenericHandler = grpc.GenericRpcHandler


class EchoService(GenericHandler):
    """A few methods on raw bytes, enough to meet every kind of handler and failure."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if not method.startswith("/test.Echo/"):
            return None
        if method == STREAM:
            return grpc.stream_stream_rpc_method_handler(self.stream)
        single = {
            LONG: self.long,
            REFUSE: self.refuse,
            CRASH: self.crash,
            SLEEP: self.sleep,
            WHO: self.who,
        }
        behaviour: Callable[..., bytes] = single.get(method, self.echo)
        return grpc.unary_unary_rpc_method_handler(behaviour)

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls.append("echo")
        return request

    def who(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return caller(context).uri.encode()

    def stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            if request == b"refuse":
                raise Refused("The policy says no.", hint="Ask its owner.", field="epochs")
            yield request

    def refuse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise Refused("The policy says no.", hint="Ask its owner.", field="epochs", raw=SECRET)

    def long(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise Refused(5_000 * "\N{SNOWMAN}", hint=5_000 * "\N{SNOWMAN}")

    def crash(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise RuntimeError(f"unexpected {SECRET!r}")

    def sleep(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls.append("sleep")
        time.sleep(float(request))
        return request


@dataclass
class Running:
    """A service under test, and calls to it."""

    server: Server
    service: EchoService
    project: Project

    def call(
        self, method: str, request: bytes = b"hello", *, role: str = "party", name: str = "b"
    ) -> bytes:
        """One unary call in the name of a role; raises `grpc.RpcError`."""
        with self.channel(self.project.credentials(role, name)) as channel:
            return unary(channel, method, request)

    def channel(
        self, credentials: Credentials, *, expected: Identity | None = None
    ) -> grpc.Channel:
        return open_channel(self.server.address, expected or self.server.identity, credentials)


def unary(
    channel: grpc.Channel, method: str, request: bytes = b"hello", timeout: float = 5.0
) -> bytes:
    reply: bytes = channel.unary_unary(method, bytes, bytes)(request, timeout=timeout)
    return reply


def run_service(project: Project, credentials: Credentials) -> Iterator[Running]:
    service = EchoService()
    register = [lambda server: server.add_generic_rpc_handlers((service,))]
    with Server(credentials, "127.0.0.1:0", PERMISSIONS, register, threads=8, grace=1) as server:
        yield Running(server, service, project)


@pytest.fixture
def running(project: Project) -> Iterator[Running]:
    yield from run_service(project, project.credentials("party", "a"))
