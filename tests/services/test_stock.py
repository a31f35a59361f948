"""The stock of a party: material in order, in little memory, whatever the dealer does."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pytest

from masque.errors import (
    JobFailed,
    MasqueError,
    ProtocolError,
    Unavailable,
)
from masque.v1.dealer_pb2 import Material
from masque.wire.material import pack, seed_message
from services.party.stock import Stock

SEED = bytes(range(32))


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


def test_what_a_party_says_itself_comes_before_what_the_dealer_says_of_it() -> None:
    """On a busy machine its word may take longer than the dealer's."""
    stock, tap, heard = a_stock()
    stock.seed()
    tap.queue.put(JobFailed("party 'b' broke off its stream of material"))
    time.sleep(1)
    stock.close(JobFailed("the coordinator left"))
    assert tap.cancelled.wait(2)
    with pytest.raises(JobFailed, match="the coordinator left"):
        stock.corrections(0, 1)
    time.sleep(0.2)
    assert not heard
