"""A job's life at a party, and its stock of material, with time and network in the test's hand."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from masque.errors import JobFailed, MasqueError, ProtocolError, Refused, Unavailable
from masque.jobs.bound import BoundJob
from masque.jobs.computing import ComputedJob
from masque.jobs.states import State
from masque.v1.dealer_pb2 import Material
from masque.wire.material import pack, seed_message
from services.party.attempt import Account, Attempt
from services.party.job import Job
from services.party.jobs import Jobs, Memory
from services.party.results import Sealed
from services.party.stock import Stock
from tests.services.handmade import compile_handmade
from tests.services.test_dealer import a_job

SEED = bytes(range(32))


# -- the stock -----------------------------------------------------------------------------------


class Tap:
    """A stream of material that the test turns on: messages, an error, or None at its end."""

    def __init__(self) -> None:
        self.queue: queue.Queue[Material | MasqueError | None] = queue.Queue()
        self.cancelled = threading.Event()

    def messages(self) -> Iterator[Material]:
        while (message := self.queue.get()) is not None:
            if isinstance(message, MasqueError):
                raise message
            yield message

    def cancel(self) -> None:
        self.cancelled.set()
        self.queue.put(JobFailed("cancelled"))

    def give(self, *items: tuple[int, bytes]) -> None:
        for message in pack(items):
            self.queue.put(message)


def a_stock(budget: int = 1000, patience: float = 5.0) -> tuple[Stock, Tap, list[MasqueError]]:
    tap, heard = Tap(), list[MasqueError]()
    stock = Stock("dealer", lambda: tap, heard.append, budget=budget, patience=patience)
    stock.start()
    tap.queue.put(seed_message(SEED))
    return stock, tap, heard


def test_a_stock_hands_out_by_position_once() -> None:
    stock, tap, heard = a_stock()
    tap.give((0, b"ab"), (3, b"cde"))
    tap.queue.put(None)
    assert stock.seed() == SEED
    assert bytes(stock.corrections(0, 2)) == b"ab" and bytes(stock.corrections(3, 3)) == b"cde"
    stock.finish()
    with pytest.raises(ProtocolError, match="ended before position 4"):
        stock.corrections(4, 1)
    assert stock.received == 5 and not heard and "ab" not in repr(stock)


@pytest.mark.parametrize(("position", "size"), [(1, 2), (0, 3)])
def test_material_for_another_place_is_refused(position: int, size: int) -> None:
    stock, tap, _ = a_stock()
    tap.give((0, b"ab"))
    with pytest.raises(ProtocolError, match="dealer 'dealer'"):
        stock.corrections(position, size)


def test_more_than_the_program_needs_is_refused() -> None:
    stock, tap, _ = a_stock()
    tap.give((0, b"ab"))
    with pytest.raises(ProtocolError, match="more than"):
        stock.finish()


def test_a_stock_reads_no_further_than_its_budget() -> None:
    stock, tap, _ = a_stock(budget=10)
    for position in range(10):
        tap.give((position, bytes(5)))
    time.sleep(0.2)
    assert 10 <= stock.received <= 15
    for position in range(10):
        assert len(stock.corrections(position, 5)) == 5
    assert stock.received == 50


def test_a_correction_may_be_longer_than_the_budget_if_the_core_wants_it() -> None:
    stock, tap, _ = a_stock(budget=10)
    for message in pack([(0, b"ab"), (1, bytes(100)), (2, b"c")], limit=8):
        tap.queue.put(message)
    assert [len(stock.corrections(k, size)) for k, size in enumerate((2, 100, 1))] == [2, 100, 1]


def test_a_dealer_whose_correction_never_ends_is_named_and_fills_no_memory() -> None:
    stock, tap, heard = a_stock(budget=100)
    for _ in range(1000):
        tap.queue.put(Material(positions=[0], sizes=[10], corrections=bytes(10), unfinished=True))
    with pytest.raises(ProtocolError, match="does not end") as raised:
        stock.corrections(0, 20)
    assert raised.value.where["service"] == "dealer" and heard
    assert stock.received <= 120


def test_corrections_without_content_do_not_fill_the_memory() -> None:
    stock, tap, _ = a_stock(patience=60.0)
    step = 1 << 14
    for first in range(0, 16 * step, step):
        tap.queue.put(Material(positions=range(first, first + step), sizes=[0] * step))
    stock.seed()
    for position in range(16 * step):
        assert not stock.corrections(position, 0)
        assert len(stock._items) <= 5 * step


def test_a_silent_dealer_is_named() -> None:
    stock, _, _ = a_stock(patience=0.2)
    stock.seed()
    with pytest.raises(Unavailable, match="'dealer' sent nothing for") as raised:
        stock.corrections(0, 1)
    assert raised.value.where["service"] == "dealer"


def test_a_broken_stream_is_heard_of_at_once_and_drops_what_was_there() -> None:
    stock, tap, heard = a_stock()
    tap.give((0, b"ab"))
    tap.queue.put(Unavailable("gone", service="dealer"))
    for _ in range(50):
        if heard:
            break
        time.sleep(0.02)
    assert [str(error) for error in heard] == ["gone"]
    with pytest.raises(Unavailable, match="gone"):
        stock.corrections(0, 2)
    with pytest.raises(Unavailable, match="gone"):
        stock.seed()


def test_a_closed_stock_leaves_the_dealer_and_tells_nobody() -> None:
    stock, tap, heard = a_stock()
    stock.seed()
    stock.close(JobFailed("over"))
    assert tap.cancelled.wait(2)
    with pytest.raises(JobFailed, match="over"):
        stock.corrections(0, 1)
    time.sleep(0.7)
    assert not heard


# -- the life of a job ---------------------------------------------------------------------------


class Doors:
    """The doors of an attempt that never computes."""

    def __init__(self) -> None:
        self.stock: Any = self
        self.exchange: Any = self
        self.source: Any = None
        self.ledger: Any = None
        self.ended: list[str] = []
        self.rounds, self.waited, self.received = 0, 0.0, 0
        self.traffic: dict[str, Any] = {}

    def start(self) -> None:
        self.ended.append("started")

    def abort(self, error: MasqueError) -> None:
        self.ended.append(f"aborted: {error}")

    def close(self, error: MasqueError | None = None) -> None:
        self.ended.append("closed")

    def let_go(self) -> None:
        self.ended.append("let go")


class Workshop:
    """Compiles to an attempt without peers; can be made to wait and to fail."""

    def __init__(self) -> None:
        self.doors = Doors()
        self.compiled = 0
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None
        self.remembered: list[ComputedJob] = []
        self.numbers: list[Account] = []

    def remember(self, job: ComputedJob) -> None:
        self.remembered.append(job)

    def compile(
        self, job: BoundJob, sender: str, failed: Callable[[MasqueError], object]
    ) -> Attempt:
        self.compiled += 1
        self.go.wait(5)
        if self.error is not None:
            raise self.error
        program = compile_handmade(job)
        return Attempt(job, program, 0, [[]] * len(program.rounds), {}, cast(Any, self.doors))

    def finish(self, attempt: Attempt) -> list[Sealed]:
        return []

    def closed(self, attempt: Attempt, *, computed: bool) -> None:
        self.numbers.append(attempt.account())


def new_job() -> tuple[Job, Workshop]:
    workshop = Workshop()
    return Job(ComputedJob("job-1"), workshop), workshop


def test_whoever_asks_twice_waits_for_one_answer() -> None:
    job, workshop = new_job()
    workshop.go.clear()
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(job.prepare, a_job(), "coordinator") for _ in range(4)]
        time.sleep(0.1)
        workshop.go.set()
        found = {answer.result(5) for answer in answers}
    assert len(found) == 1 and workshop.compiled == 1
    assert [known.attempt for known in workshop.remembered] == [1]
    assert job.state.state is State.READY and workshop.doors.ended == ["started"]


def test_a_refusal_is_the_answer_to_all_and_burns_the_attempt() -> None:
    job, workshop = new_job()
    workshop.error = Refused("the policy says no.", party="party-0")
    with pytest.raises(Refused, match="policy"):
        job.prepare(a_job(), "coordinator")
    with pytest.raises(JobFailed, match="the policy says no"):
        job.prepare(a_job(), "coordinator")
    workshop.error = None
    assert job.prepare(a_job(2), "coordinator").rounds
    assert [known.attempt for known in workshop.remembered] == [1, 2]


def test_an_accident_tells_a_number_and_no_more() -> None:
    job, workshop = new_job()
    workshop.error = RuntimeError("0x1337 is a share")
    with pytest.raises(MasqueError, match="incident") as raised:
        job.prepare(a_job(), "coordinator")
    assert "share" not in str(raised.value) and "share" not in job.state.reason


def test_an_abort_while_compiling_leaves_nothing_behind() -> None:
    job, workshop = new_job()
    workshop.go.clear()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(job.prepare, a_job(), "coordinator")
        time.sleep(0.1)
        job.abort("coordinator", 1, "changed my mind")
        workshop.go.set()
        with pytest.raises(JobFailed, match="changed my mind"):
            answer.result(5)
    assert workshop.doors.ended[-1] == "let go" and "started" not in workshop.doors.ended


def test_what_fails_while_nobody_asks_is_told_when_somebody_does() -> None:
    job, workshop = new_job()
    job.prepare(a_job(), "coordinator")
    job._break(1, Unavailable("the dealer is gone.", service="dealer"))
    assert workshop.doors.ended == ["started", "aborted: the dealer is gone.", "closed", "let go"]
    with pytest.raises(JobFailed, match="the dealer is gone") as raised:
        job.begin("coordinator", 1, 0)
    assert raised.value.where["service"] == "dealer" and len(workshop.numbers) == 1


def test_a_silent_coordinator_loses_its_job() -> None:
    job, workshop = new_job()
    assert not job.overdue(0.0, 0.0)
    job.prepare(a_job(), "coordinator")
    assert not job.overdue(10.0, 10.0)
    assert job.overdue(0.0, 10.0) and workshop.doors.ended[-1] == "let go"
    with pytest.raises(JobFailed, match="silent"):
        job.begin("coordinator", 1, 0)


def test_a_later_attempt_ends_the_earlier_one() -> None:
    job, workshop = new_job()
    job.prepare(a_job(), "coordinator")
    job.prepare(a_job(2), "coordinator")
    assert workshop.doors.ended[:2] == ["started", "aborted: a later attempt has begun."] or (
        "let go" in workshop.doors.ended
    )
    with pytest.raises(ProtocolError, match="attempt 1"):
        job.begin("coordinator", 1, 0)
    assert job.state.state is State.READY and job.state.attempt == 2


def test_a_party_remembers_attempts_through_a_crash(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "jobs")
    jobs = Jobs(memory, Workshop(), capacity=2)
    assert memory.recall("job-1").state is State.ABSENT
    taken = ComputedJob("job-1", State.PREPARING, "coordinator", 3, subject=a_job().subject())
    memory.store(taken)
    found = jobs.take_up("job-1")
    assert found.state.state is State.FAILED and found.state.attempt == 3
    with pytest.raises(ProtocolError, match="attempt 2"):
        found.prepare(a_job(2), "coordinator")
    with pytest.raises(JobFailed, match="restarted"):
        found.prepare(a_job(3), "coordinator")
    assert found.prepare(a_job(4), "coordinator").rounds
    (tmp_path / "jobs" / "job-2.json").write_text("{")
    with pytest.raises(MasqueError, match="another id"):
        jobs.take_up("job-2")


def test_there_is_room_for_so_many_jobs(tmp_path: Path) -> None:
    jobs = Jobs(Memory(tmp_path / "jobs"), Workshop(), capacity=1)
    jobs.take_up("job-1").prepare(a_job(), "coordinator")
    assert jobs.busy == 1 and jobs.take_up("job-1").busy
    with pytest.raises(Refused, match="busy with 1 jobs"):
        jobs.take_up("job-2")
    jobs.find("job-1").abort("coordinator", 1, "enough")
    assert not jobs.take_up("job-2").busy


def test_the_numbers_of_an_attempt_are_counted_once() -> None:
    job, workshop = new_job()
    job.prepare(a_job(), "coordinator")
    attempt = job._attempt
    assert attempt is not None and attempt.close() and not attempt.close()
    job.abort("coordinator", 1, "late")
    assert not workshop.numbers
    assert not attempt.abort(JobFailed("again"))
