"""A value times a bit, divided by a power of two in the same opening (docs/protocol.md, 5)."""

from __future__ import annotations

import numpy as np
import pytest

from masque.mpc import functions
from masque.mpc.cost import cost
from masque.mpc.graph import Graph
from masque.mpc.secret import Secret, concatenate
from masque.mpc.trace import Trace
from masque.mpc.types import Ring
from tests.mpc.harness import PARTIES, Clear, block_of, evaluate, one_block, traced
from tests.mpc.test_truncation import edges, execute_forced, widest


@pytest.mark.parametrize("parties", [*PARTIES, 9])
@pytest.mark.parametrize("width", [4, 7, 20, 33, 50, 58])
def test_either_the_value_within_an_ulp_or_nothing(
    width: int, parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks at every point where something wraps; each value by a bit and by its opposite."""
    trace = Trace("under bits", parties)
    inputs: dict[str, Clear] = {}
    targets: dict[str, Ring] = {}
    for shift in range(1, width):
        magnitude = widest(width, shift, parties)
        if magnitude < 1:
            continue
        z, r = edges(width, shift, magnitude, parties)
        clear = Clear(np.array([z]), shift, magnitude * 2.0**-shift)
        inputs[f"x{shift}"] = clear
        targets[f"x{shift}"] = np.array([[v % (1 << 64) for v in r]], dtype=np.uint64)
        x = trace.input(f"x{shift}", clear.values.shape, shift, clear.bound)
        bit = functions.less(x, resolution=0)
        for name, value in (("here", bit.times_at(x, 0)), ("there", (~bit).times_at(x, 0))):
            trace.output(f"{name}{shift}", value, 0)
    program = one_block(trace.freeze(), inputs, dict.fromkeys(trace.graph.outputs, 0))
    outcome = execute_forced(program, inputs, targets, monkeypatch)
    for name, clear in inputs.items():
        shift = int(name[1:])
        exact = (clear.values + (1 << (shift - 1))) >> shift
        here, there = outcome.got[f"here{shift}"], outcome.got[f"there{shift}"]
        assert np.all((here == 0) | (there == 0))
        assert np.abs(here + there - exact).max() <= 1
        plain = outcome.plain[f"here{shift}"] + outcome.plain[f"there{shift}"]
        np.testing.assert_array_equal(plain, exact)


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize(("scale", "bound"), [(8, 8.0), (24, 100.0), (40, 1000.0)])
def test_relu_at_a_smaller_scale(scale: int, bound: float, parties: int) -> None:
    rng = np.random.default_rng(scale)
    top = int(bound * 2.0**scale)
    few = [0, 1, -1, top, -top, 1 << (scale - 4), -(1 << (scale - 4)), (1 << (scale - 4)) - 1]
    values = np.array([[*few, *rng.integers(-top, top + 1, 300), *rng.integers(-9, 10, 50)]])
    outcome = evaluate(lambda x: functions.relu(x, 4), [Clear(values, scale, bound)], parties)
    plain = np.where(values >= 0, (values + (1 << (scale - 5))) >> (scale - 4), 0)
    np.testing.assert_array_equal(outcome.plain["y"], plain)
    assert np.abs(outcome.got["y"] - plain).max() <= 1
    assert np.all(outcome.got["y"][values < 0] == 0), "0 is 0"


@pytest.mark.parametrize("parties", PARTIES)
def test_a_coarse_relu_lets_hardly_anything_below_zero_pass(parties: int) -> None:
    values = np.arange(-(1 << 12), 1 << 12).reshape(1, -1) << 4
    clear = Clear(values, 16, 1.0)
    outcome = evaluate(lambda x: functions.relu(x, 12, resolution=8), [clear], parties)
    exact = np.maximum(values, 0) / 2.0**16
    assert np.abs(outcome.reals() - exact).max() <= 2.0**-8 + 2.0**-12


@pytest.mark.parametrize("parties", PARTIES)
def test_one_bit_serves_a_value_and_a_gradient(parties: int) -> None:
    """As a layer does: forward and backward by the same bit; bits may be fewer than values."""
    rng = np.random.default_rng(7)
    z = Clear(rng.integers(-(1 << 30), 1 << 30, (40, 6)), 26, 16.0)
    da = Clear(rng.integers(-(1 << 36), 1 << 36, (40, 6)), 30, 64.0)

    def both(z: Secret, da: Secret) -> Secret:
        a, bit = functions.relu_and_bit(z, 14)
        signs = functions.less_each(z, [0.0, 1.0]).times_at(da, 12)
        parts = [a, bit.times_at(da, 12), signs[0], signs[1]]
        return concatenate(parts, axis=0)

    outcome = evaluate(both, [z, da], parties)
    assert np.abs(outcome.got["y"] - outcome.plain["y"]).max() <= 4
    one = z.values / 2.0**26
    gradient = da.values / 2.0**30
    wanted = [np.maximum(one, 0), *(gradient * kept for kept in (one >= 0, one < 0, one < 1))]
    np.testing.assert_allclose(outcome.reals(), np.concatenate(wanted), rtol=0, atol=2.0**-11)


def test_what_is_cut_under_a_bit_is_opened_narrowly() -> None:
    """And in the round of the comparison: 26 bits of z instead of 26 and 64."""
    clear = Clear(np.zeros((100, 10), dtype=np.int64), 32, 100.0)
    fused = traced(lambda x: functions.relu(x, 16, resolution=12), [clear], 2)
    windows = [Graph.window(n) for n in block_of(fused).nodes.values() if n.op == "mask"]
    assert windows == [(14, 41)]

    def apart(x: Secret) -> Secret:
        return (~functions.less(x, resolution=12)).times(x.at(16))

    before, after = cost(traced(apart, [clear], 2)), cost(fused)
    assert after.rounds == before.rounds == 3
    assert after.sent == before.sent - 8 * 1000
