"""The dealer's rules: one spec a job id, one stream a party, material once, back-pressure."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from annotated_types import MaxLen
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import (
    Conflict,
    JobFailed,
    MasqueError,
    NotFound,
    ProtocolError,
    Refused,
    Unavailable,
    passing,
)
from masque.jobs.bound import BoundJob
from masque.mpc import inprocess
from masque.v1.dealer_pb2 import Material
from masque.wire.authority import create_authority
from masque.wire.identity import Identity, Role
from masque.wire.material import Item, Unpacker, pack, seed_message
from masque.wire.tls import Credentials, find_credentials
from services.dealer.dealing import Dealing, Pace
from services.dealer.outbox import Outbox
from services.dealer.register import Entry, Register
from services.dealer.service import PARTIES, DealerService, threads
from tests.jobs.examples import bound, job, table
from tests.services.handmade import compile_handmade

TABLE = table("patients", 40, "age", "size", "dose")
SEED = bytes(range(32))


def a_job(attempt: int = 1, epochs: int = 5, **changes: object) -> BoundJob:
    spec = job(data__rows=["patients"], data__holdout=0.0, reveal={}, training__epochs=epochs)
    return bound(spec, [TABLE], attempt=attempt, recipients=PEOPLE, **changes)


PEOPLE = bound().recipients


# -- the messages --------------------------------------------------------------------------------

parts = st.lists(st.binary(min_size=1, max_size=40), max_size=30)


@given(parts=parts, limit=st.integers(1, 50))
def test_what_is_packed_is_unpacked(parts: list[bytes], limit: int) -> None:
    items: list[Item] = [(3 * i, part) for i, part in enumerate(parts)]
    unpacker = Unpacker("dealer")
    assert unpacker.seed(seed_message(SEED)) == SEED
    found: list[tuple[int, bytes]] = []
    for message in pack(items, limit):
        assert 0 < len(message.corrections) <= limit
        received = Material.FromString(message.SerializeToString())
        found += [(position, bytes(part)) for position, part in unpacker.items(received)]
    unpacker.finish()
    assert found == items


def good() -> Material:
    return Material(positions=[4, 6], sizes=[2, 3], corrections=b"aabbb")


@pytest.mark.parametrize(
    "broken",
    [
        Material(),
        Material(positions=[4], sizes=[], corrections=b""),
        Material(positions=[4, 6], sizes=[2, 2], corrections=b"aabbb"),
        Material(positions=[6, 4], sizes=[2, 3], corrections=b"aabbb"),
        Material(positions=[2], sizes=[1], corrections=b"a"),
        Material(seed=SEED, positions=[8], sizes=[1], corrections=b"a"),
    ],
)
def test_broken_messages_name_the_dealer(broken: Material) -> None:
    unpacker = Unpacker("dealer 'd'")
    unpacker.seed(seed_message(SEED))
    unpacker.items(Material(positions=[2], sizes=[1], corrections=b"x"))
    with pytest.raises(ProtocolError, match="dealer 'd'"):
        unpacker.items(broken)


def test_a_stream_begins_with_its_seed_and_ends_whole() -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        Unpacker("dealer").items(good())
    with pytest.raises(ProtocolError, match="seed"):
        Unpacker("dealer").seed(Material(seed=SEED[:31]))
    with pytest.raises(ProtocolError, match="middle"):
        Unpacker("dealer").finish()
    unpacker = Unpacker("dealer")
    unpacker.seed(seed_message(SEED))
    with pytest.raises(ProtocolError, match="not a seed"):
        unpacker.seed(seed_message(SEED))
    assert (
        unpacker.items(Material(positions=[1], sizes=[1], corrections=b"a", unfinished=True)) == []
    )
    with pytest.raises(ProtocolError, match="middle"):
        unpacker.finish()
    with pytest.raises(ProtocolError, match="unfinished"):
        unpacker.items(good())


# -- the outbox ----------------------------------------------------------------------------------


def test_an_outbox_blocks_at_its_budget_and_forgets_what_was_taken() -> None:
    outbox = Outbox(10)
    done = threading.Event()

    def deal() -> None:
        for position in range(6):
            outbox.put(position, bytes(5))
        outbox.close()
        done.set()

    threading.Thread(target=deal, daemon=True).start()
    assert not done.wait(0.2) and outbox.waiting == 10
    taken = []
    while items := outbox.take(7):
        assert sum(len(part) for _, part in items) <= 7
        taken += items
    assert [position for position, _ in taken] == list(range(6)) and done.wait(1)
    assert outbox.waiting == 0 and "5" not in repr(outbox)


def test_a_failed_outbox_wakes_both_ends() -> None:
    outbox = Outbox(1)
    outbox.put(0, b"ab")
    raised: list[MasqueError] = []

    def deal() -> None:
        try:
            outbox.put(1, b"cd")
        except MasqueError as error:
            raised.append(error)

    thread = threading.Thread(target=deal)
    thread.start()
    error = JobFailed("over")
    outbox.fail(error)
    thread.join(2)
    assert raised == [error] and outbox.waiting == 0
    with pytest.raises(JobFailed, match="over"):
        outbox.take(10)


# -- one attempt ---------------------------------------------------------------------------------


class Ending:
    """Waits for the end of a dealing."""

    def __init__(self) -> None:
        self.happened = threading.Event()
        self.error: MasqueError | None = None

    def __call__(self, error: MasqueError | None) -> None:
        assert not self.happened.is_set(), "told once"
        self.error = error
        self.happened.set()


def started(pace: Pace | None = None, randomness: object = None) -> tuple[Dealing, Ending]:
    this, ending = a_job(), Ending()
    options = {} if randomness is None else {"randomness": randomness}
    dealing = Dealing(this, compile_handmade(this), ending, pace=pace, **options)  # type: ignore[arg-type]
    dealing.start()
    return dealing, ending


def drained(stream: Iterator[Material], into: list[Material]) -> threading.Thread:
    def read() -> None:
        with contextlib.suppress(MasqueError):
            into.extend(stream)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_parties_get_what_the_core_deals_from_their_seeds() -> None:
    dealing, ending = started(Pace(message=100))
    received: dict[str, list[Material]] = {"party-0": [], "party-1": []}
    threads = [drained(dealing.join(party), into) for party, into in received.items()]
    for thread in threads:
        thread.join(20)
    assert ending.happened.wait(5) and ending.error is None
    seeds, corrections = [], []
    for messages in received.values():
        unpacker = Unpacker("dealer")
        seeds.append(unpacker.seed(messages[0]))
        items = [item for message in messages[1:] for item in unpacker.items(message)]
        unpacker.finish()
        corrections.append({position: bytes(part) for position, part in items})
    assert len(set(seeds)) == 2
    stocks = inprocess.stock(compile_handmade(a_job()), seeds)
    expected = [{p: part for p, part in stock.parts.items() if part} for stock in stocks]
    assert corrections == expected
    assert dealing.sent == {
        party: sum(len(part) for part in found.values())
        for party, found in zip(received, expected, strict=True)
    }


def test_seeds_are_fresh_and_apart_even_if_randomness_repeats() -> None:
    seeds = set()
    for attempt in (1, 2):
        this = a_job(attempt)
        dealing = Dealing(this, compile_handmade(this), Ending(), randomness=bytes)
        for party in this.parties:
            seeds.add(next(dealing.join(party)).seed)
    assert len(seeds) == 4


def test_a_stream_is_given_out_once() -> None:
    dealing, _ = started(Pace(patience=0.5))
    dealing.join("party-0")
    with pytest.raises(Conflict, match="already"):
        dealing.join("party-0")


def test_a_party_may_prepare_for_longer_than_the_others_and_the_dealer() -> None:
    dealing, ending = started(Pace(patience=0.1))
    into: dict[str, list[Material]] = {"party-0": [], "party-1": []}
    first = drained(dealing.join("party-0"), into["party-0"])
    assert not ending.happened.wait(0.6)
    assert not dealing.deserted(0.1)
    second = drained(dealing.join("party-1"), into["party-1"])
    for thread in (first, second):
        thread.join(20)
    assert ending.happened.wait(5) and ending.error is None


@pytest.fixture
def own(tmp_path: Path) -> Credentials:
    """The dealer's certificate."""
    authority = create_authority(tmp_path / "authority", "demo")
    authority.issue(Identity("demo", Role.DEALER, "dealer"), tmp_path / "dealer")
    return find_credentials(tmp_path / "dealer")


class Caller:
    """The context of a call, as far as the dealer asks for it."""

    def __init__(self) -> None:
        self.active = True
        self.heard: list[Callable[[], None]] = []

    def is_active(self) -> bool:
        return self.active

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.heard.append(callback)
        return True

    def leave(self) -> None:
        self.active = False
        for callback in self.heard:
            callback()


def awaiting(service: DealerService, job_id: str, caller: Caller, into: list[object]) -> Thread:
    def ask() -> None:
        try:
            into.append(service._announced(job_id, 1, "party-0", caller))  # type: ignore[arg-type]
        except MasqueError as error:
            into.append(error)

    thread = Thread(target=ask)
    thread.start()
    return thread


def test_a_party_that_is_quicker_than_the_dealer_waits_until_it_has_compiled(
    own: Credentials,
) -> None:
    service = DealerService(own, compile=compile_handmade, pace=Pace(patience=0.1))
    found: list[object] = []
    thread = awaiting(service, "job-1", Caller(), found)
    time.sleep(0.5)
    assert found == []
    service._prepare(a_job())
    thread.join(20)
    assert isinstance(found[0], Entry)
    service.close()


def test_who_waits_for_a_job_that_never_comes_waits_until_he_leaves_and_for_so_many_only(
    own: Credentials,
) -> None:
    service = DealerService(own, compile=compile_handmade, jobs=2)
    callers, found = [Caller(), Caller()], list[object]()
    threads = [awaiting(service, "job-9", caller, found) for caller in callers]
    time.sleep(0.2)
    awaiting(service, "job-9", Caller(), found).join(20)
    assert isinstance(found.pop(), NotFound)
    callers[0].leave()
    threads[0].join(20)
    assert isinstance(found.pop(), NotFound)
    service.drain(5.0)
    threads[1].join(20)
    assert isinstance(found.pop(), Unavailable)


def test_an_attempt_that_nobody_comes_for_makes_room_for_another_job(own: Credentials) -> None:
    service = DealerService(own, compile=compile_handmade, jobs=1, pace=Pace(patience=0.3))
    service._prepare(a_job())
    other = a_job(job_id="job-2")
    with pytest.raises(Refused, match="1 jobs"):
        service._prepare(other)
    time.sleep(0.4)
    service._prepare(a_job(2))  # of the same job, in its own place
    with pytest.raises(Refused, match="1 jobs"):
        service._prepare(other)
    time.sleep(0.4)
    service._prepare(other)
    with pytest.raises(JobFailed, match="nobody has come") as raised:
        service._announced("job-1", 2, "party-0", Caller())  # type: ignore[arg-type]
    assert passing(raised.value)
    service.close()


@pytest.mark.parametrize("jobs", [1, 16])
def test_streams_of_the_largest_jobs_leave_threads_for_everything_else(jobs: int) -> None:
    limit = next(
        m.max_length for m in BoundJob.model_fields["parties"].metadata if isinstance(m, MaxLen)
    )
    assert limit == PARTIES
    assert threads(jobs) >= 2 * jobs * PARTIES + 8


def test_a_party_that_leaves_ends_it_for_all_by_name() -> None:
    dealing, ending = started(Pace(budget=64, message=32))
    streams = {party: dealing.join(party) for party in ("party-0", "party-1")}
    next(streams["party-0"])
    next(streams["party-1"])
    time.sleep(0.1)  # dealing has begun, and waits for room
    dealing.left("party-1")
    assert ending.happened.wait(5)
    with pytest.raises(JobFailed, match="'party-1' broke off") as raised:
        list(streams["party-0"])
    assert raised.value.where["service"] == "party-1"
    dealing.left("party-0")  # nothing more is told


def test_what_is_shown_of_a_dealing_is_not_secret() -> None:
    dealing, _ = started(Pace(patience=0.2))
    assert repr(dealing) == "Dealing(job-1, attempt 1)"


# -- the register --------------------------------------------------------------------------------


def entry(this: BoundJob) -> Entry:
    dealing = Dealing(this, compile_handmade(this), Ending())
    return Entry(
        this.job_id,
        this.attempt,
        this.parties,
        this.coordinator,
        this.subject(),
        this.digest(),
        bytes(32),
        dealing,
    )


def test_a_job_id_has_one_spec() -> None:
    register = Register(4)
    first = a_job()
    assert register.known(first) is None
    register.admit(entry(first))
    assert register.known(first) is not None
    for other in (a_job(epochs=6), a_job(2, epochs=6), a_job(client="somebody")):
        with pytest.raises(Conflict, match="two specs for one job id"):
            register.known(other)


def test_a_later_attempt_ends_the_earlier_one_for_good() -> None:
    register = Register(4)
    register.admit(entry(a_job()))
    assert register.known(a_job(2)) is None
    assert register.admit(entry(a_job(2))) is not None
    with pytest.raises(Refused, match="attempt 1"):
        register.known(a_job())
    with pytest.raises(Refused, match="attempt 1"):
        register.find("job-1", 1)
    assert register.find("job-1", 3) is None and register.find("job-2", 1) is None


def test_what_is_over_is_not_dealt_again() -> None:
    register = Register(4)
    register.admit(entry(a_job()))
    register.end("job-1", 1, JobFailed("party-1 left", service="party-1"))
    with pytest.raises(JobFailed, match="party-1 left"):
        register.known(a_job())
    with pytest.raises(JobFailed, match="party-1 left"):
        register.find("job-1", 1)
    assert register.known(a_job(2)) is None and not register.active


@pytest.mark.parametrize("again", [True, False])
def test_who_comes_after_an_end_that_is_no_refusal_hears_that_another_attempt_may_go_well(
    again: bool,
) -> None:
    register = Register(4)
    register.admit(entry(a_job()))
    register.end("job-1", 1, JobFailed("party-1 left", service="party-1", again=again))
    with pytest.raises(JobFailed) as told:
        register.find("job-1", 1)
    assert passing(told.value) is again


def test_there_is_room_for_so_many_jobs() -> None:
    register = Register(1)
    register.admit(entry(a_job()))
    with pytest.raises(Refused, match="1 jobs"):
        register.known(a_job(job_id="job-2"))
    assert register.known(a_job(2)) is None  # takes the place of its own earlier attempt
    register.end("job-1", 1, None)
    assert register.known(a_job()) is not None  # asked again, the answer is the same
    with pytest.raises(JobFailed, match="never dealt twice"):
        register.find("job-1", 1)
    assert register.known(a_job(job_id="job-2")) is None
