"""Asking a service's `Host`: what it tells of itself, how far its clock is off, how far it is."""

from __future__ import annotations

import queue
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import grpc

from masque.v1 import host_pb2 as messages
from masque.v1.host_pb2_grpc import HostStub

ASKED = 3
"""Times that a service is asked for its clock: the quickest answer tells it best."""

PINGS = 15
CHUNK = 128 << 10
CHUNKS = 64
SECONDS = 0.7
"""For how long bytes are sent each way, if `CHUNKS` are not sent before."""

WINDOW = 32
"""Chunks that are under way at most."""


@dataclass(frozen=True)
class Told:
    """What a service tells of itself.

    `ahead`: seconds that its clock is ahead of ours, give or take `within`.
    """

    reply: Any
    ahead: float
    within: float


@dataclass(frozen=True)
class Way:
    """To a service: seconds of a round trip, bytes a second there and back."""

    round_trip: float
    there: float
    back: float


def describe(channel: grpc.Channel, *, timeout: float) -> Told:
    """Ask who a service is, and for its clock. Raises grpc.RpcError."""
    stub = HostStub(channel)
    found = []
    for _ in range(ASKED):
        began, before = time.monotonic(), time.time_ns()
        reply = stub.Describe(messages.DescribeHostRequest(), timeout=timeout)
        took = time.monotonic() - began
        ahead = (reply.clock - before) / 1e9 - took / 2
        found.append(Told(reply, ahead, took / 2))
    return min(found, key=lambda told: told.within)


def measure(channel: grpc.Channel, *, timeout: float) -> Way:
    """Measure the way to a service, in about two seconds. Raises grpc.RpcError."""
    with _Talk(channel, timeout) as talk:
        talk.round_trip()  # the first builds up the stream
        round_trip = statistics.median(talk.round_trip() for _ in range(PINGS))
        return Way(round_trip, talk.rate(CHUNK, 0), talk.rate(0, CHUNK))


class _Talk:
    """A stream of requests, each answered by one reply."""

    def __init__(self, channel: grpc.Channel, timeout: float) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call: Any = HostStub(channel).Measure(self._asked(), timeout=timeout)

    def _asked(self) -> Iterator[Any]:
        while (request := self._requests.get()) is not None:
            yield request

    def ask(self, there: int, back: int) -> None:
        """Send so many bytes, and have so many answered."""
        payload = bytes(there)
        self._requests.put(messages.MeasureRequest(payload=payload, answer_bytes=back))

    def round_trip(self) -> float:
        """Seconds of one."""
        began = time.monotonic()
        self.ask(0, 0)
        next(self._call)
        return time.monotonic() - began

    def rate(self, there: int, back: int) -> float:
        """Bytes a second of such messages, once the connection is up to speed.

        The number that is under way grows with every answer, so that a slow link is not
        congested for long.
        """
        sent, window = 0, 2
        answered: list[float] = []
        began = time.monotonic()
        while True:
            while sent < CHUNKS and sent - len(answered) < window:
                if sent >= 2 and time.monotonic() - began > SECONDS:
                    break
                self.ask(there, back)
                sent += 1
            if len(answered) == sent:
                break
            next(self._call)
            answered.append(time.monotonic())
            window = min(window + 1, WINDOW)
        first = len(answered) // 4
        moved = (there + back) * (len(answered) - 1 - first)
        return moved / max(1e-9, answered[-1] - answered[first])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._requests.put(None)
        self._call.cancel()
