"""Request ids across services: W3C trace context, from a command to all that it sets to work.

A command draws a trace; its calls name it in the metadata `traceparent`; a server that is called
adopts the trace for as long as it works on the call, writes it into its log as `trace`, and sends
it on with the calls that it makes itself. A channel remembers the trace under which it was opened,
so that calls from threads of their own carry it as well. Version 00 of the W3C's Trace Context.

Nothing in a trace depends on data: it is random, and drawn before any data is touched.

Whoever exports spans (`masque.wire.telemetry`) installs a `Tracer`; without one a `span` costs a
look at a variable.
"""

from __future__ import annotations

import contextvars
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import grpc
import structlog

HEADER = "traceparent"
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = "01"

if TYPE_CHECKING:  # generic in the stubs only
    _UnaryUnary = grpc.UnaryUnaryClientInterceptor[Any, Any]
    _UnaryStream = grpc.UnaryStreamClientInterceptor[Any, Any]
    _StreamUnary = grpc.StreamUnaryClientInterceptor[Any, Any]
    _StreamStream = grpc.StreamStreamClientInterceptor[Any, Any]
else:
    _UnaryUnary, _UnaryStream = grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor
    _StreamUnary = grpc.StreamUnaryClientInterceptor
    _StreamStream = grpc.StreamStreamClientInterceptor

Result = TypeVar("Result")
Attribute = str | int


@dataclass(frozen=True)
class Trace:
    """`trace_id` (32 hexadecimal digits) is the request, `span_id` (16) the step that calls."""

    trace_id: str
    span_id: str
    flags: str = _SAMPLED

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


class Span(Protocol):
    """A step of a request that is being measured."""

    trace: Trace

    def end(self, failure: str = "") -> None:
        """It is over; `failure` names what went wrong in a word."""


Tracer = Callable[[str, Trace | None, bool, Mapping[str, Attribute]], Span]
"""Begins a span: (name, what it is a step of, whether it answers a call, attributes)."""

_current: contextvars.ContextVar[Trace | None] = contextvars.ContextVar("trace", default=None)
_installed: list[Tracer] = []


def fresh() -> Trace:
    """A trace that nobody else draws."""
    return Trace(secrets.token_hex(16), secrets.token_hex(8))


def parse(header: object) -> Trace | None:
    """The trace that a header names; None for anything but a well-formed one of version 00."""
    found = _FORM.fullmatch(header) if isinstance(header, str) else None
    if found is None or found[1] == _NO_TRACE or found[2] == _NO_SPAN:
        return None
    return Trace(*found.groups())


def received(metadata: Iterable[tuple[str, str | bytes]] | None) -> Trace:
    """The trace of a call with this metadata; a fresh one if it names none, or several."""
    found = [value for key, value in metadata or () if key == HEADER]
    return (parse(found[0]) if len(found) == 1 else None) or fresh()


def current() -> Trace | None:
    """The trace that this thread works for."""
    return _current.get()


def request() -> str | None:
    """The id of the request that this thread works for: what an operator looks for in logs."""
    trace = current()
    return trace.trace_id if trace is not None else None


def adopt(trace: Trace) -> None:
    """Work for `trace` from now on, in this context, and say so in every line of the log."""
    _current.set(trace)
    structlog.contextvars.bind_contextvars(trace=trace.trace_id)


@contextmanager
def use(trace: Trace) -> Iterator[None]:
    """Let the calls that the block makes, and the channels that it opens, name `trace`."""
    before = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(before)


def inherit(work: Callable[[], Result]) -> Callable[[], Result]:
    """`work` for another thread, with the trace and the log fields of this one."""
    return partial(contextvars.copy_context().run, work)


def install(tracer: Tracer | None) -> None:
    """Have spans measured by `tracer` from now on; None: by nobody."""
    _installed[:] = [tracer] if tracer is not None else []


def begin(
    name: str,
    parent: Trace | None,
    attributes: Mapping[str, Attribute],
    *,
    answers: bool = False,
) -> Span | None:
    """Begin a span whose end the caller tells; None if nobody measures."""
    return _installed[0](name, parent, answers, attributes) if _installed else None


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[None]:
    """What the block does is a step of the current trace, as are the calls that it makes."""
    begun = begin(name, current(), attributes)
    if begun is None:
        yield
        return
    try:
        with use(begun.trace):
            yield
    except BaseException as error:
        begun.end(type(error).__name__)
        raise
    begun.end()


# -- calls ---------------------------------------------------------------------------------------


class _Details(NamedTuple):
    """What gRPC hands on of a call; the fields of `grpc.ClientCallDetails` and its newer ones."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Sender(_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream):
    """Puts the trace into the metadata of every call of a channel."""

    def __init__(self, opened_for: Trace | None) -> None:
        self._opened_for = opened_for

    def _send(self, proceed: Callable[..., Any], details: Any, request: Any) -> Any:
        trace = current() or self._opened_for
        if trace is None:
            return proceed(details, request)
        metadata = (*(details.metadata or ()), (HEADER, str(trace)))
        fields: dict[str, Any] = {name: getattr(details, name, None) for name in _Details._fields}
        return proceed(_Details(**{**fields, "metadata": metadata}), request)

    intercept_unary_unary: Any = _send
    intercept_unary_stream: Any = _send
    intercept_stream_unary: Any = _send
    intercept_stream_stream: Any = _send


def traced(channel: grpc.Channel) -> grpc.Channel:
    """The same channel, whose calls name the current trace, or that under which it was opened."""
    return grpc.intercept_channel(channel, _Sender(current()))
