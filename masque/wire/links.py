"""One pair of parties in an exchange, as one of them sees it: both streams, and what went over."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import Any

import grpc

from masque.wire.binding import Binding
from masque.wire.streams import METHOD, Outgoing


@dataclass
class Traffic:
    """Payload bytes to and from one peer, and seconds spent waiting for it. No frame headers."""

    sent: int = 0
    received: int = 0
    waited: float = 0.0


@dataclass
class Link:
    """Both streams of one pair: `outgoing` in our server, `call` to theirs.

    `deaf`: the peer no longer listens. `expired`: it was waited for in vain.
    """

    peer: str
    channel: grpc.Channel
    traffic: Traffic = field(default_factory=Traffic)
    outgoing: Outgoing | None = None
    call: Any = None
    deaf: bool = False
    expired: bool = False
    _taking: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def dial(self, binding: Binding, lifetime: float) -> None:
        """Call the peer; it answers with frames, the greeting first, until `lifetime` is over."""
        stub = self.channel.unary_stream(METHOD, None, None)
        self.expired = False
        self.call = stub(b"", metadata=binding.claim(self.peer), timeout=lifetime)

    def send(self, message: bytes) -> None:
        """Hand a frame to the peer; that it left is told by what `receive` then raises, if any."""
        assert self.outgoing is not None, "an open exchange has all its streams"
        if not self.outgoing.send(message):
            self.deaf = True

    def receive(self) -> bytes:
        """The peer's next frame; `grpc.RpcError` or `StopIteration` if there is none."""
        with self._taking:
            message: bytes = next(self.call)
        return message

    def stop_sending(self) -> None:
        """Give up a `send` that waits; called by a thread that watches the time."""
        assert self.outgoing is not None
        self.expired = self.deaf = True
        self.outgoing.cancel()

    def stop_receiving(self) -> None:
        """Give up a `receive` that waits; called by a thread that watches the time."""
        self.expired = True
        self.hang_up()

    def hang_up(self) -> None:
        """End the call to the peer; a `receive` that waits raises."""
        if self.call is not None:
            self.call.cancel()

    def drain(self) -> None:
        """Let gRPC see the end of a call that was cancelled, or it keeps the connection for ever.

        What a call of a single thread still has to be told, nobody else takes. A `receive` that
        waits ends first.
        """
        with self._taking, contextlib.suppress(KeyError):  # gRPC's, if the connection is gone
            state = getattr(self.call, "_state", None)
            while state is not None and state.due:
                self.call._consume_next_event()
