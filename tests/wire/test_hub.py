"""Who may listen to an exchange and what becomes of everybody else; frames that break rules."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from masque.errors import (
    Conflict,
    IdentityError,
    MasqueError,
    NotFound,
    ProtocolError,
    Refused,
    Unavailable,
)
from masque.wire.binding import KEYS, Binding, read_claim
from masque.wire.exchange import PeerExchange
from masque.wire.failures import translate
from masque.wire.frames import CHUNK, GREETING, HEADER, MAGIC, frame
from masque.wire.hub import _WAITING, Hub
from masque.wire.identity import Identity, Role
from masque.wire.streams import METHOD, Outgoing, open_peer_channel
from tests.wire.conftest import PROJECT, Project
from tests.wire.parties import PROGRAM, SPEC, Ring, ring

OTHER = b"o" * 32
Metadata = tuple[tuple[str, str], ...]


@pytest.fixture(params=[True, False], ids=["direct", "queued"])
def pair(project: Project, request: pytest.FixtureRequest) -> Iterator[Ring]:
    with ring(project, 2, direct=request.param, patience=1.5) as two:
        yield two


@pytest.fixture
def three(project: Project) -> Iterator[Ring]:
    with ring(project, 3) as parties:
        yield parties


def call_ann(two: Ring, metadata: Metadata, *, role: str = "party", name: str = "ben") -> Any:
    """Listen to ann with this claim; the first message, or the error that her hub raised."""
    site = two.sites[0]
    project_credentials = two.sites[1].credentials if (role, name) == ("party", "ben") else None
    credentials = project_credentials or _PROJECT[0].credentials(role, name)
    expected = Identity(PROJECT, Role.PARTY, "ann")
    with open_peer_channel(site.address, expected, credentials) as channel:
        call: Any = channel.unary_stream(METHOD, None, None)(b"", metadata=metadata, timeout=10)
        try:
            return next(call)
        except StopIteration:
            return None
        except grpc.RpcError as error:
            return translate(error, service="party 'ann'")
        finally:
            call.cancel()


_PROJECT: list[Project] = []


@pytest.fixture(autouse=True)
def _remember(project: Project) -> None:
    _PROJECT[:] = [project]


def altered(binding: Binding, to: str, **changed: str) -> Metadata:
    names = {f"masque-{key}": value for key, value in changed.items()}
    return tuple((key, names.get(key, value)) for key, value in binding.claim(to))


def test_a_known_peer_is_greeted(pair: Ring) -> None:
    pair.sites[0].hub.register(pair.bindings[0])
    assert call_ann(pair, pair.bindings[1].claim("ann")) == GREETING


def test_nobody_speaks_in_the_name_of_another_party(pair: Ring) -> None:
    pair.sites[0].hub.register(pair.bindings[0])
    error = call_ann(pair, pair.bindings[1].claim("ann"), name="mallory")
    assert isinstance(error, IdentityError)
    assert "Party 'mallory' called in the name of 'ben'." in str(error)


@pytest.mark.parametrize("role", ["coordinator", "client", "dealer"])
def test_only_parties_exchange(pair: Ring, role: str) -> None:
    pair.sites[0].hub.register(pair.bindings[0])
    error = call_ann(pair, pair.bindings[1].claim("ann"), role=role, name="ben")
    assert isinstance(error, IdentityError)
    assert "parties only" in str(error)


def test_a_party_that_is_not_of_the_job(pair: Ring) -> None:
    pair.sites[0].hub.register(pair.bindings[0])
    outsider = Binding("job", 1, ("ann", "mallory"), 1, SPEC, PROGRAM)
    error = call_ann(pair, outsider.claim("ann"), name="mallory")
    assert isinstance(error, IdentityError)
    assert "Party 'mallory' takes no part in job 'job'" in str(error)
    assert call_ann(pair, pair.bindings[1].claim("ann")) == GREETING  # nothing is harmed


def test_a_call_meant_for_another_party(pair: Ring) -> None:
    pair.sites[0].hub.register(pair.bindings[0])
    error = call_ann(pair, altered(pair.bindings[1], "ann", receiver="cyd"))
    assert isinstance(error, Refused)
    assert error.where["field"] == "receiver"


def test_an_unknown_job_waits_and_is_not_found(pair: Ring) -> None:
    began = time.monotonic()
    error = call_ann(pair, pair.bindings[1].claim("ann"))
    assert isinstance(error, NotFound)
    assert "Party 'ann' has no attempt 1 of job 'job'." in str(error)
    assert 1.4 < time.monotonic() - began < 8
    assert not pair.sites[0].hub._waiting


def test_a_stream_that_comes_early_waits_for_the_registration(pair: Ring) -> None:
    threading.Timer(0.4, pair.sites[0].hub.register, (pair.bindings[0],)).start()
    assert call_ann(pair, pair.bindings[1].claim("ann")) == GREETING


def test_a_stale_attempt_is_refused_at_once(pair: Ring) -> None:
    pair.believe(0, attempt=3)
    registration = pair.sites[0].hub.register(pair.bindings[0])
    began = time.monotonic()
    for _ in range(2):
        error = call_ann(pair, pair.bindings[1].claim("ann"))
        assert isinstance(error, Refused)
        assert "Attempt 1 of job 'job' is over at party 'ann'" in str(error)
        registration.close()  # and stays refused when nothing runs any more
    assert time.monotonic() - began < 1.4


def test_an_early_stream_of_an_attempt_that_was_overtaken(pair: Ring) -> None:
    pair.believe(0, attempt=2)
    threading.Timer(0.3, pair.sites[0].hub.register, (pair.bindings[0],)).start()
    error = call_ann(pair, pair.bindings[1].claim("ann"))
    assert isinstance(error, Refused)
    assert "Attempt 1 of job 'job' is over" in str(error)


def test_the_second_stream_of_a_sender_is_refused_and_the_first_lives(pair: Ring) -> None:
    ann, ben = pair.sites
    registration = ann.hub.register(pair.bindings[0])
    with ben.channel(ann) as channel:
        claim = pair.bindings[1].claim("ann")
        first: Any = channel.unary_stream(METHOD, None, None)(b"", metadata=claim, timeout=10)
        assert next(first) == GREETING
        error = call_ann(pair, claim)
        assert isinstance(error, Conflict)
        assert "Party 'ben' listens to job 'job' already." in str(error)
        # nor does a second stream with another program fail the job
        assert isinstance(
            call_ann(pair, altered(pair.bindings[1], "ann", program="00" * 32)), (Conflict)
        )
        assert registration.wait(time.monotonic() + 5)["ben"].send(frame(0, b"x"))
        assert next(first)[HEADER.size :] == b"x"
        first.cancel()


def test_two_early_streams_of_a_sender(pair: Ring) -> None:
    hub, claim = pair.sites[0].hub, pair.bindings[1].claim("ann")
    results: list[Any] = []
    first = threading.Thread(target=lambda: results.append(call_ann(pair, claim)))
    first.start()
    while not hub._waiting:
        time.sleep(0.01)
    assert isinstance(call_ann(pair, claim), Conflict)
    hub.register(pair.bindings[0])
    first.join(10)
    assert results == [GREETING]


def test_early_streams_are_limited(pair: Ring) -> None:
    hub = pair.sites[0].hub

    class Idle(Outgoing):
        alive = True

        def __init__(self) -> None:
            pass

        def send(self, message: bytes) -> bool:
            return True

        def finish(self, error: MasqueError | None = None) -> None:
            pass

    for number in range(_WAITING):
        claim = read_claim(Binding(f"j{number}", 1, ("ann", "ben"), 1, SPEC, PROGRAM).claim("ann"))
        assert hub._find(claim, Idle()) is None
    error = call_ann(pair, pair.bindings[1].claim("ann"))
    assert isinstance(error, Unavailable)
    assert "Too many streams wait" in str(error)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("change", ["missing", "doubled", "empty", "malformed"])
def test_claims_are_read_strictly(key: str, change: str) -> None:
    claim = dict(Binding("job", 1, ("ann", "ben"), 1, SPEC, PROGRAM).claim("ann"))
    items: list[tuple[str, str | bytes]] = [("user-agent", "x"), *claim.items()]
    if change == "missing":
        items = [item for item in items if item[0] != key]
    elif change == "doubled":
        items.append((key, claim[key]))
    else:
        bad = "" if change == "empty" else "\u00e4 -1\n"
        items = [(name, bad if name == key else value) for name, value in items]
    with pytest.raises(ProtocolError, match=key):
        read_claim(items)


def test_a_claim_survives_the_way() -> None:
    binding = Binding("job", 7, ("ann", "ben", "cyd"), 1, SPEC, OTHER)
    claim = read_claim(binding.claim("cyd"))
    assert (claim.job, claim.attempt, claim.sender, claim.receiver) == ("job", 7, "ben", "cyd")
    assert (claim.parties, claim.spec, claim.program) == (binding.parties, SPEC, OTHER)


def test_a_malformed_claim_is_refused(pair: Ring) -> None:
    error = call_ann(pair, altered(pair.bindings[1], "ann", attempt="one"))
    assert isinstance(error, ProtocolError)
    assert "masque-attempt" in str(error)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"spec": OTHER}, "job specification"),
        ({"program": OTHER}, "program"),
    ],
)
def test_both_sides_name_what_differs(pair: Ring, changed: dict[str, bytes], text: str) -> None:
    pair.believe(1, **changed)
    for error in pair.run(lambda index, exchange: exchange.swap(b"x")):
        assert isinstance(error, Refused), error
        assert error.where["field"] == next(iter(changed))
        assert f"the {text} of party" in str(error)
        assert "differs from that of party" in str(error)
        assert error.hint


def test_parties_in_another_order(project: Project, three: Ring) -> None:
    three.believe(2, parties=("ben", "ann", "cyd"))
    errors = three.run(lambda index, exchange: exchange.swap(b"x"))
    assert all(isinstance(error, MasqueError) for error in errors)
    assert all("list of parties of party" in str(error) for error in errors), errors


def test_one_of_three_with_another_program_is_named_by_all(three: Ring) -> None:
    three.believe(1, program=OTHER)
    errors = three.run(lambda index, exchange: exchange.swap(b"x"))
    for error in errors:
        assert isinstance(error, MasqueError)
        assert "program of party" in str(error)
        assert "'ben'" in str(error)


def mischief(pair: Ring, messages: Callable[[bytes], list[bytes]], size: int = 4) -> MasqueError:
    """ann swaps `size` bytes; ben is a rogue that sends `messages` (of an honest frame) instead."""
    ann, ben = pair.sites
    registration = ben.hub.register(pair.bindings[1])
    results: list[Any] = []

    def honest() -> None:
        results.extend(pair.run(lambda _, exchange: exchange.swap(bytes(size)), [0], patience=2.0))

    thread = threading.Thread(target=honest)
    thread.start()
    with ben.channel(ann) as channel:
        claim = pair.bindings[1].claim("ann")
        call: Any = channel.unary_stream(METHOD, None, None)(b"", metadata=claim, timeout=10)
        assert next(call) == GREETING
        outgoing = registration.wait(time.monotonic() + 5)["ann"]
        for message in messages(frame(0, b"\x13\x37\x13\x37")):
            outgoing.send(message)
        thread.join(20)
        assert not thread.is_alive()
        call.cancel()
    assert isinstance(results[0], MasqueError), results
    return results[0]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (lambda honest: [b"HTTP" + honest[4:]], "magic b'HTTP'"),
        (lambda honest: [MAGIC + b"\x09" + honest[5:]], "version 9 instead of 1"),
        (lambda honest: [GREETING], "kind 0 instead of 1"),
        (lambda honest: [frame(1, honest[HEADER.size :])], "position 1 instead of 0"),
        (lambda honest: [frame(0, b"12345")], "size 5 instead of 4"),
        (lambda honest: [frame(0, b"")], "size 0 instead of 4"),
        (lambda honest: [frame(0, bytes(CHUNK + 1))], f"size {CHUNK + 1} instead of 4"),
        (lambda honest: [honest + b"!"], "1 trailing bytes"),
        (lambda honest: [honest[:-1]], "1 bytes missing"),
        (lambda honest: [b""], "0 bytes, where a header alone has 32"),
    ],
)
def test_frames_that_break_the_rules(
    pair: Ring, messages: Callable[[bytes], list[bytes]], text: str
) -> None:
    error = mischief(pair, messages)
    assert isinstance(error, ProtocolError)
    assert f"Party 'ben' sent a wrong frame in swap 0: {text}" in str(error)
    assert "1337" not in str(error)
    assert error.where["party"] == "ben"


def test_a_message_beyond_the_limit(pair: Ring) -> None:
    error = mischief(pair, lambda honest: [honest + bytes(3 << 20)])
    assert isinstance(error, ProtocolError)
    assert "trailing bytes" in str(error)


def test_a_peer_that_greets_and_then_says_nothing(pair: Ring) -> None:
    error = mischief(pair, lambda honest: [])
    assert isinstance(error, Unavailable)
    assert "Party 'ben' sent nothing for 2 s." in str(error)


def test_a_peer_that_hangs_up_its_ear_only(pair: Ring) -> None:
    """It cancels its call to us but keeps its own stream open: we notice all the same."""
    ann, ben = pair.sites
    registration = ben.hub.register(pair.bindings[1])
    results: list[Any] = []

    def work(index: int, exchange: PeerExchange) -> None:
        exchange.swap(b"abcd")
        time.sleep(0.5)
        exchange.swap(b"abcd")

    thread = threading.Thread(target=lambda: results.extend(pair.run(work, [0])))
    thread.start()
    with ben.channel(ann) as channel:
        claim = pair.bindings[1].claim("ann")
        call: Any = channel.unary_stream(METHOD, None, None)(b"", metadata=claim, timeout=10)
        assert next(call) == GREETING
        outgoing = registration.wait(time.monotonic() + 5)["ann"]
        outgoing.send(frame(0, b"abcd"))
        assert next(call)[HEADER.size :] == b"abcd"
        call.cancel()
        outgoing.send(frame(1, b"abcd"))
        thread.join(10)
    assert isinstance(results[0], Unavailable)
    assert "Party 'ben' stopped listening." in str(results[0])


def test_registering_twice(project: Project) -> None:
    hub = Hub("ann")
    binding = Binding("job", 2, ("ann", "ben"), 0, SPEC, PROGRAM)
    registration = hub.register(binding)
    with pytest.raises(Conflict, match="still runs"):
        hub.register(Binding("job", 3, ("ann", "ben"), 0, SPEC, PROGRAM))
    registration.close()
    for attempt in (1, 2):
        with pytest.raises(Conflict, match="was used already"):
            hub.register(Binding("job", attempt, ("ann", "ben"), 0, SPEC, PROGRAM))
    hub.register(Binding("job", 3, ("ann", "ben"), 0, SPEC, PROGRAM)).close()
    hub.close()
    with pytest.raises(Unavailable, match="stopping"):
        hub.register(Binding("job", 4, ("ann", "ben"), 0, SPEC, PROGRAM))


def test_a_closed_hub_refuses_and_lets_nobody_wait(pair: Ring) -> None:
    threading.Timer(0.3, pair.sites[0].hub.close).start()
    for _ in range(2):  # the first waits for a registration, the second comes too late
        error = call_ann(pair, pair.bindings[1].claim("ann"))
        assert isinstance(error, Unavailable)
        assert "Party 'ann' is stopping." in str(error)


def test_a_peer_that_comes_late_to_a_failed_attempt_hears_why(three: Ring) -> None:
    def give_up(index: int, exchange: PeerExchange) -> None:
        raise AssertionError("never open")

    for error in three.run(give_up, [0, 1], opening=0.5):
        assert isinstance(error, MasqueError)
    (late,) = three.run(give_up, [2], opening=5.0)
    assert isinstance(late, MasqueError)
    assert "gave up job 'job'" in str(late)
    assert late.where["party"] == "cyd"
