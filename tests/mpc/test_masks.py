"""A mask is used for one value, once: across nodes, calls, epochs, attempts and jobs.

`Watched` parties write down every byte of their seeds' streams that they take, and what for. The
books of several jobs and attempts together must name no byte twice. Three planted faults show
that the books would tell, and one what an attacker would learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from masque.mpc import correlations, inprocess, prg
from masque.mpc.correlations import Deal
from masque.mpc.dealer import Dealer
from masque.mpc.graph import Block, Kind, Node
from masque.mpc.machine import Values
from masque.mpc.party import Party
from masque.mpc.program import Call, Input, Output, Program, Ref, Register, TrainingRound
from masque.mpc.steps import Masked
from masque.mpc.trace import Trace
from masque.mpc.types import Bytes, Ring
from tests.mpc.examples import epochs, everything, rows_of_data
from tests.mpc.harness import PARTIES, share_inputs, sources


@dataclass
class Book:
    """What was taken from streams: (seed, position, first byte, end, node), and what was opened."""

    expanded: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    taken: list[tuple[bytes, int, int, int, int]] = field(default_factory=list)
    opened: Counter[tuple[bytes, int, int]] = field(default_factory=Counter)
    masks: list[Ring] = field(default_factory=list)
    held: dict[int, set[int]] = field(default_factory=dict)
    changed: list[tuple[int, int]] = field(default_factory=list)

    def faults(self) -> Iterator[str]:
        """Whatever was used twice, or is not what was drawn for it."""
        for position, node in self.changed:
            yield f"the material of node {node} at position {position} is not as it was drawn"
        for (_, position), times in self.expanded.items():
            if times > 1:
                yield f"position {position} expanded {times} times from one seed"
        for (_, position, node), times in self.opened.items():
            if times > 1:
                yield f"the mask of node {node} opened {times} times at position {position}"
        end_of: dict[tuple[bytes, int], int] = {}
        for seed, position, start, stop, node in sorted(self.taken):
            if start < end_of.get((seed, position), 0):
                yield f"bytes of position {position} taken twice, also by node {node}"
            end_of[seed, position] = max(stop, end_of.get((seed, position), 0))
        words = np.concatenate([m.reshape(-1) for m in self.masks]) if self.masks else np.empty(0)
        if len(np.unique(words)) < len(words):
            yield "one word masked two values"
        if any(len(differences) > 1 for differences in self.held.values()):
            yield "one mask is held with two differences"


class Watched(Party):
    """A party that keeps a book."""

    book = Book()

    def __init__(self, program: Program, index: int, seed: bytes, *rest: Any) -> None:
        super().__init__(program, index, seed, *rest)
        self.seed = seed

    def _draw(self, block: Block) -> None:
        super()._draw(block)
        layout, position = self.layout(block), self._position
        self.book.expanded[self.seed, position] += 1
        stream = prg.Stream(self.seed).expand(position, layout.drawn)
        for node_id, rows in layout.deals.items():
            for k, (deal, offset, seat) in enumerate(rows):
                if seat == layout.seat(position, self.index):
                    continue  # sent by the dealer
                used = deal.size * np.dtype(deal.dtype).itemsize
                taken = (self.seed, position, offset, offset + used, node_id)
                self.book.taken.append(taken)
                assert offset + used <= layout.drawn
                mine = self._material[node_id][k].tobytes()
                if mine != stream[offset : offset + used].tobytes():
                    self.book.changed.append((position, node_id))

    def _contribution(self, node: Node, values: Values) -> Ring:
        if node.op != "reveal":
            self.book.opened[self.seed, self._position, node.id] += 1
        if node.op == "mask":
            self.book.masks.append(self._material[node.id][0].copy())
        return super()._contribution(node, values)

    def store(self, ref: Ref, value: Any, drawn_at: int | None = None) -> None:
        super().store(ref, value, drawn_at)
        if isinstance(value, Masked):
            for a, d in zip(value.a.reshape(-1), value.d.reshape(-1), strict=True):
                self.book.held.setdefault(int(a), set()).add(int(d))


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Book:
    fresh = Book()
    monkeypatch.setattr(Watched, "book", fresh)
    monkeypatch.setattr(inprocess, "Party", Watched)
    return fresh


def seeds_of(job: str, attempt: int, parties: int) -> list[bytes]:
    """Seeds as a dealer derives them, if even its root were the same for all jobs."""
    root = bytes(32)
    return [prg.derive(root, "party material", job, attempt, f"p{i}") for i in range(parties)]


def run(program: Program, job: str, attempt: int, seed: int = 1) -> inprocess.Run:
    data = {name: rows_of_data(seed, i.rows, i.columns) for name, i in program.inputs.items()}
    shares = share_inputs(data, program.parties, seed)
    seeds = seeds_of(job, attempt, program.parties)
    return inprocess.run(program, sources(shares, program.parties), seeds)


@pytest.mark.parametrize("parties", PARTIES)
def test_no_byte_of_material_is_used_twice(parties: int, book: Book) -> None:
    for job in ("first", "second"):
        for attempt in (1, 2):
            run(epochs(parties, 3), job, attempt)
            run(everything(parties), f"{job} everything", attempt)
    assert list(book.faults()) == []
    # x once a job, w and what lies between once an update, at every party
    assert len(book.taken) > 100 * parties
    assert sum(mask.size for mask in book.masks) > 400 * parties


def test_a_register_that_is_overwritten_has_a_fresh_mask(book: Book) -> None:
    program = epochs(2, 4)
    assert program.registers["w"].kind is Kind.MASKED
    run(program, "job", 1)
    masks = [mask for mask in book.masks if mask.shape == (4, 1)]
    assert len(masks) >= 2 * (1 + 2 * 4) - 2  # after every update, at both parties
    assert list(book.faults()) == []


def test_labels_name_domains_of_their_own() -> None:
    labels: list[tuple[str | int, ...]] = [
        ("party material", job, attempt, party)
        for job in ("a", "b", "a1", "1")
        for attempt in (1, 2, 11, 12)
        for party in ("p0", "p1", "1p0", "a")
    ]
    labels += [("party materiala", 1, "p0"), ("party material", "a1", "p0"), ("party material",)]
    root = bytes(range(32))
    assert len({prg.derive(root, *each) for each in labels}) == len(labels)


# -- planted faults ------------------------------------------------------------------------------


def twice(parties: int = 2) -> Program:
    """One block, called for two halves of the data: masks each half."""
    trace = Trace("mask", parties)
    x = trace.input("x", (5, 4), 16, 4.0)
    trace.output("x", x, 16, masked=True)
    block = trace.freeze()

    def calls() -> Sequence[Call]:
        parts = [slice(0, 5), slice(5, 10)]
        return [Call(block, {"x": Ref("data", p)}, {}, {"x": Ref("x", p)}) for p in parts]

    return Program(
        name="twice",
        parties=parties,
        registers={"x": Register((10, 4), Kind.MASKED)},
        inputs={"data": Input("data", 10, 4, 16)},
        rounds=[TrainingRound("only", calls, 2)],
        outputs={"x": Output("x", (10, 4), 16, ())},
    )


class Stuck(prg.Stream):
    """A stream that forgets its position."""

    def expand_spans(self, position: int, size: int, spans: Sequence[tuple[int, int]]) -> Bytes:
        return super().expand_spans(0, size, spans)


def differences(result: inprocess.Run) -> Ring:
    """d of the first half minus d of the second, as every party sees them."""
    held = result.parties[0].registers["x"]
    return np.asarray(held.d[:5] - held.d[5:])


def test_what_a_reused_position_would_tell(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows_of_data(1)
    honest = run(twice(), "job", 1)
    assert not np.any(differences(honest) == x[:5] - x[5:])
    assert list(book.faults()) == []
    monkeypatch.setattr(prg, "Stream", Stuck)
    np.testing.assert_array_equal(differences(run(twice(), "other", 1)), x[:5] - x[5:])
    assert "one word masked two values" in list(book.faults())


def test_the_books_tell_of_an_attempt_that_repeats(book: Book) -> None:
    """A resumed job with the seeds of the attempt before it."""
    first, second = run(twice(), "job", 1, seed=1), run(twice(), "job", 1, seed=2)
    faults = list(book.faults())
    assert any("expanded 2 times" in fault for fault in faults)
    assert any("opened 2 times" in fault for fault in faults)
    leak = first.parties[0].registers["x"].d - second.parties[0].registers["x"].d
    np.testing.assert_array_equal(leak, rows_of_data(1) - rows_of_data(2))


def test_the_books_tell_of_arrays_that_overlap(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tight(Deal):
        @property
        def drawn(self) -> int:
            return 8

    deals = correlations.deals

    def tight(node: Node) -> tuple[Deal, ...]:
        return tuple(Tight(d.dtype, d.shape, d.bits, d.xor) for d in deals(node))

    layout = correlations.Layout.__init__

    def enough(self: correlations.Layout, block: Block) -> None:
        layout(self, block)
        self.drawn += 1 << 16

    monkeypatch.setattr(correlations, "deals", tight)
    monkeypatch.setattr(correlations.Layout, "__init__", enough)
    run(everything(2), "job", 1)
    assert any("taken twice" in fault for fault in book.faults())


def test_a_dealer_deals_every_position_once() -> None:
    program = epochs(2, 2)
    dealer = Dealer(program, seeds_of("job", 1, 2))
    calls = list(program.positions())
    dealer.deal_call(0, calls[0][2])
    with pytest.raises(AssertionError):
        dealer.deal_call(0, calls[0][2])
    with pytest.raises(AssertionError):
        dealer.deal_call(3, calls[3][2])


def test_material_of_a_round_that_is_skipped_is_destroyed(book: Book) -> None:
    program, seeds = epochs(2, 2), seeds_of("job", 1, 2)
    stocks = inprocess.stock(program, seeds)
    party = Watched(program, 0, seeds[0], stocks[0], inprocess.Seat(inprocess.Meeting(2), 0), None)
    before = len(stocks[0].parts)
    party.skip_round(0)
    party.skip_round(1)
    assert len(stocks[0].parts) <= before - 2
    assert not book.taken
