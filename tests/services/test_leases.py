"""Who is named when nobody comes further: leases under a clock that the test moves."""

from __future__ import annotations

import pytest

from masque.v1.party_pb2 import RoundProgress, Traffic
from services.coordinator.leases import MARGIN, Late, Leases

PARTIES = frozenset({"party-1", "party-2", "party-3"})
DONE = frozenset({"dealer", "party-9"})
LEASE = 60.0
STALLED = LEASE + MARGIN


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def granted() -> tuple[Leases, Clock]:
    clock = Clock()
    leases = Leases(LEASE, clock)
    leases.grant(PARTIES | DONE)  # to prepare
    leases.grant(PARTIES)
    return leases, clock


def progress(exchanges: int = 0, doing: str = "computes", waits_for: str = "") -> RoundProgress:
    return RoundProgress(traffic=Traffic(exchanges=exchanges), doing=doing, waits_for=waits_for)


def test_whoever_was_asked_has_a_whole_lease() -> None:
    leases, clock = granted()
    clock.now += LEASE
    assert leases.late(PARTIES) is None
    clock.now += 0.1
    assert leases.late(PARTIES) == Late("party-1, party-2, party-3", "no sign of life for 60 s")


def test_who_is_silent_is_named_though_others_move() -> None:
    leases, clock = granted()
    for _ in range(7):
        clock.now += 10
        leases.alive("party-1", progress(int(clock.now)))
        leases.alive("party-3", None)
    assert leases.late(PARTIES) == Late("party-2", "no sign of life for 60 s")
    leases.alive("party-2", progress())
    assert leases.late(PARTIES) is None


def test_who_has_answered_owes_no_sign_of_life() -> None:
    leases, clock = granted()
    clock.now += LEASE + 1
    leases.alive("party-1", None)
    assert leases.late(frozenset({"party-1"})) is None
    assert leases.late(frozenset()) is None


def test_what_is_asked_next_has_a_lease_of_its_own() -> None:
    leases, clock = granted()
    clock.now += LEASE
    leases.alive("party-1", progress(5, "computes"))
    leases.grant({"party-1"})
    clock.now += LEASE
    assert leases.late(frozenset({"party-1"})) is None
    assert leases.doing(PARTIES) == "", "what it did before is of no interest"


def beat(leases: Leases, clock: Clock, said: dict[str, RoundProgress], seconds: float) -> None:
    """All of them say the same once a second."""
    for _ in range(round(seconds)):
        for peer, words in said.items():
            leases.alive(peer, words)
        clock.now += 1


def test_signs_of_life_without_progress_are_not_enough() -> None:
    leases, clock = granted()
    said = {peer: progress(7, "computes") for peer in PARTIES}
    beat(leases, clock, said, STALLED)
    assert leases.late(PARTIES) is None
    beat(leases, clock, said, 1)
    late = leases.late(PARTIES)
    assert late is not None
    assert late.doing == "no progress for 65 s: computes"


def test_as_long_as_one_comes_further_all_do() -> None:
    """A party that waits stands still, and whom it waits for does not."""
    leases, clock = granted()
    waits = progress(7, "waits for party-3 in exchange 8", "party-3")
    for step in range(4):
        busy = progress(step)
        beat(leases, clock, {"party-1": waits, "party-2": waits, "party-3": busy}, LEASE / 2)
    assert leases.late(PARTIES) is None


@pytest.mark.parametrize("counted", ["exchanges", "corrections"])
def test_messages_and_material_are_progress(counted: str) -> None:
    leases, clock = granted()
    for number in range(200):
        clock.now += 1
        for peer in PARTIES:
            traffic = Traffic(**{counted: number // 30})
            leases.alive(peer, RoundProgress(traffic=traffic))
    assert leases.late(PARTIES) is None


CHAINS = {
    "everybody waits for one who computes": (
        {"party-1": "party-2", "party-2": "party-3", "party-3": ""},
        "party-3",
        "party-3 does",
    ),
    "everybody waits for the dealer": (
        {"party-1": "party-2", "party-2": "dealer", "party-3": "party-2"},
        "dealer",
        "it lets the others wait",
    ),
    "for one who has answered already": (
        {"party-1": "party-9", "party-2": "party-1", "party-3": "party-1"},
        "party-9",
        "it lets the others wait",
    ),
    "in a circle": (
        {"party-1": "party-2", "party-2": "party-1", "party-3": "party-1"},
        "party-1",
        "party-1 does",
    ),
    "for nobody of this job": (
        {"party-1": "mallory", "party-2": "party-1", "party-3": "party-1"},
        "party-1",
        "party-1 does",
    ),
    "one for itself": (
        {"party-1": "party-1", "party-2": "party-1", "party-3": "party-1"},
        "party-1",
        "party-1 does",
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_the_end_of_the_chain_of_those_who_wait_is_named(chain: str) -> None:
    waits, culprit, doing = CHAINS[chain]
    leases, clock = granted()
    said = {peer: progress(3, f"{peer} does", whom) for peer, whom in waits.items()}
    beat(leases, clock, said, STALLED + 1)
    assert leases.late(PARTIES) == Late(culprit, f"no progress for 65 s: {doing}")


def test_who_lives_and_tells_nothing_is_named_all_the_same() -> None:
    leases, clock = granted()
    beat(leases, clock, {peer: RoundProgress() for peer in PARTIES}, STALLED + 1)
    assert leases.late(PARTIES) == Late("party-1", "no progress for 65 s: nothing is known")


def test_what_they_are_about_is_told_in_words_and_briefly() -> None:
    leases, _ = granted()
    leases.alive("party-2", progress(1, "waits for material of dealer", "dealer"))
    leases.alive("party-1", progress(1, "\033[31m" + "x" * 10_000, "y" * 10_000))
    one, two = leases.doing(PARTIES).split(", ")
    assert one.startswith("party-1 \N{REPLACEMENT CHARACTER}[31mxx") and len(one) == 208
    assert two == "party-2 waits for material of dealer"
    assert leases.doing(frozenset({"party-3"})) == ""


def preparing(worked: int, doing: str = "compiles the job") -> RoundProgress:
    return RoundProgress(doing=doing, worked=worked)


def test_who_prepares_and_hangs_is_late_though_he_lives() -> None:
    leases, clock = granted()
    beat(leases, clock, {peer: preparing(7) for peer in PARTIES}, STALLED + 1)
    assert leases.late(PARTIES) == Late("party-1", "no progress for 65 s: compiles the job")


def test_who_prepares_and_computes_may_take_longer_than_a_lease() -> None:
    leases, clock = granted()
    for worked in range(20):
        beat(leases, clock, {peer: preparing(worked) for peer in PARTIES}, LEASE / 2)
        assert leases.late(PARTIES) is None


def test_who_lets_the_others_wait_is_named_before_a_lease_is_over() -> None:
    """When the time of the job is used up, that is all there is to go by."""
    leases, clock = granted()
    assert leases.slowest(PARTIES) == "party-1, party-2, party-3", "nothing is known"
    waits = {p: progress(1, "waits", "party-3") for p in ("party-1", "party-2")}
    beat(leases, clock, waits | {"party-3": progress(1)}, 2)
    assert leases.slowest(PARTIES) == "party-3"
    assert leases.slowest(frozenset({"party-1", "party-2"})) == "party-3"
    beat(leases, clock, waits | {"party-3": progress(1, "waits", "party-1")}, 2)
    assert leases.slowest(PARTIES) == "party-1, party-2, party-3", "they wait in a circle"
    beat(leases, clock, waits, MARGIN + 1)
    assert leases.slowest(PARTIES) == "party-3", "it is silent"
