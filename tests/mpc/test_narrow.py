"""Only bits that something uses are opened and corrected; what lies above is never looked at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from masque.mpc import functions
from masque.mpc.correlations import deals
from masque.mpc.cost import cost
from masque.mpc.graph import Block, Graph, Kind
from masque.mpc.machine import LINEAR
from masque.mpc.narrow import BITWISE, MODULAR, WINDOWED
from masque.mpc.party import Party
from masque.mpc.program import Program
from masque.mpc.scaling import truncation_window
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from tests.mpc.examples import epochs, everything, rows_of_data
from tests.mpc.harness import PARTIES, Clear, Outcome, block_of, execute, traced
from tests.mpc.test_programs import TABLE

SPECIAL = {"times", "mask", "truncate", "flag_truncate"}
WHOLE = {"gaps", "reveal", "noise"}


def test_every_operation_says_what_it_needs() -> None:
    assert LINEAR < MODULAR | SPECIAL
    assert TABLE == MODULAR | WINDOWED | BITWISE | SPECIAL | WHOLE


def windows(function: Callable[..., Secret], count: int = 2) -> list[tuple[int, int]]:
    """What is opened of each mask, for values of 16 fraction bits up to 8."""
    inputs = [Clear(np.zeros((4, 4), dtype=np.int64), 16, 8.0)] * count
    block = block_of(traced(function, inputs, 2))
    return [Graph.window(node) for node in block.nodes.values() if node.op == "mask"]


def test_factors_of_a_product_that_is_cut_are_opened_as_far_as_it() -> None:
    width, low = truncation_window(64.0 * 2.0**32, 20, 0, 2)
    assert windows(lambda x, y: (x * y).at(12)) == [(0, width + 1)] * 2 + [(low, width + 1)]
    assert windows(lambda x, y: x * y) == [(0, 64)] * 2, "what is handed over is whole"
    assert (0, 64) in windows(lambda x, y: (x * y).at(12) + x * x), "the widest use counts"
    doubled = windows(lambda x, y: (x * y).at(42).at(12))
    assert doubled[0][1] < doubled[-1][1], "zeros at the end of a factor are no bits"


def test_what_a_block_hands_over_masked_is_whole() -> None:
    trace = Trace("kept", 2)
    x = trace.input("x", (4, 4), 16, 8.0)
    trace.output("y", (x * x).at(12), 12)
    trace.output("x", x, 16, masked=True)
    block = trace.freeze()
    kept = block.nodes[block.outputs["x"]]
    assert kept.kind is Kind.MASKED and Graph.window(kept) == (0, 64)


def test_sums_of_waves_that_are_cut_take_fewer_corrections() -> None:
    inputs = [Clear(np.zeros((10, 10), dtype=np.int64), 16, 128.0)]
    whole = cost(traced(functions.sigmoid, inputs, 2))
    cut = cost(traced(lambda x: functions.sigmoid(x).at(16), inputs, 2))
    assert sum(cut.corrections) < 0.72 * sum(whole.corrections)


def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parties whose shares are random above the bits that are corrected or opened."""
    rng = np.random.default_rng(3)
    draw = Party._draw

    def above(self: Party, block: Block) -> None:
        draw(self, block)
        self._receive()
        for node_id, arrays in self._material.items():
            for k, deal in enumerate(deals(block.nodes[node_id])):
                if deal.dtype == "<u8" and 0 < deal.bits < 64:
                    noise = rng.integers(0, 1 << 64, deal.shape, dtype=np.uint64)
                    arrays[k] = arrays[k] + (noise << np.uint64(deal.bits))

    monkeypatch.setattr(Party, "_draw", above)


def result(program: Program) -> Outcome:
    rng = np.random.default_rng(8)
    data = {
        name: rng.integers(-(1 << 18), 1 << 18, (given.rows, given.columns)).view(np.uint64)
        for name, given in program.inputs.items()
    }
    if "data" in data:
        data["data"] = rows_of_data(8)
    return execute(program, data, 8)


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize("make", [everything, epochs])
def test_bits_above_are_never_looked_at(
    make: Callable[[int], Program], parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make(parties)
    before = result(program)
    noisy(monkeypatch)
    after = result(program)
    for name, values in before.got.items():
        np.testing.assert_array_equal(after.got[name], values)
