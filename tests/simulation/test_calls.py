"""The sham of gRPC behaves like the real one where callers can tell."""

from __future__ import annotations

from random import Random
from typing import Any

import grpc

from masque.wire import tracing
from tests.simulation.calls import Channel, ChannelCredentials
from tests.simulation.network import Network, Weather
from tests.simulation.worlds import Host, World


def test_a_call_whose_channel_closes_ends_with_an_error_of_grpc() -> None:
    """Through interceptors as well: what `with_call` raises there is told by its `result`."""
    world = World(1)
    network = Network(world, Random(1), Weather())
    host, found = Host("here", world), list[Exception]()

    def ask() -> None:
        channel = Channel(network, "127.0.0.1:1", ChannelCredentials("somebody", b""))
        world.at(0.0, channel.close)
        try:
            tracing.traced(channel).unary_unary("/masque.v1.Party/Renew", None, None)(b"")
        except Exception as error:
            found.append(error)

    world.spawn(host, "ask", ask)
    world.run(lambda: bool(found), 10.0)
    (error,) = found
    assert isinstance(error, grpc.RpcError)
    assert _code(error) is grpc.StatusCode.CANCELLED


def _code(error: Any) -> Any:
    return error.code()
