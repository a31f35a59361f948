"""A party that connects and disconnects for ever: it is named, and nothing grows."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from masque.errors import MasqueError, Unavailable
from masque.wire.exchange import PeerExchange
from masque.wire.frames import GREETING
from masque.wire.identity import Identity, Role
from masque.wire.streams import METHOD, ExchangeHandler, Outgoing, open_peer_channel
from masque.wire.tls import server_options
from tests.wire.conftest import PROJECT, Project
from tests.wire.parties import Ring, ring

WITHIN = 30.0


@pytest.fixture
def pair(project: Project) -> Iterator[Ring]:
    with ring(project, 2) as made:
        yield made


@contextlib.contextmanager
def fickle(pair: Ring, *, greets: bool) -> Iterator[str]:
    """Ben ends every stream to him at once, and hangs up on every one that he opens."""

    def admit(context: grpc.ServicerContext, outgoing: Outgoing) -> None:
        if greets:
            outgoing.send(GREETING)
        outgoing.finish(Unavailable("Back in a moment."))

    ben, over = pair.sites[1], threading.Event()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=server_options())
    server.add_generic_rpc_handlers((ExchangeHandler(admit),))
    port = server.add_secure_port("127.0.0.1:0", ben.credentials.for_server())
    server.start()

    def dial() -> None:
        claim = pair.bindings[1].claim("ann")
        with ben.channel(pair.sites[0]) as channel:
            while not over.is_set():
                call: Any = channel.unary_stream(METHOD, None, None)(b"", metadata=claim)
                over.wait(0.005)
                call.cancel()

    caller = threading.Thread(target=dial)
    caller.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        over.set()
        caller.join()
        server.stop(0).wait()


@pytest.mark.parametrize("greets", [False, True])
def test_a_peer_that_disconnects_for_ever_is_named(pair: Ring, greets: bool) -> None:
    ann = pair.sites[0]
    with fickle(pair, greets=greets) as address:
        threads = threading.active_count()
        expected = Identity(PROJECT, Role.PARTY, "ben")
        with open_peer_channel(address, expected, ann.credentials) as channel:
            exchange = PeerExchange(
                ann.hub, pair.bindings[0], {"ben": channel}, opening=3.0, patience=3.0
            )
            began = time.monotonic()
            error = None
            try:
                with exchange.open():
                    for _ in range(3):
                        exchange.swap(b"masked")
            except MasqueError as found:
                error = found
            assert error is not None, "a job with such a peer cannot go on"
            assert "ben" in f"{error} {error.where}"
            assert time.monotonic() - began < WITHIN
        until = time.monotonic() + WITHIN
        while threading.active_count() > threads + 8 and time.monotonic() < until:
            time.sleep(0.1)
        assert threading.active_count() <= threads + 8
        assert not ann.hub._open
        assert len(ann.hub._waiting) <= 64
