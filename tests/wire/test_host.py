"""The service `Host`: what it tells to whom, and that nobody loads a service by measuring."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from masque.errors import IdentityError, InputError, MasqueError, Refused
from masque.v1.host_pb2 import DescribeHostRequest, MeasureRequest
from masque.v1.host_pb2_grpc import HostStub
from masque.version import __version__
from masque.wire.failures import translating
from masque.wire.host import CALLERS, MIB, Allowance, Bounds, Host, free_bytes, offer_host
from masque.wire.identity import ROLES, Role
from masque.wire.measuring import describe, measure
from masque.wire.protocol import digest, protocol_digest, sources
from masque.wire.server import Server
from masque.wire.tls import open_channel
from tests.wire.conftest import Project
from tests.wire.distant import relayed

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


@dataclass
class Hosted:
    """A server that offers nothing but Host, and channels to it by who calls."""

    project: Project
    server: Server
    channels: list[grpc.Channel] = field(default_factory=list)

    def __call__(self, role: str, name: str = "asking", address: str = "") -> grpc.Channel:
        credentials = self.project.credentials(role, name)
        at = address or self.server.address
        self.channels.append(open_channel(at, self.server.identity, credentials))
        return self.channels[-1]


@contextmanager
def hosting(
    project: Project, role: str, volume: Path | None = None, **about: Any
) -> Iterator[Hosted]:
    server = Server(project.credentials(role, "asked"), "127.0.0.1:0", {}, [], grace=0.2)
    offer_host(server, Host(server, volume, **about))
    hosted = Hosted(project, server)
    with server:
        server.ready()
        try:
            yield hosted
        finally:
            for each in hosted.channels:
                each.close()


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_it_tells(project: Project, tmp_path: Path) -> None:
    with hosting(project, "party", tmp_path / "not" / "made" / "yet") as channel:
        told = describe(channel("party"), timeout=PATIENCE)
    reply = told.reply
    assert (reply.name, reply.role, reply.project) == ("asked", "party", "demo")
    assert reply.version == __version__ and reply.protocol == protocol_digest()
    assert reply.serving and reply.keeps
    ends = project.credentials("party", "asked").certificate.not_valid_after_utc
    assert reply.certificate_ends == int(ends.timestamp())
    assert 0 < reply.free_bytes <= free_bytes(tmp_path) + 1024 * MIB
    assert reply.free_bytes % MIB == 0, "how much is free to the byte tells what is written"
    assert abs(told.ahead) <= told.within + 0.05


def test_a_clock_that_is_off(project: Project) -> None:
    with hosting(project, "dealer", clock=lambda: time.time_ns() + 90 * 10**9) as channel:
        told = describe(channel("party"), timeout=PATIENCE)
    assert not told.reply.keeps and told.reply.free_bytes == 0
    assert abs(told.ahead - 90) <= told.within + 0.05


@pytest.mark.parametrize("asked", ["dealer", "party", "coordinator"])
def test_who_may_ask(project: Project, asked: str) -> None:
    with hosting(project, asked) as channel:
        for role in ROLES:
            stub = HostStub(channel(role.value))
            with _allowed(asked == "dealer" or role is not Role.DEALER):
                assert stub.Describe(DescribeHostRequest(), timeout=PATIENCE).name == "asked"
            with _allowed(role in CALLERS[Role(asked)]):
                request = iter([MeasureRequest(payload=b"abc", answer_bytes=5)])
                replies = list(stub.Measure(request, timeout=PATIENCE))
                assert [len(reply.payload) for reply in replies] == [5]


@contextmanager
def _allowed(allowed: bool) -> Iterator[None]:
    if allowed:
        yield
        return
    with pytest.raises(IdentityError, match="may not call"), translating("it"):
        yield


def test_a_dealer_may_measure_nowhere() -> None:
    assert all(Role.DEALER not in callers for callers in CALLERS.values())


def test_the_way(project: Project) -> None:
    with hosting(project, "party") as channel:
        way = measure(channel("coordinator"), timeout=PATIENCE)
    assert 0 < way.round_trip < PATIENCE and way.there > 0 and way.back > 0


def test_a_long_and_thin_way(project: Project) -> None:
    """Round trips of 40 ms and 5 MB/s each way, where loopback has a fraction and a hundredfold."""
    with (
        hosting(project, "party") as channel,
        relayed(channel.server.address, delay=0.02, rate=5e6) as address,
    ):
        far = channel("party", address=address)
        told = describe(far, timeout=PATIENCE)
        way = measure(far, timeout=PATIENCE)
    assert told.within >= 0.02 and abs(told.ahead) <= told.within + 0.05
    assert 0.04 <= way.round_trip < PATIENCE
    assert 0 < way.there < 20e6 and 0 < way.back < 20e6


def test_one_measurement_of_a_caller_and_few_of_all(project: Project) -> None:
    bounds = Bounds(at_once=2, seconds=PATIENCE)
    with hosting(project, "party", bounds=bounds) as channel:
        held = [_hold(channel("party", name)) for name in ("a", "b")]
        for name in ("a", "c"):
            with pytest.raises(Refused, match="measuring") as raised, translating("it"):
                measure(channel("party", name), timeout=PATIENCE)
            assert raised.value.where["busy"]
        for release, call in held:
            release.set()
            assert list(call) == []

        def free() -> bool:
            try:
                with translating("it"):
                    return measure(channel("party", "c"), timeout=PATIENCE).round_trip > 0
            except Refused:
                return False

        eventually(free)


def test_one_who_says_nothing_is_put_out(project: Project) -> None:
    with hosting(project, "party", bounds=Bounds(at_once=1, seconds=0.3)) as channel:
        release, call = _hold(channel("party", "squatter"))
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        assert raised.value.code() is grpc.StatusCode.CANCELLED
        release.set()


def _hold(channel: grpc.Channel) -> tuple[threading.Event, Any]:
    """A measurement that has begun and goes on until the event is set."""
    release = threading.Event()

    def asked() -> Iterator[MeasureRequest]:
        yield MeasureRequest(answer_bytes=1)
        release.wait(PATIENCE)

    call: Any = HostStub(channel).Measure(asked(), timeout=PATIENCE)
    assert len(next(call).payload) == 1
    return release, call


def test_bytes_of_a_caller_are_counted(project: Project) -> None:
    with hosting(project, "party", bounds=Bounds(budget=MIB, answer=1 << 18)) as channel:
        stub = HostStub(channel("party"))

        def ask(*requests: MeasureRequest) -> list[Any]:
            with translating("it"):
                return list(stub.Measure(iter(requests), timeout=PATIENCE))

        with pytest.raises(InputError, match="262144 bytes at most"):
            ask(MeasureRequest(answer_bytes=(1 << 18) + 1))
        assert len(ask(MeasureRequest(payload=bytes(1 << 18), answer_bytes=1 << 18))) == 1
        with pytest.raises(Refused, match=r"1 MiB within 60 s"):
            ask(*[MeasureRequest(payload=bytes(1 << 18))] * 4)
        other = HostStub(channel("party", "another"))
        assert len(list(other.Measure(iter([MeasureRequest()]), timeout=PATIENCE))) == 1


def test_small_messages_count_as_well_and_are_forgotten_in_time() -> None:
    now = [0.0]
    allowance = Allowance(Bounds(budget=100, least=10, window=60), lambda: now[0])
    for _ in range(10):
        allowance.spend("a", 1)
    with pytest.raises(Refused):
        allowance.spend("a", 1)
    now[0] = 59.9
    with pytest.raises(Refused), allowance.taken("a"):
        raise AssertionError("unreachable")
    now[0] = 60.0
    with allowance.taken("a"):
        allowance.spend("a", 90)


# -- the digest of the protocol --------------------------------------------------------------------


def test_equal_code_has_an_equal_digest(tmp_path: Path) -> None:
    """Whatever its directory, and the order of files in it."""
    for name, content in reversed(sources().items()):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert digest(sources(tmp_path)) == protocol_digest()
    assert len(protocol_digest()) == 32


def test_what_both_ends_must_agree_on_is_in_it() -> None:
    found = sources()
    for proto in (ROOT / "protos" / "masque" / "v1").glob("*.proto"):
        assert f"v1/{proto.stem}_pb2.py" in found
    for floor in ("mpc", "ml", "jobs"):
        for path in (ROOT / "masque" / floor).rglob("*.py"):
            assert path.relative_to(ROOT / "masque").as_posix() in found
    assert not any(name.startswith(("client", "wire/host")) for name in found)


@pytest.mark.parametrize(
    "name", ["mpc/truncation.py", "mpc/program.py", "v1/party_pb2.py", "wire/frames.py"]
)
def test_another_operation_program_message_or_frame_changes_it(name: str) -> None:
    files = sources()
    files[name] += b"# changed\n"
    assert digest(files) != protocol_digest()
    moved = sources()
    moved["mpc/other.py"] = moved.pop(name)
    assert digest(moved) != protocol_digest()


def test_an_installation_without_sources_is_named(tmp_path: Path) -> None:
    with pytest.raises(MasqueError, match="has no sources"):
        sources(tmp_path)
