"""What an exchange leaves behind when it is over: nothing."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

import grpc
import pytest

from masque.errors import MasqueError
from masque.wire.exchange import PeerExchange
from tests.wire.conftest import Project
from tests.wire.parties import Ring, ring

ATTEMPTS = 6


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def one_attempt(made: Ring, number: int, *, fails: bool) -> None:
    def party(index: int) -> None:
        site, other = made.sites[index], made.sites[1 - index]
        channel: grpc.Channel = site.channel(other)
        binding = replace(made.bindings[index], attempt=number)
        exchange = PeerExchange(site.hub, binding, {other.name: channel}, patience=10, opening=10)
        exchange.open()
        for _ in range(5):
            exchange.swap(bytes(100))
        if fails and index == 0:
            exchange.abort(MasqueError("enough"))
        elif fails:
            with pytest.raises(MasqueError):
                exchange.swap(bytes(100))
        exchange.close()
        channel.close()

    threads = [threading.Thread(target=party, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


@pytest.mark.parametrize("fails", [False, True], ids=["in peace", "aborted"])
def test_connections_do_not_outlive_their_attempt(project: Project, fails: bool) -> None:
    with ring(project, 2) as made:
        one_attempt(made, 1, fails=fails)
        before = descriptors()
        for number in range(2, 2 + ATTEMPTS):
            one_attempt(made, number, fails=fails)
        end = time.monotonic() + 10
        while descriptors() > before + 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert descriptors() <= before + 2
