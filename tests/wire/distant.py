"""A link that is long and thin: a relay on loopback that delays what it passes on."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from masque.wire.server import split_address

PIECE = 1 << 14


@contextmanager
def relayed(address: str, *, delay: float, rate: float) -> Iterator[str]:
    """The address of a relay to `address`: `delay` seconds and `rate` bytes a second each way."""
    sockets: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(split_address(address))
            sockets.extend((near, far))
            for source, target in ((near, far), (far, near)):
                _start(_pass_on, source, target, delay, rate)

    _start(accept)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for each in (listener, *sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _pass_on(source: socket.socket, target: socket.socket, delay: float, rate: float) -> None:
    waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(maxsize=256)
    _start(_deliver, waiting, target)
    free = time.monotonic()
    with suppress(OSError):
        while piece := source.recv(PIECE):
            free = max(free, time.monotonic()) + len(piece) / rate
            waiting.put((free + delay, piece))
    waiting.put((0.0, b""))


def _deliver(waiting: queue.Queue[tuple[float, bytes]], target: socket.socket) -> None:
    broken = False
    while True:
        due, piece = waiting.get()
        if not piece:
            break
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            if not broken:
                target.sendall(piece)
        except OSError:
            broken = True  # and go on taking, so that nobody waits for room
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _start(function: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()
