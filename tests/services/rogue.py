"""A party that stands between the coordinator and a real one, and changes what that one says."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import yaml

from masque.v1 import party_pb2
from masque.wire.identity import Identity, Role
from masque.wire.server import Server
from masque.wire.streams import GenericHandler
from masque.wire.tls import Credentials, channel_options, find_credentials
from services.party.service import PERMISSIONS
from tests.client.networks import Running

Change = Callable[[bytes, Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]
"""What the coordinator hears, from its request and what the real party would answer."""

STREAMS = {"Prepare", "RunRound", "FetchSealed"}


@dataclass
class Rogue(GenericHandler):
    """Hands on what the coordinator asks, and what `real` answers, but for `lies`, by method."""

    real: grpc.Channel
    lies: dict[str, Change] = field(default_factory=dict)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        path = details.method
        if path not in PERMISSIONS:
            return None
        name = path.rpartition("/")[2]
        if name in STREAMS:
            call: Any = self.real.unary_stream(path, None, None)
        else:
            call = self.real.unary_unary(path, None, None)

        def honest(request: bytes, seconds: float | None) -> Iterator[bytes]:
            found = call(request, timeout=seconds)
            yield from (found if name in STREAMS else [found])

        def answer(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            real = honest(request, context.time_remaining())
            lie = self.lies.get(name)
            try:
                yield from (real if lie is None else lie(request, real, context))
            except grpc.RpcError as error:
                found: Any = error
                context.set_trailing_metadata(found.trailing_metadata())
                context.abort(found.code(), found.details())

        if name in STREAMS:
            return grpc.unary_stream_rpc_method_handler(answer)
        return grpc.unary_unary_rpc_method_handler(lambda *asked: next(answer(*asked)))


@contextmanager
def between(net: Running, name: str, lease: float) -> Iterator[Rogue]:
    """A rogue before the party `name`, as the coordinator sees it; nobody waits long."""
    place, coordinator = net.place(name), net.place("coordinator")
    settings = yaml.safe_load(coordinator.config.read_text())
    stolen = find_credentials(place.config.parent / "certificates")
    listens = yaml.safe_load(place.config.read_text())["listen"]
    with _reaching(listens, stolen.identity, _stolen(net)) as channel:
        rogue = Rogue(channel)
        register = [lambda server: server.add_generic_rpc_handlers((rogue,))]
        with Server(stolen, "127.0.0.1:0", PERMISSIONS, register, grace=0.5) as server:
            server.ready()
            for party in settings["parties"]:
                if party["name"] == name:
                    party["address"] = server.address
            coordinator.config.write_text(yaml.safe_dump(settings | {"lease_seconds": lease}))
            for other in net.network.places[:-1]:
                limits = {"limits": {"lease_seconds": lease}}
                read = yaml.safe_load(other.config.read_text())
                other.config.write_text(yaml.safe_dump(read | limits))
            net.revive(*(place.name for place in net.network.places))
            yield rogue


def _stolen(net: Running) -> Credentials:
    return find_credentials(net.place("coordinator").config.parent / "certificates")


@contextmanager
def _reaching(address: str, who: Identity, own: Credentials) -> Iterator[grpc.Channel]:
    assert who.role is Role.PARTY
    options = channel_options(who, max_reply=1 << 30)
    with grpc.secure_channel(address, own.for_channel(), options=options) as channel:
        yield channel


# -- lies ---------------------------------------------------------------------------------------


def changed(kind: Any, **fields: Any) -> Change:
    """Every message of the real party, with other fields."""

    def lie(request: bytes, real: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        for raw in real:
            message = kind.FromString(raw)
            for name, value in fields.items():
                message.ClearField(name)
                message.MergeFrom(kind(**{name: value}))
            yield message.SerializeToString()

    return lie


def said(*messages: Any, then: Callable[[], object] = lambda: None) -> Change:
    """These messages, without asking the real party."""

    def lie(request: bytes, _: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for message in messages:
            yield message.SerializeToString()
        then()

    return lie


def endless(message: Any) -> Change:
    """One message over and over, as fast as the coordinator takes it."""

    def lie(request: bytes, _: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        raw = message.SerializeToString()
        while context.is_active():
            yield raw

    return lie


def counting() -> Change:
    """Progress without end: each message says that more has been exchanged than the last."""

    def lie(request: bytes, _: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for count in itertools.count():
            if not context.is_active():
                return
            traffic = party_pb2.Traffic(exchanges=count, sent=count)
            time.sleep(0.001)
            yield party_pb2.RoundProgress(traffic=traffic, doing="x" * 900).SerializeToString()

    return lie


def silent() -> Change:
    """Nothing, and no end."""

    def lie(request: bytes, _: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        over = threading.Event()
        if context.add_callback(over.set):
            over.wait()
        yield from ()

    return lie
