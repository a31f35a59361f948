"""The two ends of a stream of frames between parties, with as few threads on the way as gRPC has.

Every party calls `Exchange` on every other party's server and reads the answers: what a party
sends travels as responses of its own server. Measured against the alternatives (a bidirectional
stream per pair, client streams, asyncio), this wakes the fewest threads:

- the **receiver** is the client of a unary-stream call on a channel with the option
  `SingleThreadedUnaryStream`, so that `next(call)` waits for the network itself;
- the **sender** is a handler marked `experimental_non_blocking`, to which gRPC hands a function
  that sends a response from whatever thread calls it, as `masque.wire.health` uses it.

Should a future gRPC, or something between gRPC and the handler, not know that mark, the handler is
called without the function. It then returns a generator that a thread of the server drains through
a short queue: the same stream, one more thread. Both are tested.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import grpc.experimental

from masque.errors import MasqueError
from masque.wire import polling
from masque.wire.failures import ERROR_KEY, clean, pack, status_of
from masque.wire.identity import Identity
from masque.wire.tls import Credentials, Option, channel_options
from masque.wire.tracing import traced

METHOD = "/masque.v1.Party/Exchange"
"""Raw frames of `masque.wire.frames`: `rpc Exchange(Hello) returns (stream Frame)`."""

PEER_OPTIONS: tuple[Option, ...] = (
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
    # One message of a swap fits the window, so that no party waits to send while all send.
    ("grpc.http2.lookahead_bytes", 4 * 1024 * 1024),
)
"""What the channels of an exchange have beyond every channel's options."""

FAST = polling.CHOSEN_IN_TIME
"""Whether gRPC was imported with the settings of `masque.wire.polling`."""

_QUEUE = 2
_FINISH_PATIENCE = 0.5
_DETAILS_LIMIT = 1_500

Respond = Callable[[bytes | None], None]
"""Sends a response and returns once gRPC has taken it; None ends the call."""

if TYPE_CHECKING:  # generic in the stubs only
    MethodHandler = grpc.RpcMethodHandler[bytes, bytes]
    GenericHandler = grpc.GenericRpcHandler[bytes, bytes]
else:
    MethodHandler = grpc.RpcMethodHandler
    GenericHandler = grpc.GenericRpcHandler


def open_peer_channel(address: str, expected: Identity, credentials: Credentials) -> grpc.Channel:
    """A channel to the party `expected` at `address`, for the stream of an exchange.

    As `masque.wire.tls.open_channel`: if anybody else answers, the handshake fails.
    """
    options = peer_options(expected)
    return traced(grpc.secure_channel(address, credentials.for_channel(), options=options))


def peer_options(expected: Identity) -> list[Option]:
    """The options of a channel for the stream of an exchange."""
    return [*channel_options(expected), *PEER_OPTIONS]


class Outgoing(ABC):
    """The sender's end of a stream: frames to the one peer that called for them."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context

    @property
    def alive(self) -> bool:
        """Whether the peer still listens, as far as anybody knows."""
        return self._context.is_active()

    @abstractmethod
    def send(self, message: bytes) -> bool:
        """Hand `message` to gRPC, waiting while the peer is slow; False if the peer has left."""

    @abstractmethod
    def finish(self, error: MasqueError | None = None) -> None:
        """End the stream and tell the peer why. Safe in any thread, also while another sends."""

    def cancel(self) -> None:
        """Break the stream off, so that a `send` that waits returns."""
        self._context.cancel()  # type: ignore[no-untyped-call]

    def _conclude(self, error: MasqueError | None) -> None:
        if error is not None:
            self._context.set_trailing_metadata(((ERROR_KEY, pack(error)),))
            self._context.set_code(status_of(error))
            self._context.set_details(clean(str(error), _DETAILS_LIMIT))


class DirectOutgoing(Outgoing):
    """Sends from the caller's own thread, by the function that gRPC handed to the handler."""

    def __init__(self, context: grpc.ServicerContext, respond: Respond) -> None:
        super().__init__(context)
        self._respond = respond
        self._sending = threading.Lock()
        self._over = False

    def send(self, message: bytes) -> bool:
        """See `Outgoing.send`."""
        with self._sending:
            if self._over or not self.alive:
                return False
            self._respond(message)
        return True

    def finish(self, error: MasqueError | None = None) -> None:
        """See `Outgoing.finish`; a `send` that the peer blocks is broken off."""
        if not self._sending.acquire(timeout=_FINISH_PATIENCE):
            self.cancel()
            return
        try:
            if not self._over and self.alive:
                self._conclude(error)
                self._respond(None)
            self._over = True
        finally:
            self._sending.release()


class QueuedOutgoing(Outgoing):
    """Sends through a short queue that a thread of the server drains (`messages`)."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        super().__init__(context)
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUE)
        self._left = threading.Event()
        self._ending = threading.Lock()
        self._over = False
        self._error: MasqueError | None = None
        if not context.add_callback(self._leave):
            self._leave()

    def send(self, message: bytes) -> bool:
        """See `Outgoing.send`."""
        return not self._over and self._put(message, None)

    def finish(self, error: MasqueError | None = None) -> None:
        """See `Outgoing.finish`."""
        with self._ending:
            if self._over:
                return
            self._over, self._error = True, error
        if not self._put(None, _FINISH_PATIENCE):
            self.cancel()

    def messages(self) -> Iterator[bytes]:
        """What the handler returns: the frames, until `finish`."""
        while (message := self._queue.get()) is not None:
            yield message
        self._conclude(self._error)

    def _put(self, message: bytes | None, patience: float | None) -> bool:
        step = 0.1
        while not self._left.is_set() and (patience is None or patience > 0):
            try:
                self._queue.put(message, timeout=step)
            except queue.Full:
                patience = None if patience is None else patience - step
            else:
                return True
        return False

    def _leave(self) -> None:
        self._left.set()
        with contextlib.suppress(queue.Full):  # if full, nobody waits in `messages`
            self._queue.put_nowait(None)


class ExchangeHandler(GenericHandler):
    """Answers `Exchange` calls by handing the sender's end of each stream to `admit`.

    `admit(context, outgoing)` returns at once and keeps `outgoing`, or raises a `MasqueError`,
    which then ends the call. With `direct=False` every stream goes through a queue.
    """

    def __init__(
        self, admit: Callable[[grpc.ServicerContext, Outgoing], None], *, direct: bool = True
    ) -> None:
        behaviour: Any = _Direct(admit) if direct else _Behaviour(admit)
        self._handler: MethodHandler = grpc.unary_stream_rpc_method_handler(behaviour)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler | None:
        """Called by gRPC for every call."""
        return self._handler if handler_call_details.method == METHOD else None


class _Behaviour:
    """The handler's function, an object so that wrapping it does not copy gRPC's mark."""

    __slots__ = ("_admit",)

    def __init__(self, admit: Callable[[grpc.ServicerContext, Outgoing], None]) -> None:
        self._admit = admit

    def __call__(
        self, request: bytes, context: grpc.ServicerContext, respond: Respond | None = None
    ) -> Iterator[bytes]:
        if respond is None:
            queued = QueuedOutgoing(context)
            self._try(context, queued)
            return queued.messages()
        self._try(context, DirectOutgoing(context, respond))
        return iter(())

    def _try(self, context: grpc.ServicerContext, outgoing: Outgoing) -> None:
        try:
            self._admit(context, outgoing)
        except MasqueError as error:
            outgoing.finish(error)


class _Direct(_Behaviour):
    __slots__ = ()
    experimental_non_blocking = True
