"""gRPC as real servicers see it: a server on a simulated host, and the context of each call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import grpc

from tests.simulation import locks
from tests.simulation.calls import CANCELLED, OK, Call, Status
from tests.simulation.network import RESET, Network


class Context(grpc.ServicerContext):
    """A call as its handler sees it. `twin`: the transport has sent it a second time."""

    def __init__(self, call: Call, listener: Listener, *, twin: bool) -> None:
        self.rpc, self.listener, self.twin = call, listener, twin
        self.world, self.host = call.world, listener.host
        self.left = self.over = False
        self._callbacks: list[Callable[[], object]] = []
        self._code: grpc.StatusCode | None = None
        self._details, self._trailing = "", ()
        self._requests: deque[bytes | None] = deque()
        self._changed = locks.Condition(locks.Lock())
        self._under_way = 0
        left = call.time_remaining()
        self._alarm = None if left is None else self.world.at(left, self.hang_up)

    def observe(self, message: Any, request: Any) -> None:
        """A message is about to be sent: for monitors."""

    # -- the wire --------------------------------------------------------------------------------

    def receive(self, message: bytes | None) -> None:
        self._requests.append(message)
        self._changed.notify_all()

    def messages(self, decode: Any) -> Iterator[Any]:
        """The caller's stream; as in gRPC, it ends with an error if the call does."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._requests or not self.is_active())
            if not self._requests:
                raise self.rpc  # what gRPC raises is an RpcError without a code of its own
            message = self._requests.popleft()
            stream = self.rpc.requests
            stream.size -= len(message or b"")
            stream.changed.notify_all()
            if message is None:
                return
            yield decode(message)

    def respond(self, message: bytes) -> bool:
        """Send a response; waits while too much is under way. False if nobody listens."""
        window = self.rpc.responses.window
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < window or not self.is_active())
        if not self.is_active():
            return False
        if not self.twin:
            self._under_way += len(message)
            self.rpc.deliver(message)
        return True

    def credit(self, size: int) -> None:
        """The caller has taken so many bytes."""
        self._under_way -= size
        self._changed.notify_all()

    def finish(self, code: grpc.StatusCode | None = None, details: str | None = None) -> None:
        """End the call with what was set."""
        if self.over:
            return
        status: Status = (code or self._code or OK, details or self._details, tuple(self._trailing))
        if not self.twin and not self.left:
            self.rpc.conclude(status)
        self._end()

    def hang_up(self) -> None:
        """The caller has left, or cannot be reached."""
        if not self.over:
            self.left = True
            self._end()

    def _end(self) -> None:
        self.over = True
        if self._alarm is not None:
            self._alarm.cancel()
        self.listener.contexts.pop(self, None)
        self._changed.notify_all()
        callbacks, self._callbacks = self._callbacks, []
        if callbacks and not self.host.dead:
            self.world.spawn(self.host, "grpc", lambda: [each() for each in callbacks])

    # -- what a handler sees ---------------------------------------------------------------------

    def is_active(self) -> bool:
        return not self.over and not self.host.dead

    def time_remaining(self) -> Any:
        return self.rpc.time_remaining()

    def cancel(self) -> None:
        if not self.over:
            self.finish(CANCELLED, "Cancelled on the server")

    def add_callback(self, callback: Callable[[], object]) -> bool:
        if self.over:
            return False
        self._callbacks.append(callback)
        return True

    def invocation_metadata(self) -> Any:
        return self.rpc.metadata

    def peer(self) -> str:
        return f"ipv4:{self.rpc.client.name}"

    def peer_identities(self) -> Any:
        return None

    def peer_identity_key(self) -> Any:
        return None

    def auth_context(self) -> Any:
        who = self.rpc.channel.credentials
        return {
            "ssl_tls_version": [b"TLSv1.3"],
            "peer_uri": [who.uri.encode()],
            "x509_pem_cert": [who.pem],
        }

    def send_initial_metadata(self, metadata: Any) -> None:
        return None

    def set_trailing_metadata(self, metadata: Any) -> None:
        self._trailing = metadata

    def trailing_metadata(self) -> Any:
        return self._trailing

    def set_code(self, code: Any) -> None:
        self._code = code

    def code(self) -> Any:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> Any:
        return self._details.encode()

    def abort(self, code: Any, details: str) -> NoReturn:
        self._code, self._details = code, details
        raise Exception

    def abort_with_status(self, status: Any) -> NoReturn:
        raise NotImplementedError


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str, metadata: Any) -> None:
        self.method, self.invocation_metadata = method, metadata


class Listener:
    """`grpc.Server`, on one address of a simulated host."""

    def __init__(self, network: Network, pool: Any, interceptors: Sequence[Any]) -> None:
        self.network, self.host = network, network.world.here
        self._pool, self._interceptors = pool, interceptors
        self._methods: dict[str, Any] = {}
        self.contexts: dict[Context, None] = {}
        self._address = ""
        self.certificate: Any = None

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Every service registers its methods one by one as well."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self._methods |= {f"/{service}/{name}": each for name, each in handlers.items()}

    def add_secure_port(self, address: str, credentials: Any) -> int:
        self._address, self.certificate = address, credentials
        return int(address.rpartition(":")[2])

    def start(self) -> None:
        self.network.listeners[self._address] = self

    def stop(self, grace: float | None) -> locks.Event:
        if self.network.listeners.get(self._address) is self:
            del self.network.listeners[self._address]
        over = locks.Event()

        def end() -> None:
            if not self.host.dead:
                for context in list(self.contexts):
                    context.finish(grpc.StatusCode.UNAVAILABLE, "Server shutting down; goaway")
                over.set()

        self.network.world.at(grace or 0.0, end)
        return over

    def accept(self, call: Call, request: bytes | None, *, twin: bool = False) -> Context:
        """A call has arrived: a thread of the pool will answer it."""
        context = Context(call, self, twin=twin)
        self.contexts[context] = None

        def enter() -> None:
            try:
                self._pool.submit(self._answer, call.method, request, context)
            except RuntimeError:  # it is stopping
                context.finish(grpc.StatusCode.UNAVAILABLE, RESET)

        self.network.world.spawn(self.host, "grpc", enter)
        return context

    def _handler(self, method: str, metadata: Any) -> Any:
        found: Callable[[Any], Any] = lambda details: self._methods.get(details.method)  # noqa: E731
        for interceptor in reversed(self._interceptors):
            found = partial(interceptor.intercept_service, found)
        return found(_Details(method, metadata))

    def _answer(self, method: str, request: bytes | None, context: Context) -> None:
        handler = self._handler(method, context.invocation_metadata())
        if handler is None:
            context.finish(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            return
        decode, encode = handler.request_deserializer or bytes, handler.response_serializer or bytes
        argument = decode(request) if request is not None else context.messages(decode)
        if handler.response_streaming:
            behaviour = handler.unary_stream or handler.stream_stream
        else:
            behaviour = handler.unary_unary or handler.stream_unary
        try:
            if getattr(behaviour, "experimental_non_blocking", False):
                behaviour(argument, context, _sender(context, encode))
                return
            if handler.response_streaming:
                for message in behaviour(argument, context):
                    context.observe(message, argument)
                    if not context.respond(encode(message)):
                        return
            else:
                message = behaviour(argument, context)
                context.observe(message, argument)
                context.respond(encode(message))
        except Exception as error:
            if context.code() is None:
                text = f"Exception calling application: {error}"
                context.finish(grpc.StatusCode.UNKNOWN, text)
        context.finish()


def _sender(context: Context, encode: Any) -> Callable[[Any], None]:
    def send(message: Any) -> None:
        if message is None:
            context.finish()
        else:
            context.respond(encode(message))

    return send
