"""What an exchange leaves behind when it is over: nothing."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

import pytest

from masque.errors import Conflict, MasqueError, passing
from masque.wire.binding import Binding
from masque.wire.exchange import PeerExchange
from masque.wire.registration import Registration
from tests.wire.conftest import Project
from tests.wire.parties import Ring, ring

ATTEMPTS = 6


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def one_attempt(made: Ring, number: int, *, fails: bool) -> None:
    def party(index: int) -> None:
        site = made.sites[index]
        channels = {other.name: site.channel(other) for other in made.sites if other is not site}
        binding = replace(made.bindings[index], attempt=number)
        exchange = PeerExchange(site.hub, binding, channels, patience=10, opening=10)
        exchange.open()
        for _ in range(5):
            exchange.swap(bytes(100))
        if fails and index == 0:
            time.sleep(0.1)  # the others wait in their swap
            exchange.abort(MasqueError("enough"))
        elif fails:
            with pytest.raises(MasqueError):
                exchange.swap(bytes(100))
        exchange.close()
        for channel in channels.values():
            channel.close()

    threads = [threading.Thread(target=party, args=(index,)) for index in range(len(made.sites))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


@pytest.mark.parametrize("fails", [False, True], ids=["in peace", "aborted"])
@pytest.mark.parametrize("parties", [2, 3])
def test_connections_do_not_outlive_their_attempt(
    project: Project, fails: bool, parties: int
) -> None:
    with ring(project, parties) as made:
        one_attempt(made, 1, fails=fails)
        before = descriptors()
        for number in range(2, 2 + ATTEMPTS):
            one_attempt(made, number, fails=fails)
        end = time.monotonic() + 10
        while descriptors() > before + 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert descriptors() <= before + 2


def test_an_abort_just_before_it_registers_leaves_nothing_registered(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ring(project, 2) as made, made.exchange(0) as exchange:
        hub = made.sites[0].hub
        real = hub.register

        def register(binding: Binding, on_error: object = None) -> Registration:
            exchange.abort("The coordinator has ended it.")
            return real(binding, None)

        monkeypatch.setattr(hub, "register", register)
        with pytest.raises(MasqueError, match="has ended it"):
            exchange.open()
        monkeypatch.undo()
        real(replace(made.bindings[0], attempt=2)).close()


def test_an_attempt_that_still_runs_does_not_end_the_job(project: Project) -> None:
    with ring(project, 2) as made:
        hub, binding = made.sites[0].hub, made.bindings[0]
        registration = hub.register(binding)
        with pytest.raises(Conflict, match="still runs") as caught:
            hub.register(replace(binding, attempt=2))
        assert passing(caught.value)
        registration.close()
