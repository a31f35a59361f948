"""Wrapping the handlers of a gRPC service, whichever of the four kinds they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from masque.errors import ProtocolError

Behaviour = Callable[[Any, grpc.ServicerContext], Any]
"""A handler's function: (request or iterator of them, context) to a response or iterator."""

NON_BLOCKING = "experimental_non_blocking"
"""gRPC's mark of a handler that is also given a function, by which it sends its responses itself
from whatever thread it likes; `masque.wire.health` and `masque.wire.streams` use it."""

Guard = Callable[[str, grpc.ServicerContext], None]
"""Runs before the handler of a method; raises to keep the handler from running."""

Begin = Callable[[str, object, grpc.ServicerContext], Callable[[], None]]
"""Runs before the guard, on (method, request, context); what it returns runs when the call ends."""

Trap = Callable[[Exception, str, grpc.ServicerContext], None]
"""Gets what the handler of a method raised; ends the call by `context.abort`, which raises."""

if TYPE_CHECKING:  # generic in the stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]
    ServerInterceptor = grpc.ServerInterceptor[Any, Any]
else:
    Handler = grpc.RpcMethodHandler
    ServerInterceptor = grpc.ServerInterceptor


class Gate(ServerInterceptor):
    """Puts a guard before every handler of a server, and a trap behind it; `begin` around both.

    A method without a handler stays without: gRPC answers UNIMPLEMENTED.
    """

    def __init__(self, guard: Guard, trap: Trap, begin: Begin | None = None) -> None:
        self._around = _Around(guard, trap, begin or _unobserved)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by gRPC for every call, before its first message is read."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        return _wrap_handler(handler, method, self._around)


@dataclass(frozen=True)
class _Around:
    """What every handler is wrapped in."""

    guard: Guard
    trap: Trap
    begin: Begin


def _unobserved(method: str, request: object, context: grpc.ServicerContext) -> Callable[[], None]:
    return lambda: None


def _wrap_handler(handler: Handler, method: str, around: _Around) -> Handler:
    """The same handler, guarded, and with the trap for whatever guard or handler raises."""
    streams = bool(handler.response_streaming)
    wrap = _wrap_streaming if streams else _wrap_single
    make: Callable[..., Handler]
    if handler.request_streaming:
        make = grpc.stream_stream_rpc_method_handler if streams else _STREAM_UNARY
        behaviour = handler.stream_stream if streams else handler.stream_unary
    else:
        make = grpc.unary_stream_rpc_method_handler if streams else _UNARY_UNARY
        behaviour = handler.unary_stream if streams else handler.unary_unary
    assert behaviour is not None, "a handler has the function of its kind"
    legible = _legible(behaviour, streams=bool(handler.request_streaming))
    if getattr(behaviour, NON_BLOCKING, False):
        wrapped: Behaviour = _NonBlocking(legible, method, around)
    else:
        wrapped = wrap(legible, method, around)
    return make(
        wrapped,
        request_deserializer=_tolerant(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )


_UNREADABLE = object()


def _tolerant(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Let the handler find out: where a deserializer raises, gRPC never ends the call."""
    if read is None:
        return None

    def tolerant(raw: bytes) -> Any:
        try:
            return read(raw)
        except Exception:
            return _UNREADABLE

    return tolerant


def _legible(behaviour: Behaviour, *, streams: bool) -> Behaviour:
    """The same behind a check that what came is a message."""

    def checked(request: Any, context: grpc.ServicerContext, *respond: Any) -> Any:
        found = map(_read, request) if streams else _read(request)
        return behaviour(found, context, *respond)

    return functools.wraps(behaviour)(checked) if hasattr(behaviour, "__name__") else checked


def _read(request: Any) -> Any:
    if request is _UNREADABLE:
        raise ProtocolError(
            "A request could not be read: it is no message of this call.",
            hint="Run the same version of Masque at both ends.",
        )
    return request


_UNARY_UNARY: Callable[..., Handler] = grpc.unary_unary_rpc_method_handler
_STREAM_UNARY: Callable[..., Handler] = grpc.stream_unary_rpc_method_handler


def _wrap_single(behaviour: Behaviour, method: str, around: _Around) -> Behaviour:
    @functools.wraps(behaviour)
    def wrapped(request: Any, context: grpc.ServicerContext) -> Any:
        end = around.begin(method, request, context)
        try:
            around.guard(method, context)
            return behaviour(request, context)
        except Exception as error:
            around.trap(error, method, context)
            raise
        finally:
            end()

    return wrapped


def _wrap_streaming(behaviour: Behaviour, method: str, around: _Around) -> Behaviour:
    @functools.wraps(behaviour)
    def wrapped(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        end = around.begin(method, request, context)
        try:
            around.guard(method, context)
            yield from behaviour(request, context)
        except Exception as error:
            around.trap(error, method, context)
            raise
        finally:
            end()

    return wrapped


class _NonBlocking:
    """A wrapped handler that keeps gRPC's mark, and hands on the function that sends.

    Its call goes on after it has returned, until gRPC says that it is over.
    """

    def __init__(self, behaviour: Any, method: str, around: _Around) -> None:
        self._behaviour, self._method, self._around = behaviour, method, around
        setattr(self, NON_BLOCKING, True)

    def __call__(
        self, request: Any, context: grpc.ServicerContext, *respond: Callable[[Any], None]
    ) -> Any:
        end = self._around.begin(self._method, request, context)
        if not context.add_callback(end):
            end()
        try:
            self._around.guard(self._method, context)
            return self._behaviour(request, context, *respond)
        except Exception as error:
            self._around.trap(error, self._method, context)
            raise
