"""Request ids: what is believed, what is passed on, and that threads and channels carry them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import InputError
from masque.wire import telemetry, tracing
from masque.wire.identity import Identity, Role
from masque.wire.server import Server
from masque.wire.tls import open_channel
from masque.wire.tracing import HEADER, Trace
from tests.wire.conftest import Project

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01")


def test_a_header_is_read_as_it_is_written() -> None:
    assert tracing.parse(GOOD) == TRACE and str(TRACE) == GOOD
    drawn = tracing.fresh()
    assert tracing.parse(str(drawn)) == drawn != tracing.fresh()


@pytest.mark.parametrize(
    "header",
    [
        "",
        None,
        GOOD.encode(),
        GOOD.upper(),
        GOOD + "-more",
        GOOD + "\n",
        " " + GOOD,
        "01" + GOOD[2:],
        "ff" + GOOD[2:],
        GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        GOOD.replace("00f067aa0ba902b7", "0" * 16),
        GOOD.replace("4bf9", "4bg9"),
        GOOD.replace("4bf9", "4bf"),
        GOOD[:-3],
    ],
)
def test_anything_else_is_replaced_by_a_fresh_trace(header: Any) -> None:
    assert tracing.parse(header) is None
    found = tracing.received([(HEADER, header)])
    assert found != TRACE and tracing.parse(str(found)) == found


@given(st.text(max_size=80))
def test_no_text_at_all_is_a_trace_by_accident(text: str) -> None:
    found = tracing.parse(text)
    assert found is None or str(found) == text


def test_two_headers_are_none() -> None:
    assert tracing.received([(HEADER, GOOD)]) == TRACE
    assert tracing.received([(HEADER, GOOD), (HEADER, GOOD)]) != TRACE
    assert tracing.received(None) != TRACE


def test_a_block_and_its_threads_work_for_a_trace() -> None:
    seen: list[str | None] = []
    with tracing.use(TRACE):
        work = tracing.inherit(lambda: seen.append(tracing.request()))
        others = [threading.Thread(target=work), threading.Thread(target=work)]
    for thread in others:
        thread.start()
        thread.join()
    assert seen == [TRACE.trace_id] * 2 and tracing.current() is None


# -- over the wire -------------------------------------------------------------------------------


class Mirror(grpc.GenericRpcHandler):  # type: ignore[type-arg, unused-ignore]
    """Answers every kind of call with the request that it works for, and what its log says."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        kinds: dict[str, Any] = {
            "/test.Mirror/UnaryUnary": grpc.unary_unary_rpc_method_handler(self.one),
            "/test.Mirror/UnaryStream": grpc.unary_stream_rpc_method_handler(self.many),
            "/test.Mirror/StreamUnary": grpc.stream_unary_rpc_method_handler(self.one),
            "/test.Mirror/StreamStream": grpc.stream_stream_rpc_method_handler(self.many),
        }
        return kinds.get(details.method)

    def one(self, request: Any, context: grpc.ServicerContext) -> bytes:
        bound = structlog.contextvars.get_contextvars()
        return f"{tracing.request()} {bound['trace']} {bound['peer']}".encode()

    def many(self, request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield self.one(request, context)
        yield self.one(request, context)


METHODS = [
    f"/test.Mirror/{kind}" for kind in "UnaryUnary UnaryStream StreamUnary StreamStream".split()
]


def mirrored(channel: grpc.Channel) -> set[str]:
    """What all four kinds of calls, and a future, were answered."""
    single, stream, client, both = METHODS
    answers = [
        channel.unary_unary(single, None, None)(b"", timeout=10),
        channel.unary_unary(single, None, None).future(b"", timeout=10).result(),
        *channel.unary_stream(stream, None, None)(b"", timeout=10),
        channel.stream_unary(client, None, None)(iter([b""]), timeout=10),
        *channel.stream_stream(both, None, None)(iter([b""]), timeout=10),
    ]
    return {answer.decode() for answer in answers}


@pytest.fixture
def server(project: Project) -> Iterator[Server]:
    permissions = {method: {Role.PARTY} for method in METHODS}
    register = [lambda server: server.add_generic_rpc_handlers((Mirror(),))]
    credentials = project.credentials("party", "a")
    with Server(credentials, "127.0.0.1:0", permissions, register, threads=4, grace=1) as server:
        yield server


def test_every_kind_of_call_carries_the_trace_of_its_thread_or_its_channel(
    server: Server, project: Project
) -> None:
    party = project.credentials("party", "b")
    other = tracing.fresh()
    said = "{0} {0} party 'b'".format
    with tracing.use(TRACE), open_channel(server.address, server.identity, party) as channel:
        assert mirrored(channel) == {said(TRACE.trace_id)}
        with tracing.use(other):
            assert mirrored(channel) == {said(other.trace_id)}
        alone: list[set[str]] = []
        thread = threading.Thread(target=lambda: alone.append(mirrored(channel)))
        thread.start()
        thread.join()
        assert alone == [{said(TRACE.trace_id)}]


def test_calls_without_a_trace_get_one_each(server: Server, project: Project) -> None:
    party = project.credentials("party", "b")
    with open_channel(server.address, server.identity, party) as channel:
        answers = mirrored(channel)
    assert len(answers) == 5, "one for each call, however many answers it has"
    assert server.calls.counts() == {
        ("test.Mirror/UnaryUnary", "OK"): 2,
        **{(method[1:], "OK"): 1 for method in METHODS[1:]},
    }
    assert set(server.calls.seconds()) == {method[1:] for method in METHODS}


# -- spans ---------------------------------------------------------------------------------------


class Measured:
    """A span, and how it ended."""

    def __init__(self, name: str, parent: Trace | None) -> None:
        self.name, self.parent, self.trace = name, parent, tracing.fresh()
        self.ended: list[str] = []

    def end(self, failure: str = "") -> None:
        self.ended.append(failure)


def test_spans_nest_and_end_once() -> None:
    begun: list[Measured] = []

    def tracer(name: str, parent: Trace | None, answers: bool, attributes: Any) -> Measured:
        begun.append(Measured(name, parent))
        return begun[-1]

    def work() -> None:
        with tracing.use(TRACE), tracing.span("outer", job="j"):
            with tracing.span("inner"):
                assert tracing.current() == begun[1].trace
            assert tracing.current() == begun[0].trace
            raise InputError("no")

    tracing.install(tracer)
    try:
        with pytest.raises(InputError):
            work()
    finally:
        tracing.install(None)
    outer, inner = begun
    assert outer.parent == TRACE and inner.parent == outer.trace
    assert (outer.ended, inner.ended) == (["InputError"], [""])
    with tracing.use(TRACE), tracing.span("unmeasured"):
        assert tracing.current() == TRACE


DEALER = Identity("demo", Role.DEALER, "dealer")


def test_a_collector_that_does_not_answer_is_no_obstacle() -> None:
    assert telemetry.installed()
    with telemetry.exporting(DEALER, "http://127.0.0.1:1"), tracing.use(TRACE):
        with tracing.span("work"):
            trace = tracing.current()
            assert trace is not None
            assert trace.trace_id == TRACE.trace_id and trace.span_id != TRACE.span_id
        with pytest.raises(ValueError, match="oops"), tracing.span("more"):
            raise ValueError("oops")
    with tracing.use(TRACE), tracing.span("after"):
        assert tracing.current() == TRACE


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
import masque.wire
from masque.wire import running, telemetry
from masque.wire.identity import parse_identity
assert "prometheus_client" not in sys.modules and not telemetry.installed()
try:
    with telemetry.exporting(parse_identity(sys.argv[1]), "http://127.0.0.1:4318"):
        print("began")
except Exception as error:
    print(type(error).__name__, error.exit_code, error)
"""


def test_without_the_extra_a_service_says_what_to_install() -> None:
    command = [sys.executable, "-c", WITHOUT, DEALER.uri]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("InputError 3 telemetry asks for OpenTelemetry")
    assert "pip install 'masque[otel]'" in ran.stdout
