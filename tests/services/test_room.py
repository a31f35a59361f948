"""How many jobs run at once, and how much memory parties lend to them."""

from __future__ import annotations

from collections.abc import Callable

from services.coordinator.room import Lent, Room

MIB = 1 << 20
LENT = {"dealer": Lent(8), "party-1": Lent(8, 300 * MIB), "party-2": Lent(8, 200 * MIB)}


def needs(mib: int) -> Callable[[], int]:
    return lambda: mib * MIB


def test_jobs_run_together_while_every_party_has_room_for_them() -> None:
    room = Room(8)
    assert room.claim("a", needs(120), LENT) is None
    waits = room.claim("b", needs(100), LENT)
    assert waits is not None
    assert (waits.party, waits.reason) == ("party-2", "it needs 100 MiB, and 80 are free")
    room.release("a", over=True)
    assert room.claim("b", needs(100), LENT) is None


def test_small_jobs_do_not_keep_a_large_one_waiting_without_end() -> None:
    room = Room(8)
    assert room.claim("small", needs(50), LENT) is None
    assert room.claim("large", needs(180), LENT) is not None
    waits = room.claim("later", needs(10), LENT)
    assert waits is not None
    assert waits.reason == "job large comes before it"
    room.release("small", over=True)
    assert room.claim("large", needs(180), LENT) is None
    assert room.claim("later", needs(10), LENT) is None


def test_one_that_gives_up_waiting_is_not_waited_for() -> None:
    room = Room(8)
    assert room.claim("small", needs(50), LENT) is None
    assert room.claim("large", needs(180), LENT) is not None
    room.release("large", over=True)
    assert room.claim("later", needs(10), LENT) is None


def test_no_more_run_than_may() -> None:
    room = Room(2)
    assert room.claim("a", needs(1), LENT) is None
    assert room.claim("b", needs(1), LENT) is None
    waits = room.claim("c", needs(1), LENT)
    assert waits is not None
    assert waits.reason == "2 jobs run already, as many as may"
    room.release("a", over=False)
    assert room.claim("c", needs(1), LENT) is None


def test_no_more_run_than_every_service_may_do() -> None:
    room, lent = Room(8), LENT | {"dealer": Lent(1)}
    assert room.claim("a", needs(1), lent) is None
    waits = room.claim("b", needs(1), lent)
    assert waits is not None
    assert (waits.party, waits.reason) == ("dealer", "1 jobs run already, as many as may")
    room.release("a", over=True)
    assert room.claim("b", needs(1), lent) is None


def test_what_fits_nowhere_is_left_to_the_party_to_refuse() -> None:
    assert Room(8).claim("huge", needs(10_000), LENT) is None


def test_nobody_is_asked_what_a_job_needs_that_is_alone() -> None:
    def unknown() -> int:
        raise AssertionError("compiled for nothing")

    assert Room(8).claim("alone", unknown, LENT) is None
