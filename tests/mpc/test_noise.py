"""Noise of parties: their own, fresh, in the result, and known to nobody else."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy import stats

from masque.errors import RangeError
from masque.mpc import inprocess, sharing
from masque.mpc.cost import cost
from masque.mpc.dealer import Dealer
from masque.mpc.gaussian import discrete_gaussian
from masque.mpc.graph import Kind
from masque.mpc.inprocess import Meeting, Seat, Stock
from masque.mpc.party import Party
from masque.mpc.plain import Plain
from masque.mpc.program import Call, Input, Output, Program, Ref, Register, TrainingRound
from masque.mpc.trace import Trace
from masque.mpc.types import Ring
from tests.mpc.harness import seeds, share_inputs, sources
from tests.mpc.test_gaussian import draws

SHAPE, SCALE, SIGMA = (40, 50), 16, 1 << 20
DATA = np.arange(2000, dtype=np.uint64).reshape(SHAPE)


def noisy(parties: int, sigma: int = SIGMA, *, opened: bool = False) -> Program:
    """A data set with noise, handed out."""
    trace = Trace("noisy", parties)
    value = trace.input("x", SHAPE, SCALE, 64.0)
    value = value + trace.noise("y", SHAPE, SCALE, sigma)
    trace.output("y", value, SCALE)
    if opened:
        trace.reveal("y", value)
    call = Call(trace.freeze(), {"x": Ref("data")}, {}, {"y": Ref("y")})
    return Program(
        name="noisy",
        parties=parties,
        registers={"y": Register(SHAPE, Kind.SHARE)},
        inputs={"data": Input("data", *SHAPE, SCALE)},
        rounds=[TrainingRound("only", lambda: [call], 1)],
        outputs={"y": Output("y", SHAPE, SCALE, ())},
    )


def total(run: inprocess.Run) -> np.ndarray:
    """What all noise together came to, in sigmas."""
    joined = sharing.join([party.output("y") for party in run.parties])
    return (joined - DATA).view(np.int64).reshape(-1) / SIGMA


def executed(program: Program, number: int = 1) -> inprocess.Run:
    shares = share_inputs({"data": DATA}, program.parties, number)
    return inprocess.run(program, sources(shares, program.parties), seeds(program.parties, number))


@pytest.mark.parametrize("parties", [2, 3])
def test_the_result_has_the_noise_of_every_party(parties: int) -> None:
    found = total(executed(noisy(parties))) / np.sqrt(parties)
    assert stats.kstest(found, "norm").pvalue > 1e-6
    assert abs(found.var() - 1) < 6 * np.sqrt(2 / found.size)


def test_seeds_of_the_dealer_say_nothing_about_it() -> None:
    """Everything that the dealer knows of two runs is equal; the noise is not, nor related."""
    first, second = (total(executed(noisy(2), number=7)) for _ in range(2))
    assert abs(stats.pearsonr(first, second).statistic) < 6 / np.sqrt(first.size)


def test_the_dealer_deals_nothing_for_it_and_it_opens_nothing() -> None:
    program = noisy(2)
    (_, parts), *rest = Dealer(program, seeds(2, 1)).deal()
    assert not rest and parts == [b"", b""]
    assert (cost(program).rounds, cost(program).sent) == (0, 0)


def test_one_party_alone_hides_the_value_from_all_others() -> None:
    """A coalition that takes its own noise away is left with that of the last, of full sigma."""
    program, meeting = noisy(2), Meeting(2)
    shares = share_inputs({"data": DATA}, 2, 3)
    parties = [
        Party(program, i, seeds(2, 3)[i], Stock(), Seat(meeting, i), source, draw=draw)
        for i, (source, draw) in enumerate(
            zip(sources(shares, 2), (draws(1), os.urandom), strict=True)
        )
    ]
    for party in parties:
        party.run_round(0)
    own = discrete_gaussian(SIGMA, SHAPE, draws(1))  # party 0 knows what it drew
    joined = sharing.join([party.output("y") for party in parties])
    left = (joined - own - DATA).view(np.int64).reshape(-1) / SIGMA
    assert stats.kstest(left, "norm").pvalue > 1e-6


def test_what_is_opened_to_all_has_noise() -> None:
    run = executed(noisy(2, opened=True))
    opened = (run.parties[0].opened["y"] - DATA).view(np.int64).reshape(-1)
    assert np.array_equal(opened / SIGMA, total(run))


def test_plain_adds_what_it_is_given() -> None:
    def noise(sigma: int, shape: tuple[int, ...]) -> Ring:
        return np.full(shape, sigma, dtype=np.uint64)

    program = noisy(2)
    silent, loud = Plain(program, lambda *_: DATA), Plain(program, lambda *_: DATA, noise)
    for plain in (silent, loud):
        plain.run_program()
    assert np.array_equal(silent.output("y"), DATA)
    assert np.array_equal(loud.output("y"), DATA + np.uint64(SIGMA))


def test_a_program_says_how_much() -> None:
    assert noisy(2).digest != noisy(2, SIGMA + 1).digest


def test_noise_that_leaves_the_ring_is_refused() -> None:
    with pytest.raises(RangeError, match="leaves the ring"):
        noisy(2, 1 << 57)
