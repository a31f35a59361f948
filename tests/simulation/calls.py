"""gRPC as its callers see it: a channel for the generated stubs, between simulated hosts.

Requests and responses are serialised as always. A `Call` is one RPC; what its handler sees of it is
in `servers`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from tests.simulation import locks
from tests.simulation.network import REFUSED, TIMED_OUT, Network
from tests.simulation.worlds import Alarm, Host, World

if TYPE_CHECKING:
    from tests.simulation.servers import Context

    Future = grpc.Future[Any]
else:
    Future = grpc.Future

EXCHANGE = "/masque.v1.Party/Exchange"
WINDOW = 1 << 16
"""Bytes of a stream that may be under way, or wait to be read; of an exchange, more."""

ONCE = {EXCHANGE, "/masque.v1.Party/Upload", "/grpc.health.v1.Health/Watch"}
"""What no transport sends twice: streams of their own."""

CONNECT = 3.0
"""Seconds until a connection that nobody answers is given up."""

OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
Status = tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]
_numbers = itertools.count()


class ChannelCredentials:
    """Who calls: takes the place of gRPC's own."""

    def __init__(self, uri: str, pem: bytes) -> None:
        self.uri, self.pem = uri, pem


class Channel(grpc.Channel):
    """A channel from the host that opens it to an address."""

    def __init__(self, network: Network, address: str, credentials: ChannelCredentials) -> None:
        self.network, self.address, self.credentials = network, address, credentials
        self.host = network.world.here
        self.calls: dict[int, Call] = {}
        self.closed = False

    def unary_unary(self, method: str, *coders: Any, **named: Any) -> Any:
        return _Method(self, method, *_coders(coders, named))

    def unary_stream(self, method: str, *coders: Any, **named: Any) -> Any:
        return _Streaming(self, method, *_coders(coders, named))

    def stream_unary(self, method: str, *coders: Any, **named: Any) -> Any:
        return _Method(self, method, *_coders(coders, named), many=True)

    def stream_stream(self, method: str, *coders: Any, **named: Any) -> Any:
        raise NotImplementedError("no job needs it")

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        raise NotImplementedError("no job needs it")

    def unsubscribe(self, callback: Any) -> None:
        raise NotImplementedError("no job needs it")

    def close(self) -> None:
        self.closed = True
        for call in list(self.calls.values()):
            call.settle((CANCELLED, "Channel closed!", ()))

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _coders(given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    encode, decode = (*given, None, None)[:2]
    return named.get("request_serializer", encode), named.get("response_deserializer", decode)


class _Method:
    """A method with one response."""

    def __init__(
        self, channel: Channel, method: str, encode: Any, decode: Any, *, many: bool = False
    ) -> None:
        self._channel, self._method, self._many = channel, method, many
        self._encode, self._decode = encode or bytes, decode or bytes

    def future(
        self, request: Any, timeout: float | None = None, metadata: Any = None, **_: Any
    ) -> Call:
        if self._channel.closed:
            raise ValueError("Cannot invoke RPC on closed channel!")
        call = Call(self._channel, self._method, self._decode, timeout, metadata or ())
        if self._many:
            call.open(None)
            World.current.spawn(call.client, "consume", lambda: self._consume(call, request))
        else:
            call.open(self._encode(request))
        return call

    def with_call(self, request: Any, *more: Any, **named: Any) -> tuple[Any, Call]:
        call = self.future(request, *more, **named)
        call.awaited = True
        return call.answer(), call

    def __call__(self, request: Any, *more: Any, **named: Any) -> Any:
        return self.with_call(request, *more, **named)[0]

    def _consume(self, call: Call, requests: Iterator[Any]) -> None:
        """In gRPC's thread: send what the caller's iterator gives."""
        for request in requests:
            if not call.send_request(self._encode(request)):
                return
        call.send_request(None)


class _Streaming(_Method):
    """A method with a stream of responses."""

    def __call__(self, request: Any, *more: Any, **named: Any) -> Any:
        return self.future(request, *more, **named)


class _Stream:
    """One direction: in order, with a window."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.items: deque[Any] = deque()
        self.size = 0
        self.arrived = 0.0
        self.changed = locks.Condition(locks.Lock())


class Call(grpc.RpcError, grpc.Call, Future):
    """One RPC. As in gRPC, it is its own error."""

    def __init__(
        self, channel: Channel, method: str, decode: Any, timeout: float | None, metadata: Any
    ) -> None:
        super().__init__()
        self.number = next(_numbers)
        self.channel, self.method, self.metadata = channel, method, tuple(metadata)
        self.network, self.client = channel.network, channel.host
        self.world = self.network.world
        self._decode = decode
        self.context: Context | None = None
        self.twin: Context | None = None
        listener = self.network.listeners.get(channel.address)
        self.target = listener.host.name if listener else channel.address
        self.status: Status | None = None
        self.awaited = False
        """Whether its caller waits, who is told of every end by gRPC's `_InactiveRpcError`."""
        self.responses = _Stream((4 << 20) if method == EXCHANGE else WINDOW)
        self.requests = _Stream(WINDOW)
        self._done = locks.Event()
        self._callbacks: list[Callable[[Any], object]] = []
        self._alarm: Alarm | None = None
        self.deadline = None if timeout is None else self.world.now + timeout
        if timeout is not None:
            self._alarm = self.world.at(timeout, self._late)
        channel.calls[self.number] = self
        self.network.calls[self.number] = self

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"Call({self.number}, {self.method})"

    @property
    def server(self) -> Host | None:
        """The host that answers, once it has heard of the call."""
        return self.context.host if self.context is not None else None

    # -- to the server ---------------------------------------------------------------------------

    def open(self, request: bytes | None) -> None:
        """Connect, and let the server begin."""
        network, at = self.network, self.channel.address
        self.world.note(f"call {self.client.name} -> {self.target} {self.method}")

        def connect() -> None:
            listener = network.listeners.get(at)
            if listener is None:
                text = REFUSED.format(at=at)
                self._later(lambda: self.settle((grpc.StatusCode.UNAVAILABLE, text, ())))
                return
            self.target = listener.host.name
            self.context = listener.accept(self, request)
            if network.random.random() < network.weather.twice and self.method not in ONCE:
                self._again(request)

        if network.silent(self.client.name, self.target):
            text = TIMED_OUT.format(at=at)
            late = (grpc.StatusCode.UNAVAILABLE, text, ())
            self.world.at(CONNECT, lambda: self.settle(late))
            return
        self.requests.arrived = network.carry(self.client.name, self.target, connect)

    def _again(self, request: bytes | None) -> None:
        """The transport sends the request once more; nobody reads the second answer."""

        def arrive() -> None:
            listener = self.network.listeners.get(self.channel.address)
            if listener is not None and request is not None:
                self.world.note(f"twice {self.method}")
                self.twin = listener.accept(self, request, twin=True)
                if self.status is not None:
                    self.twin.hang_up()

        behind = self.network.weather.behind
        late = self.world.now + behind * self.network.random.random() if behind else 0.0
        self.network.carry(self.client.name, self.target, arrive, after=late)

    def send_request(self, message: bytes | None) -> bool:
        """A further request, in the caller's thread; None: no more. False if the call is over."""
        stream = self.requests
        with stream.changed:
            stream.changed.wait_for(lambda: stream.size < stream.window or self.status is not None)
        if self.status is not None:
            return False
        stream.size += len(message or b"")

        def arrive() -> None:
            if self.context is not None:
                self.context.receive(message)

        stream.arrived = self.network.carry(
            self.client.name, self.target, arrive, after=stream.arrived
        )
        return True

    def _later(self, act: Callable[[], None]) -> None:
        stream = self.responses
        stream.arrived = self.network.carry(
            self.target, self.client.name, act, after=stream.arrived
        )

    def _late(self) -> None:
        self.settle((grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", ()))

    # -- from the server -------------------------------------------------------------------------

    def deliver(self, message: bytes) -> None:
        """A response is on its way."""

        def arrive() -> None:
            if self.status is None:
                self.responses.items.append(message)
                self._tell()

        self._later(arrive)

    def conclude(self, status: Status) -> None:
        """The server has ended the call."""
        self._later(lambda: self.settle(status))

    def broken(self, why: str) -> None:
        """The connection is gone, for both ends."""
        if self.context is not None:
            self.context.hang_up()
        self.settle((grpc.StatusCode.UNAVAILABLE, why, ()))

    def settle(self, status: Status) -> None:
        """It is over for the caller, for the first reason that comes."""
        if self.status is not None:
            return
        self.status = status
        self.channel.calls.pop(self.number, None)
        self.network.calls.pop(self.number, None)
        if self._alarm is not None:
            self._alarm.cancel()
        for context in (self.context, self.twin):
            if context is not None and not context.over:
                self.network.carry(self.client.name, self.target, context.hang_up)
        self._done.set()
        self._tell()
        callbacks, self._callbacks = self._callbacks, []
        if callbacks and not self.client.dead:
            self.world.spawn(self.client, "grpc", lambda: [each(self) for each in callbacks])

    def _tell(self) -> None:
        for stream in (self.responses, self.requests):
            stream.changed.notify_all()

    # -- what a caller sees ----------------------------------------------------------------------

    def __iter__(self) -> Call:
        return self

    def __next__(self) -> Any:
        stream = self.responses
        with stream.changed:
            stream.changed.wait_for(lambda: stream.items or self.status is not None)
        if stream.items and (self.status is None or self.status[0] is not CANCELLED):
            message = stream.items.popleft()
            if self.context is not None:
                self.context.credit(len(message))
            return self._decode(message)
        assert self.status is not None
        if self.status[0] is OK:
            raise StopIteration
        raise self

    def answer(self) -> Any:
        """The only response."""
        self._done.wait()
        assert self.status is not None
        if self.status[0] is not OK:
            raise self
        return self._decode(self.responses.items[0])

    def result(self, timeout: float | None = None) -> Any:
        if not self._done.wait(timeout):
            raise grpc.FutureTimeoutError
        assert self.status is not None
        if self.status[0] is CANCELLED and not self.awaited:
            raise grpc.FutureCancelledError
        return self.answer()

    def exception(self, timeout: float | None = None) -> Any:
        self._done.wait(timeout)
        return None if self.status is not None and self.status[0] is OK else self

    def traceback(self, timeout: float | None = None) -> Any:
        return None

    def cancel(self) -> bool:
        if self.status is not None:
            return False
        self.settle((CANCELLED, "Locally cancelled by application!", ()))
        return True

    def cancelled(self) -> bool:
        return self.status is not None and self.status[0] is CANCELLED

    def running(self) -> bool:
        return self.status is None

    def done(self) -> bool:
        return self.status is not None

    def is_active(self) -> bool:
        return self.status is None

    def time_remaining(self) -> Any:
        return None if self.deadline is None else max(0.0, self.deadline - self.world.now)

    def add_callback(self, callback: Any) -> bool:
        if self.status is not None:
            return False
        self._callbacks.append(lambda _: callback())
        return True

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        if self.status is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    def initial_metadata(self) -> Any:
        return ()

    def trailing_metadata(self) -> Any:
        return self.status[2] if self.status is not None else ()

    def code(self) -> Any:
        self._done.wait()
        assert self.status is not None
        return self.status[0]

    def details(self) -> Any:
        self._done.wait()
        assert self.status is not None
        return self.status[1]
