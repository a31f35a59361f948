"""Exact truncation (docs/protocol.md, protocol 4): within one ulp, always, for every window.

The masks are chosen here, not drawn: r is put at every point where an addition could wrap, and the
shares where the bits below the window carry most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from masque.errors import RangeError
from masque.mpc import prg
from masque.mpc.correlations import Layout
from masque.mpc.program import Program
from masque.mpc.scaling import guard_bits, scale_down, truncation_window
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from masque.mpc.types import Bytes, Ring
from tests.mpc.harness import (
    PARTIES,
    Clear,
    Outcome,
    block_of,
    encode,
    evaluate,
    execute,
    one_block,
    seeds,
)

WIDTHS = range(2, 64)


@dataclass
class Forced:
    """A stream whose bytes are given: put in the place of `prg.Stream`."""

    drawn: dict[bytes, Bytes]
    seed: bytes = b""

    def __call__(self, seed: bytes) -> Forced:
        return Forced(self.drawn, seed)

    def expand_spans(self, position: int, size: int, spans: Sequence[tuple[int, int]]) -> Bytes:
        assert position == 0 and len(spans) <= 2
        return self.drawn[self.seed][:size].copy()


def widest(width: int, shift: int, parties: int) -> int:
    """The largest |z| that is truncated in `width` bits, by the code's own account; or -1."""
    low, high = -1, 1 << 61
    while low < high:
        middle = (low + high + 1) // 2
        try:
            fits = truncation_window(float(middle), shift, 0, parties)[0] <= width
        except RangeError:
            fits = False
        low, high = (middle, high) if fits else (low, middle - 1)
    return int(float(low)) if low < 1 << 53 else int(np.nextafter(float(low), 0.0))


def edges(width: int, shift: int, magnitude: int, parties: int) -> tuple[list[int], list[int]]:
    """Pairs (z, r): z at and near its bounds, r where something wraps."""
    rng = np.random.default_rng([width, shift, parties])
    half, low = 1 << (shift - 1), 1 << max(0, shift - guard_bits(parties))
    near = {0, 1, -1, half, -half, half - 1, -half - 1, 2 * half, magnitude, magnitude - 1}
    near |= {-magnitude, 1 - magnitude, int(rng.integers(-magnitude, magnitude + 1))}
    z, r = [], []
    for value in sorted(v for v in near if abs(v) <= magnitude):
        lifted = value + (1 << (width - 1))
        for turn in (0, 1 << width, 1 << (width + 1)):
            for nudge in (-1, 0, 1, -low, parties * low, (parties - 1) * low - 1):
                z += [value, value]
                r += [turn - lifted + nudge, turn + nudge]
    return z, r


def forced_run(width: int, parties: int, monkeypatch: pytest.MonkeyPatch) -> Outcome | None:
    """All shifts of one width in one block, masks and shares as chosen."""
    trace = Trace("cuts", parties)
    inputs: dict[str, Clear] = {}
    targets: dict[str, Ring] = {}
    for shift in range(1, width):
        magnitude = widest(width, shift, parties)
        if magnitude < 1:
            continue
        z, r = edges(width, shift, magnitude, parties)
        name = f"x{shift}"
        clear = Clear(np.array([z]), shift, magnitude * 2.0**-shift)
        inputs[name] = clear
        targets[name] = np.array([[v % (1 << 64) for v in r]], dtype=np.uint64)
        x = trace.input(name, clear.values.shape, shift, clear.bound)
        trace.output(f"y{shift}", x.at(0), 0)
    if not inputs:
        return None
    program = one_block(trace.freeze(), inputs, dict.fromkeys(trace.graph.outputs, 0))
    return execute_forced(program, inputs, targets, monkeypatch)


def execute_forced(
    program: Program,
    inputs: Mapping[str, Clear],
    targets: Mapping[str, Ring],
    monkeypatch: pytest.MonkeyPatch,
) -> Outcome:
    """Run with sum of a = -r of each input's first mask, and shares that carry in half of them."""
    block, parties = block_of(program), program.parties
    layout = Layout(block)
    keys = seeds(parties, 1)
    drawn = {key: prg.Stream(key).expand(0, layout.drawn) for key in keys}
    shares: dict[str, list[Ring]] = {}
    for node in block.nodes.values():
        if node.op != "mask":
            continue
        name = str(block.nodes[node.args[0]].params[0])
        deal, offset, _ = layout.deals[node.id][0]
        a = [
            np.frombuffer(drawn[key], "<u8", deal.size, offset).reshape(deal.shape) for key in keys
        ]
        total = np.sum(a[1:], axis=0, dtype=np.uint64)
        a[0][...] = np.negative(targets[name]) - total
        low = node.params[0]
        assert isinstance(low, int)
        carry = np.where(np.arange(deal.size) % 4 < 2, (1 << low) - 1, 0x9E3779B97F4A7C15)
        others = [share + carry.astype(np.uint64).reshape(deal.shape) for share in a[1:]]
        value = inputs[name].values.view(np.uint64)
        shares[name] = [value - np.sum(others, axis=0, dtype=np.uint64), *others]
    monkeypatch.setattr(prg, "Stream", Forced(drawn))
    clear = {name: given.values.view(np.uint64) for name, given in inputs.items()}
    return execute(program, clear, 1, shares)


@pytest.mark.parametrize("parties", PARTIES)
def test_truncation_never_errs_by_more_than_one_ulp(
    parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = 0
    for width in WIDTHS:
        with monkeypatch.context() as patch:
            outcome = forced_run(width, parties, patch)
        if outcome is None:
            continue
        for name, got in outcome.got.items():
            off = np.abs(got - outcome.plain[name])
            assert off.max() <= 1, f"width {width}, shift {name[1:]}"
            checked += off.size
        for node in block_of(outcome.program).nodes.values():
            if node.op == "truncate":
                assert node.params[1] == width
    assert checked > 300_000


@pytest.mark.parametrize("parties", [4, 8, 9])
def test_guard_bits_grow_with_the_parties(parties: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (6, 21, 63):
        with monkeypatch.context() as patch:
            outcome = forced_run(width, parties, patch)
        assert outcome is not None
        for name, got in outcome.got.items():
            assert np.abs(got - outcome.plain[name]).max() <= 1, f"width {width}, shift {name[1:]}"


@pytest.mark.parametrize("parties", PARTIES)
def test_plain_rounds_to_nearest(parties: int) -> None:
    z = np.arange(-40, 41).reshape(1, -1)
    outcome = evaluate(lambda x: x.at(0), [Clear(z, 3, 5.0)], parties)
    np.testing.assert_array_equal(outcome.plain["y"], np.floor(z / 8 + 0.5))


@pytest.mark.parametrize("parties", PARTIES)
def test_random_products_are_never_far_off(parties: int) -> None:
    """Protocols that truncate shares err by 2^47 here, once in some hundred thousand values."""
    rng = np.random.default_rng(parties)
    clear = Clear(rng.integers(-(1 << 43), 1 << 43, (1000, 400)), 16, 2.0**27)
    outcome = evaluate(lambda x: x.at(0), [clear], parties)
    off = outcome.got["y"] - outcome.plain["y"]
    assert np.abs(off).max() <= 1
    assert np.mean(off == 0) > 0.5


@pytest.mark.parametrize("parties", PARTIES)
def test_windows_wider_than_needed_serve_as_well(parties: int) -> None:
    rng = np.random.default_rng(0)
    clear = Clear(rng.integers(-(1 << 30), 1 << 30, (50, 40)), 20, 2.0**10)

    def cuts(x: Secret) -> Secret:
        both = x.at(12) + x.at(2) + x.at(19)  # one opening, from the lowest bit to the highest
        return both + (x * x).at(19)  # and all of it

    outcome = evaluate(cuts, [clear], parties)
    assert np.abs(outcome.got["y"] - outcome.plain["y"]).max() <= (1 << 17) + (1 << 7) + 2


@pytest.mark.parametrize("parties", PARTIES)
def test_division_by_a_public_factor(parties: int) -> None:
    rng = np.random.default_rng(parties)
    for bound, scale, factor, to in [
        (100.0, 16, 0.3, 12),
        (100.0, 30, 1e-3, 20),
        (2.0**20, 40, 1 / 3, 38),
        (2.0**30, 31, 2.0**-20, 20),
        (3.0, 8, 1000.0, 2),
        (3.0, 16, 1.0, 2),
        (3.0, 16, 0.0, 2),
    ]:
        values = rng.uniform(-bound, bound, (100, 20))
        values[0, :3] = bound, -bound, 0
        clear = Clear(encode(values, scale), scale, bound)
        outcome = evaluate(lambda x, f=factor, s=to: x.scaled(f, s), [clear], parties, parties)
        assert np.abs(outcome.got["y"] - outcome.plain["y"]).max() <= 1
        exact = clear.values / 2.0**scale * factor
        far = np.abs(outcome.reals() - exact)
        assert np.all(far <= 1.5 * 2.0**-to + np.abs(exact) * 2.0**-24 + 1e-12)


def test_scaling_is_exact() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 1 << 64, 40, dtype=np.uint64)
    y[:4] = 0, 1, (1 << 64) - 1, 1 << 63
    for shift in range(1, 64):
        for factor in (1, 2, 3, (1 << 30) - 1, 1 << 30, int(rng.integers(1, 1 << 31))):
            for half in (False, True):
                got = scale_down(y, np.array(factor, dtype=np.uint64), shift, half=half)
                half_unit = half << (shift - 1)
                want = [((factor * int(v) + half_unit) >> shift) % (1 << 64) for v in y]
                assert [int(v) for v in got] == want


def test_values_that_fill_the_ring_are_refused() -> None:
    assert truncation_window(2.0**61, 16, 0, 2)[0] == 63
    with pytest.raises(RangeError, match="too wide"):
        truncation_window(2.0**62, 16, 0, 2)


def test_bounds_are_rounded_outwards() -> None:
    """A bound a rounding error below the power of two that needs one more bit."""
    low = 14
    almost = 2.0**60 - 2 * 2.0**low - 1 - 2.0**9  # what 2^60 - 2 * 2^low - 1 might be rounded to
    assert truncation_window(almost, 16, 0, 2) == (62, low)
