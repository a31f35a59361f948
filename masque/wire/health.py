"""`grpc.health.v1`: whether this service serves, asked once or watched.

gRPC tells that a call is over in the one thread of the server that also completes what is sent. So
nothing is sent here under a lock that this thread needs. The service that comes with gRPC does so:
a watcher that leaves while its status is sent stops the whole server, for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masque.wire.handlers import NON_BLOCKING

Reply: Any = health_pb2.HealthCheckResponse

Send = Callable[[Any], None]


class _Watcher:
    """Somebody who is told every status; the last one told is the last there was."""

    def __init__(self, send: Send) -> None:
        self._send, self._sending = send, threading.Lock()
        self._told: int | None = None

    def tell(self, status: Callable[[], int]) -> None:
        """Send the status there is now, unless it was told already."""
        with self._sending:
            now = status()
            if now != self._told:
                self._told = now
                self._send(Reply(status=now))


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # untyped
    """The health of the server as a whole, under the name ""; no other is known."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status: int = Reply.NOT_SERVING
        self._over = False
        self._watchers: dict[_Watcher, None] = {}  # in the order in which they came

    def set(self, *, serving: bool) -> None:
        """From now on, say so to everybody; nothing happens after `stop`."""
        with self._lock:
            if self._over:
                return
            self._status = Reply.SERVING if serving else Reply.NOT_SERVING
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.tell(lambda: self._status)

    def stop(self) -> None:
        """Say NOT_SERVING until the end."""
        self.set(serving=False)
        with self._lock:
            self._over = True

    def Check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> Any:
        """The status; NOT_FOUND for a name that is not known."""
        if request.service:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return Reply()
        return Reply(status=self._status)

    def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Send,
    ) -> None:
        """The status and every change of it, until the caller leaves; a name that is not known
        stays SERVICE_UNKNOWN.
        """
        watcher = _Watcher(send_response_callback)
        if request.service:
            watcher.tell(lambda: Reply.SERVICE_UNKNOWN)
            return
        with self._lock:
            self._watchers[watcher] = None
        if not context.add_callback(lambda: self._leave(watcher)):
            self._leave(watcher)
        watcher.tell(lambda: self._status)

    setattr(Watch, NON_BLOCKING, True)

    def _leave(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.pop(watcher, None)
