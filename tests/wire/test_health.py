"""Health while watchers come and go: what is sent waits for nobody who waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2

from masque.wire.health import Health

SERVING, NOT_SERVING = 1, 2
EVERYTHING = health_pb2.HealthCheckRequest()


class Context:
    """Of a call whose end is told by the one thread that also completes what is sent."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.active = True
        self.code: Any = None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.callbacks.append(callback)
        return self.active

    def set_code(self, code: Any) -> None:
        self.code = code


def leaving(contexts: list[Context], stuck: list[bool]) -> Callable[[Any], None]:
    """A way to send that is over once the thread has told that the other watchers have left."""

    def send(reply: Any) -> None:
        if reply is None:
            return

        def tell() -> None:
            for context in contexts:
                for callback in context.callbacks:
                    callback()

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        thread.join(1.0)
        stuck.append(thread.is_alive())

    return send


def watched(servicer: Any) -> list[bool]:
    """Was the thread held up, while one watcher left and another was told?"""
    stuck: list[bool] = []
    first, second = Context(), Context()
    servicer.Watch(EVERYTHING, first, send_response_callback=lambda _: None)
    servicer.Watch(EVERYTHING, second, send_response_callback=leaving([first], stuck))
    return stuck


def test_a_watcher_that_leaves_while_another_is_told_stops_nobody() -> None:
    assert watched(Health()) == [False]


def test_that_of_grpc_would_be_noticed() -> None:
    assert watched(grpc_health.HealthServicer()) == [True]


def test_a_watcher_that_leaves_while_statuses_change_stops_nobody() -> None:
    servicer: Any = Health()
    stuck: list[bool] = []
    context = Context()
    servicer.Watch(EVERYTHING, context, send_response_callback=leaving([context], stuck))
    servicer.set(serving=True)
    servicer.set(serving=False)
    assert stuck == [False], "and who has left is told no more"


def test_watchers_are_told_every_change_once_and_the_last_status_last() -> None:
    servicer: Any = Health()
    told: list[int] = []
    servicer.Watch(EVERYTHING, Context(), send_response_callback=lambda r: told.append(r.status))
    for serving in (False, True, True, False, True):
        servicer.set(serving=serving)
    servicer.stop()
    servicer.set(serving=True)
    assert told == [NOT_SERVING, SERVING, NOT_SERVING, SERVING, NOT_SERVING]
    assert servicer.Check(EVERYTHING, Context()).status == NOT_SERVING


def test_a_watcher_that_has_left_already_is_not_kept() -> None:
    servicer: Any = Health()
    told: list[int] = []
    context = Context()
    context.active = False
    servicer.Watch(EVERYTHING, context, send_response_callback=lambda r: told.append(r.status))
    servicer.set(serving=True)
    assert told == [NOT_SERVING]


@pytest.mark.parametrize("name", ["masque", "x" * 1000])
def test_names_that_nobody_knows(name: str) -> None:
    servicer: Any = Health()
    told: list[int] = []
    context = Context()
    request = health_pb2.HealthCheckRequest(service=name)
    servicer.Check(request, context)
    assert context.code is not None
    servicer.Watch(request, Context(), send_response_callback=lambda r: told.append(r.status))
    servicer.set(serving=True)
    assert told == [health_pb2.HealthCheckResponse.SERVICE_UNKNOWN]
