"""What a party sees is uniform whatever the data: a statistical test of whole views.

A view is everything that is sent in openings, what it adds up to, and a party's corrections. Each
is cut into its fields (every opened value, every corrected one), and each bit of each field must
be one half of the time; so must neighbouring bits and neighbouring elements differ. Inputs are at
their extremes, and their shares are not random at all: one party holds the value, the others zero.
So what is seen is as uniform as the masks make it, as docs/protocol.md claims. Fixed seeds, and
limits that chance passes once in 10^8 runs. Planted leaks fail the test, so it would tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from masque.mpc import inprocess, packing
from masque.mpc.correlations import Deal, Layout, opened_bits
from masque.mpc.dealer import Dealer
from masque.mpc.doors import Buffer
from masque.mpc.graph import Block, Graph, Node
from masque.mpc.machine import Values
from masque.mpc.party import Party
from masque.mpc.program import Program
from masque.mpc.types import Array, Ring
from tests.mpc.examples import everything
from tests.mpc.harness import block_of, seeds, sources

SHAPE = (240, 8)
LIMIT = 6.5  # standard deviations
TOP = 8 << 16


@dataclass
class View:
    """What one party sees: payloads by round, its own first, and its corrections by call."""

    payloads: list[list[bytes]] = field(default_factory=list)
    corrections: list[bytes] = field(default_factory=list)

    @property
    def shape(self) -> tuple[object, ...]:
        """The lengths of all of it."""
        return [[len(p) for p in row] for row in self.payloads], [len(c) for c in self.corrections]


@dataclass
class Window:
    """A seat, or a supply, that notes what passes."""

    inner: Any
    view: View

    def swap(self, payload: bytes) -> list[Buffer]:
        received: list[Buffer] = self.inner.swap(payload)
        self.view.payloads.append([payload, *(bytes(part) for part in received)])
        return received

    def corrections(self, position: int, size: int) -> Buffer:
        part = bytes(self.inner.corrections(position, size))
        self.view.corrections.append(part)
        return part


def views(
    program: Program, data: dict[str, Ring], seed: int, holder: int, monkeypatch: pytest.MonkeyPatch
) -> list[View]:
    """Runs a program on inputs that party `holder` has alone; returns the view of each party."""
    seen = [View() for _ in range(program.parties)]

    class Seen(Party):
        def __init__(self, *arguments: Any) -> None:
            program, index, own_seed, supply, exchange, source = arguments
            doors = Window(supply, seen[index]), Window(exchange, seen[index])
            super().__init__(program, index, own_seed, *doors, source)

    shares = {
        name: [x if i == holder else np.zeros_like(x) for i in range(program.parties)]
        for name, x in data.items()
    }
    with monkeypatch.context() as patch:
        patch.setattr(inprocess, "Party", Seen)
        inprocess.run(program, sources(shares, program.parties), seeds(program.parties, seed))
    return seen


Fields = Iterator[tuple[str, int, Ring]]


def opened_fields(program: Program, view: View) -> Fields:
    """(name, bits, values) of everything that each party sent, and of what it adds up to."""
    block = block_of(program)
    openings = [step.opened for step in block.steps if step.opened]
    for nodes, payloads in zip(openings, view.payloads, strict=True):
        offset = 0
        for node in nodes:
            bits = opened_bits(block, node)
            size = packing.packed_size(node.size, bits)
            parts = [payload[offset : offset + size] for payload in payloads]
            offset += size
            for sender, part in enumerate(parts):
                yield f"{node.op} {node.id}, {sender}", bits, packing.unpack(part, node.size, bits)
            fold = packing.accumulate if node.op == "mask" else packing.fold_xor
            own = np.zeros(node.size, dtype=np.uint64)
            yield f"{node.op} {node.id}, total", bits, fold(parts, node.size, bits, own)
        assert {len(payload) for payload in payloads} == {offset}


def corrected_fields(program: Program, view: View, party: int) -> Fields:
    """(name, bits, values) of every correction."""
    block = block_of(program)
    layout, rest = Layout(block), b"".join(view.corrections)
    for node_id, rows in layout.deals.items():
        for k, (deal, _, seat) in enumerate(rows):
            if deal.bits and seat == layout.seat(0, party):
                part, rest = rest[: deal.corrected], rest[deal.corrected :]
                name = f"correction {k} of {block.nodes[node_id].op} {node_id}"
                yield name, deal.bits, packing.unpack(part, deal.size, deal.bits)
    assert not rest


def deviation(name: str, bits: int, values: Ring) -> tuple[float, str]:
    """How many standard deviations the worst bit or pair of bits is from one half."""
    columns = np.stack([values >> np.uint64(j) & np.uint64(1) for j in range(bits)]).astype(float)
    pairs = np.concatenate([columns, np.abs(np.diff(columns, axis=0)), _moved(columns)])
    count = values.size
    off = np.abs(pairs.sum(axis=1) - count / 2) / np.sqrt(count / 4)
    worst = int(np.argmax(off))
    return float(off[worst]), f"{name}: bit {worst % bits} of {bits}, kind {worst // bits}"


def _moved(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each bit against itself in the element before."""
    return np.abs(columns - np.roll(columns, 1, axis=1))


def worst_of(program: Program, view: View, party: int) -> tuple[float, str]:
    """The field of a view that is least uniform."""
    fields = [*opened_fields(program, view), *corrected_fields(program, view, party)]
    assert fields
    found = [deviation(*each) for each in fields if each[2].size]
    for name, bits, values in fields:
        if 1 < bits <= 8 and name.startswith(("mask_pairs", "every")):
            found.append(_chi_square(name, bits, values))
    return max(found)


def _chi_square(name: str, bits: int, values: Ring) -> tuple[float, str]:
    """All 2^bits values of a node's bits, as standard deviations of a chi-square of one less.

    Times 0.8: its tail is longer than that of the normal distribution; of 3 and 7, far longer.
    """
    count = 1 << bits
    counts = np.bincount(values.astype(np.int64), minlength=count)
    expected = values.size / count
    chi = float(((counts - expected) ** 2 / expected).sum())
    shorter = 0.8 if count > 64 else 0.4
    return (chi - count + 1) / np.sqrt(2 * (count - 1)) * shorter, f"{name}: chi-square {chi}"


def data_of(kind: str) -> dict[str, Ring]:
    names = ("x", "y", "narrow")
    rng = np.random.default_rng(5)
    made = {
        "zeros": np.zeros(SHAPE, dtype=np.int64),
        "largest": np.full(SHAPE, TOP),
        "smallest": np.full(SHAPE, -TOP),
        "one": np.full(SHAPE, 1 << 16),
        "mixed": rng.integers(-TOP, TOP + 1, SHAPE),
    }[kind]
    return {name: made.view(np.uint64) for name in names}


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("kind", ["zeros", "largest", "smallest", "one", "mixed"])
def test_views_are_uniform_whatever_the_data(
    kind: str, parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = everything(parties, SHAPE)
    holder = 0 if kind == "smallest" else parties - 1
    for party, view in enumerate(views(program, data_of(kind), parties, holder, monkeypatch)):
        off, where = worst_of(program, view, party)
        assert off < LIMIT, f"party {party} sees {where}, {off:.1f} deviations from uniform"


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_the_shape_of_a_transcript_does_not_depend_on_data(
    parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = everything(parties, (4, 3))
    shapes = []
    for kind in ("zeros", "largest", "mixed"):
        data = {name: values[:4, :3] for name, values in data_of(kind).items()}
        shapes.append([view.shape for view in views(program, data, 1, 0, monkeypatch)])
    assert shapes[0] == shapes[1] == shapes[2]


# -- planted leaks -------------------------------------------------------------------------------


def worst_seen(monkeypatch: pytest.MonkeyPatch) -> tuple[float, str]:
    program = everything(2, SHAPE)
    seen = views(program, data_of("largest"), 1, 1, monkeypatch)
    return max(worst_of(program, view, party) for party, view in enumerate(seen))


@pytest.mark.parametrize("kept", [40, 60, 63])
def test_masks_without_their_top_bits_are_seen(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Party._draw

    def short(self: Party, block: Block) -> None:
        draw(self, block)
        for node_id, arrays in self._material.items():
            if block.nodes[node_id].op == "mask":
                arrays[0] &= np.uint64((1 << kept) - 1)

    monkeypatch.setattr(Party, "_draw", short)
    off, where = worst_seen(monkeypatch)
    assert off > 2 * LIMIT
    assert "mask " in where


@pytest.mark.parametrize("op", ["mask_bit", "mask_pairs", "every"])
def test_bits_that_are_not_masked_are_seen(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contribution = Party._contribution

    def careless(self: Party, node: Node, values: Values) -> Ring:
        if node.op == op:
            self._material[node.id][0][...] = 0
        return contribution(self, node, values)

    monkeypatch.setattr(Party, "_contribution", careless)
    off, where = worst_seen(monkeypatch)
    assert off > 2 * LIMIT
    assert op in where


def test_a_correction_that_shows_its_target_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dealer that forgets what the parties draw: corrections are the targets themselves."""

    class Lazy(Dealer):
        def _sum(self, deal: Deal, offset: int, seat: int) -> Array:
            total = super()._sum(deal, offset, seat)
            return np.zeros_like(total) if deal.bits else total

    monkeypatch.setattr(inprocess, "Dealer", Lazy)
    off, where = worst_seen(monkeypatch)
    assert off > 2 * LIMIT
    assert "correction" in where


def test_windows_of_masks_are_those_of_the_graph() -> None:
    """The narrow value is opened narrowly, so that the test above looks at windows as well."""
    block = block_of(everything(2))
    windows = {Graph.window(n) for n in block.nodes.values() if n.op == "mask"}
    assert (0, 64) in windows
    assert any(low > 0 and high < 64 for low, high in windows)
