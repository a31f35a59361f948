"""Exchanges between honest parties: swaps of every size, failures of peers, aborts."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from masque.errors import JobFailed, MasqueError, ProtocolError, Unavailable
from masque.wire.exchange import DIRECT, PeerExchange
from masque.wire.frames import CHUNK, frame
from masque.wire.identity import Identity, Role
from masque.wire.links import Link
from masque.wire.server import Server
from masque.wire.streams import METHOD, DirectOutgoing, Outgoing, QueuedOutgoing, open_peer_channel
from tests.wire.conftest import PROJECT, Project
from tests.wire.parties import NAMES, Ring, ring

SIZES = (0, 1, 64, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 5_000_001)


def payload(index: int, position: int, size: int) -> bytes:
    return bytes([16 * index + position]) * size


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "queued"])
@pytest.mark.parametrize("parties", [2, 3, 5])
def test_everyone_gets_what_the_others_sent(project: Project, parties: int, direct: bool) -> None:
    def work(index: int, exchange: PeerExchange) -> dict[str, Any]:
        for position, size in enumerate(SIZES):
            received = exchange.swap(payload(index, position, size))
            others = [other for other in range(parties) if other != index]
            assert [bytes(part) for part in received] == [
                payload(other, position, size) for other in others
            ]
        assert exchange.rounds == len(SIZES)
        assert exchange.waited > 0
        return exchange.traffic

    with ring(project, parties, direct=direct) as running:
        results = running.run(work)
    for index, traffic in enumerate(results):
        assert not isinstance(traffic, Exception), traffic
        assert list(traffic) == [name for name in NAMES[:parties] if name != NAMES[index]]
        for peer in traffic.values():
            assert peer.sent == peer.received == sum(SIZES)


def test_senders_send_from_the_thread_that_swaps(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> str:
        return type(exchange._links[0].outgoing).__name__

    kinds = {name.__name__ for name in (DirectOutgoing, QueuedOutgoing)}
    results = pair.run(work)
    assert len(set(results)) == 1
    assert set(results) <= kinds


def test_payloads_may_be_views(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> bytes:
        return bytes(exchange.swap(memoryview(bytes([index]) * 3))[0])

    assert pair.run(work) == [b"\1\1\1", b"\0\0\0"]


def test_through_the_server_that_services_run(project: Project) -> None:
    """The same hubs behind authorisation, error reports and health."""
    with ring(project, 2) as two:
        servers = []
        for site in two.sites:
            site.server.stop(0).wait()
            server = Server(
                site.credentials, "127.0.0.1:0", {METHOD: {Role.PARTY}}, [site.hub.mount], grace=0
            )
            server.start()
            servers.append(server)
            site.address = server.address
        try:
            assert two.run(lambda index, exchange: bytes(exchange.swap(b"%d" % index)[0])) == [
                b"1",
                b"0",
            ]
        finally:
            for server in servers:
                server.stop()


def test_a_slow_peer_is_waited_for(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> float:
        time.sleep(0.8 * index)
        exchange.swap(b"x")
        return exchange.waited

    waited = pair.run(work, patience=5.0)
    assert waited[0] > 0.6
    assert waited[1] < 0.6


def test_a_peer_that_is_too_slow_is_named_with_the_swap_and_a_cure(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> None:
        exchange.swap(b"x")
        if index == 0:
            exchange.swap(b"y")
        else:
            time.sleep(1.5)
            exchange.swap(b"y")

    late, told = pair.run(work, patience=0.6)
    assert isinstance(late, Unavailable)
    assert "Party 'ben' sent nothing for 0.6 s" in str(late)
    assert "Job 'job', swap 1" in str(late)
    assert "dealer" in late.hint
    assert late.where["party"] == "ben"
    assert isinstance(told, JobFailed)
    assert told.where["party"] == "ben"
    assert told.where["reporter"] == "ann"


def test_an_abort_wakes_the_swap_and_tells_everyone(three: Ring) -> None:
    reason = Unavailable("Dealer 'd' does not answer.", hint="Start it.", service="dealer 'd'")

    def work(index: int, exchange: PeerExchange) -> None:
        exchange.swap(b"x")
        if index == 0:
            threading.Timer(0.3, exchange.abort, (reason,)).start()
        if index > 0:
            time.sleep(0.6)  # is told even though it did not wait when it happened
        exchange.swap(b"y" * 100)
        exchange.swap(b"z")

    began = time.monotonic()
    own, *others = three.run(work)
    assert time.monotonic() - began < 5
    assert [type(error) for error in others] == [JobFailed, JobFailed], others
    assert all(error.where["party"] == "dealer 'd'" for error in others)
    assert all(error.where["reporter"] == "ann" for error in others)
    assert all("Dealer 'd' does not answer." in str(error) for error in others)
    assert own is reason


def test_an_abort_wakes_a_swap_that_waits(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> float:
        if index == 1:
            time.sleep(1.0)
            return exchange.swap(b"x")  # type: ignore[return-value]
        began = time.monotonic()
        threading.Timer(0.3, exchange.abort, ("The job was cancelled.",)).start()
        with pytest.raises(JobFailed, match="The job was cancelled"):
            exchange.swap(b"x")
        with pytest.raises(JobFailed, match="The job was cancelled"):
            exchange.swap(b"x")  # for good
        return time.monotonic() - began

    seconds, told = pair.run(work)
    assert seconds < 0.9
    assert isinstance(told, JobFailed)
    assert "Party 'ann' gave up job 'job' at swap 0: The job was cancelled." in str(told)
    assert told.where["party"] == "ann"


def test_an_abort_wakes_a_send_that_the_peer_blocks(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> float:
        if index == 1:
            time.sleep(2.0)
            return 0.0
        outgoing = exchange._links[0].outgoing
        assert outgoing is not None
        threading.Timer(0.3, exchange.abort, ("Enough.",)).start()
        began = time.monotonic()
        while outgoing.send(bytes(CHUNK)):
            assert time.monotonic() - began < 10
        return time.monotonic() - began

    seconds, _ = pair.run(work)
    assert seconds < 1.9


def test_long_payloads_need_no_room_on_the_way(pair: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a long way no message is gone before the peer reads: both read while both send."""
    reading = threading.Semaphore(0)
    send, receive = Link.send, Link.receive

    def late(link: Link, message: bytes) -> None:
        assert reading.acquire(timeout=10), "nobody reads while we send"
        send(link, message)

    def told(link: Link) -> bytes:
        reading.release()
        return receive(link)

    def work(index: int, exchange: PeerExchange) -> list[int]:
        meet.wait()  # both are open: a greeting was not sent by `send`
        return [len(exchange.swap(bytes(size))[0]) for size in (DIRECT + 1, 2 * CHUNK)]

    def begin() -> None:
        monkeypatch.setattr(Link, "send", late)
        monkeypatch.setattr(Link, "receive", told)

    meet = threading.Barrier(2, begin)
    assert pair.run(work) == [[DIRECT + 1, 2 * CHUNK]] * 2


def test_back_pressure_a_sender_cannot_run_far_ahead(pair: Ring) -> None:
    sent: list[int] = []

    def send_all(outgoing: Outgoing) -> None:
        for number in range(200):
            if not outgoing.send(bytes(CHUNK)):
                return
            sent.append(number)

    def work(index: int, exchange: PeerExchange) -> None:
        outgoing = exchange._links[0].outgoing
        assert outgoing is not None
        if index == 1:
            time.sleep(1.0)
            return
        thread = threading.Thread(target=send_all, args=(outgoing,))
        thread.start()
        time.sleep(0.8)
        assert len(sent) < 30  # MiB
        exchange.abort("Enough.")
        thread.join(5)
        assert not thread.is_alive()

    results = pair.run(work)
    assert results[0] is None, results


def test_an_accident_is_reported_without_its_text(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> None:
        exchange.swap(b"x")
        if index == 0:
            raise ValueError("share 0x1337")
        exchange.swap(b"y")

    own, told = pair.run(work)
    assert isinstance(own, ValueError)
    assert isinstance(told, JobFailed)
    assert "Party 'ann' failed on its own account (ValueError)" in str(told)
    assert "1337" not in str(told) + repr(told.where)


def test_leaving_early_is_an_error_for_the_others(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> None:
        if index == 0:
            exchange.swap(b"x")

    error, left = pair.run(work)
    assert left is None
    assert isinstance(error, ProtocolError)
    assert "Party 'ben' ended its exchange while more was due." in str(error)
    assert "swap 0" in str(error)


def test_unequal_payloads_are_a_protocol_error_at_both(pair: Ring) -> None:
    results = pair.run(lambda index, exchange: exchange.swap(bytes(4 + index)))
    assert any(isinstance(error, ProtocolError) for error in results)
    for error in results:
        assert isinstance(error, ProtocolError | JobFailed)
        assert "size" in str(error)


def test_the_last_swap_never_fails_because_a_peer_closes_first(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> bytes:
        return bytes(exchange.swap(b"%d" % index)[0])

    for attempt in range(2, 12):
        for index in range(2):
            pair.believe(index, attempt=attempt)
        assert pair.run(work) == [b"1", b"0"]


def test_a_closed_exchange_swaps_no_more(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> None:
        exchange.close()
        exchange.close()
        exchange.abort("too late")
        exchange.swap(b"x")

    for error in pair.run(work):
        assert isinstance(error, JobFailed)
        assert "closed" in str(error)


def test_a_stopping_hub_ends_its_exchanges(pair: Ring) -> None:
    def work(index: int, exchange: PeerExchange) -> None:
        exchange.swap(b"x")
        if index == 1:
            threading.Timer(0.2, pair.sites[1].hub.close).start()
        exchange.swap(b"y") if index == 0 else time.sleep(0.6)

    told, _ = pair.run(work)
    assert isinstance(told, MasqueError)
    assert "Party 'ben' is stopping." in str(told)


def test_nothing_is_left_behind(pair: Ring) -> None:
    pair.run(lambda index, exchange: exchange.swap(b"x"))
    time.sleep(0.5)
    before = threading.active_count()
    for attempt in range(2, 8):
        for index in range(2):
            pair.believe(index, attempt=attempt)
        pair.run(lambda index, exchange: exchange.swap(b"x"))
    deadline = time.monotonic() + 5
    while threading.active_count() > before + 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert threading.active_count() <= before + 4
    for site in pair.sites:
        assert not site.hub._open
        assert not site.hub._waiting


def test_frames_are_what_is_documented(pair: Ring) -> None:
    """A stranger that reads the stream finds the greeting, then one frame a swap."""
    ann, ben = pair.sites
    registration = ann.hub.register(pair.bindings[0])
    channel = ben.channel(ann)
    call: Any = channel.unary_stream(METHOD, None, None)(
        b"", metadata=pair.bindings[1].claim("ann"), timeout=10
    )
    assert len(next(call)) == 32
    outgoing = registration.wait(time.monotonic() + 5)["ben"]
    assert outgoing.send(frame(0, b"abc"))
    assert next(call)[32:] == b"abc"
    registration.close()
    assert list(call) == []
    channel.close()


def test_a_channel_reaches_only_whom_it_means(project: Project, pair: Ring) -> None:
    ann, ben = pair.sites
    wrong = Identity(PROJECT, Role.PARTY, "cyd")
    channels = {"ben": open_peer_channel(ben.address, wrong, ann.credentials)}
    exchange = PeerExchange(ann.hub, pair.bindings[0], channels, opening=5.0)
    with pytest.raises(MasqueError, match="Another service answers"):
        exchange.open()
    channels["ben"].close()
