"""Every correlation obeys its law, written down here anew; golden vectors; what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from masque.errors import ProtocolError
from masque.mpc import comparison, inprocess
from masque.mpc.correlations import LAWS, Deal, Layout, deals, truncation, wave, window
from masque.mpc.doors import Buffer
from masque.mpc.fits import FITS
from masque.mpc.graph import Node
from masque.mpc.indexing import key_of
from masque.mpc.party import Party
from masque.mpc.program import Program, TrainingRound
from masque.mpc.types import Array, Ring
from tests.mpc.examples import epochs, everything, rows_of_data
from tests.mpc.harness import PARTIES, Clear, block_of, evaluate, seeds, share_inputs, sources
from tests.mpc.references import exact

WORD = 1 << 64


def nothing(name: str, rows: slice) -> Ring:
    """A store that is not asked."""
    raise AssertionError(name)


class Dealt:
    """The material of every party for one call, and what it sums to."""

    def __init__(self, program: Program, position: int, seed: int = 1) -> None:
        parties = program.parties
        self.block = block_of(program)
        stocks = inprocess.stock(program, seeds(parties, seed))
        meeting = inprocess.Meeting(parties)
        self.material: list[dict[int, list[Array]]] = []
        for i, key in enumerate(seeds(parties, seed)):
            seat = inprocess.Seat(meeting, i)
            party = Party(program, i, key, stocks[i], seat, nothing)
            party._position = position
            party._draw(self.block)
            party._receive()
            self.material.append(party._material)

    def total(self, node: Node, k: int) -> Array:
        """What all shares of array k of a node come to."""
        shares = [material[node.id][k] for material in self.material]
        fold = np.bitwise_xor if deals(node)[k].xor else np.add
        return np.asarray(fold.reduce(np.stack(shares), axis=0))

    def mask(self, node: Node) -> Array:
        """The mask of a MASKED node, or the mask bit of a FLAG, through the moves between."""
        if node.op in ("mask", "mask_bit"):
            return (
                self.total(node, 0) & np.uint64(1) if node.op == "mask_bit" else self.total(node, 0)
            )
        below = self.mask(self.block.nodes[node.args[0]])
        if node.op == "transpose":
            return below.T
        if node.op == "index":
            return np.asarray(below[key_of(node.params)])
        assert node.op in ("times", "reshape"), "the program of this test needs no more"
        return below.reshape(node.shape)

    def arguments(self, node: Node) -> list[Array]:
        """The masks of a node's operands."""
        return [self.mask(self.block.nodes[arg]) for arg in node.args]


def numbers(array: Array) -> list[int]:
    """As Python's numbers, that nothing wraps."""
    return [int(v) for v in np.asarray(array).reshape(-1)]


def low_bits(array: Array, node: Node) -> list[int]:
    """Numbers modulo what the block uses of the node: laws hold in these bits."""
    return [v % (1 << node.bits) for v in numbers(array)]


def law_mask(dealt: Dealt, node: Node) -> None:
    assert len(set(numbers(dealt.total(node, 0)))) == node.size, "masks look uniform"


def law_product(dealt: Dealt, node: Node) -> None:
    expected = exact(node.params, *dealt.arguments(node))
    assert low_bits(dealt.total(node, 0), node) == low_bits(expected, node)


def law_flag_times(dealt: Dealt, node: Node) -> None:
    m, a = dealt.arguments(node)
    expected = np.broadcast_to(m.astype(object) * a.astype(object), node.shape)
    assert low_bits(dealt.total(node, 0), node) == low_bits(expected, node)


def law_truncate(dealt: Dealt, node: Node) -> None:
    shift, width = truncation(node)
    factor = 1
    if len(node.args) > 1:
        (index,) = dealt.block.nodes[node.args[1]].params
        factor = int(dealt.block.constants[int(str(index))])
    rho, m = low_bits(dealt.total(node, 0), node), numbers(dealt.total(node, 1))
    r = [-v % WORD for v in numbers(dealt.mask(dealt.block.nodes[node.args[0]]))]
    assert rho == [(factor * (v % (1 << (width + 1))) >> shift) % (1 << node.bits) for v in r]
    kept = 1 << max(0, node.bits - 1 - width + shift)  # it is multiplied by the rest
    assert [v % kept for v in m] == [(v >> width & 1) % kept for v in r]


def law_flag_truncate(dealt: Dealt, node: Node) -> None:
    shift, width = truncation(node)
    mask, a = dealt.arguments(node)
    bits, kept = numbers(np.broadcast_to(mask, node.shape)), 1 << (node.bits - 1 - width + shift)
    r = [-v % WORD for v in numbers(np.broadcast_to(a, node.shape))]
    for beta in (0, 1):
        rho, m = (numbers(dealt.total(node, k)[beta]) for k in (0, 1))
        b = [bit ^ beta for bit in bits]
        expected = [one * (v % (1 << (width + 1)) >> shift) for one, v in zip(b, r, strict=True)]
        assert [v % (1 << node.bits) for v in rho] == expected
        lifted = [one * (v >> width & 1) for one, v in zip(b, r, strict=True)]
        assert [v % kept for v in m] == [v % kept for v in lifted]


def law_words(dealt: Dealt, node: Node) -> None:
    low, length = window(node)
    (a,) = dealt.arguments(node)
    words = dealt.total(node, 0).reshape(a.size, -1)
    for value, row in zip(numbers(a), words, strict=True):
        r = (-value % WORD) >> low
        bits = (r % (1 << length)) << (4 * len(row) - length)
        for j, word in enumerate(numbers(row)):
            chunk = bits >> (4 * j) & 15
            expected = sum(1 << (s - 1) for s in range(1, 16) if chunk & s == s)
            assert word & 0x7FFF == expected
        assert int(row[-1]) >> 15 == (r >> length & 1 if low + length < 64 else 0)


def law_mask_pairs(dealt: Dealt, node: Node) -> None:
    kind = comparison.combination(*node.params)
    masks, words = numbers(dealt.total(node, 0)), numbers(dealt.total(node, 1))
    for mask, word in zip(masks, words, strict=True):
        for index, subset in enumerate(kind.products):
            assert word >> index & 1 == int(all(mask >> j & 1 for j in subset))


def law_every(dealt: Dealt, node: Node) -> None:
    (size,) = node.params
    assert isinstance(size, int)
    tables = dealt.total(node, 1).reshape(node.size, -1)
    for mask, row in zip(numbers(dealt.total(node, 0)), tables, strict=True):
        table = sum(byte << (8 * j) for j, byte in enumerate(numbers(row)))
        assert table % (1 << (1 << size)) == 1 << (mask % (1 << size))


def law_mask_bit(dealt: Dealt, node: Node) -> None:
    assert low_bits(dealt.total(node, 1), node) == [v & 1 for v in numbers(dealt.total(node, 0))]


def law_waves(dealt: Dealt, node: Node) -> None:
    low, length = window(node)
    fit, _, scale = wave(node)
    (a,) = dealt.arguments(node)
    spare = np.uint64(64 - node.bits)
    shared = (dealt.total(node, 0) << spare).view(np.int64).reshape(a.size, -1)
    waves = (shared >> spare.astype(np.int64)) / 2.0**scale
    phase = np.array([((-v % WORD) >> low) % (1 << length) for v in numbers(a)]) / 2.0**length
    angles = 2 * np.pi * phase[:, None] * np.array(fit.harmonics)
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    assert np.abs(waves - expected).max() < 2.0 ** -(scale - 1)


EQUATIONS = {name[4:]: law for name, law in globals().items() if name.startswith("law_")}


@pytest.mark.parametrize("position", [0, 1, 2, 7])
@pytest.mark.parametrize("parties", PARTIES)
def test_every_correlation_obeys_its_law(parties: int, position: int) -> None:
    program = repeated(everything(parties), position + 1)
    dealt = Dealt(program, position)
    seen = set()
    for node in dealt.block.nodes.values():
        if node.op in EQUATIONS:
            EQUATIONS[node.op](dealt, node)
            seen.add(node.op)
    assert seen == EQUATIONS.keys() == LAWS.keys(), "every law is written here, and exercised"


def repeated(program: Program, count: int) -> Program:
    """The same program, its call made `count` times."""
    (call,) = program.rounds[0].calls()
    rounds = [TrainingRound("only", lambda: [call] * count, count)]
    fields = {k: getattr(program, k) for k in ("registers", "inputs", "outputs")}
    return Program(program.name, program.parties, rounds=rounds, **fields)


def test_a_law_that_is_broken_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each law in turn: one corrected array off by its last bit."""
    for op, law in LAWS.items():
        if op == "mask":
            continue

        def wrong(
            node: Node, args: Sequence[Any], sums: Sequence[Array], law: Any = law
        ) -> tuple[Sequence[Array | None], Any]:
            targets, known = law(node, args, sums)
            return [None if t is None else t ^ t.dtype.type(1) for t in targets], known

        with monkeypatch.context() as patch:
            patch.setitem(LAWS, op, wrong)
            dealt = Dealt(everything(3), 0)
        nodes = [node for node in dealt.block.nodes.values() if node.op == op]
        if op == "waves":  # correct within the last bit; a wrong sign would show
            continue
        for node in nodes:
            with pytest.raises(AssertionError):
                EQUATIONS[op](dealt, node)


def test_corrections_fit_the_deal() -> None:
    for deal in (Deal("<u8", (3, 5), 64), Deal("<u4", (7,), 22, xor=True), Deal("<u1", (9,))):
        assert deal.drawn % 8 == 0
        assert deal.drawn >= deal.size * np.dtype(deal.dtype).itemsize
        assert deal.corrected == -(-deal.size * deal.bits // 8)
    assert Deal("<u8", (0, 5), 64).corrected == 0


def _starts(layout: Layout) -> Iterator[tuple[int, Deal]]:
    for rows in layout.deals.values():
        for deal, offset, _ in rows:
            if deal.size:
                yield offset, deal


def seat_of(layout: Layout, start: int) -> int:
    """The seat of the array that lies at `start`."""
    rows = [row for rows in layout.deals.values() for row in rows]
    return next(seat for deal, offset, seat in rows if offset == start and deal.size)


def test_layouts_do_not_overlap() -> None:
    for parties in PARTIES:
        for program in (everything(parties), epochs(parties)):
            for k in range(2 if len(program.rounds) > 1 else 1):
                layout = Layout(block_of(program, k))
                spans = sorted(
                    (offset, offset + deal.drawn)
                    for rows in layout.deals.values()
                    for deal, offset, _ in rows
                )
                assert all(start % 8 == 0 for start, _ in spans)
                for (_, end), (start, _) in pairwise([*spans, (layout.drawn, 0)]):
                    assert 0 <= start - end < 16
                every = {start: deal for start, deal in _starts(layout)}
                for seat in range(parties):
                    expanded = layout.spans(seat)
                    assert all(start % 16 == 0 for start, _ in expanded)
                    for start, deal in every.items():
                        inside = any(a <= start and start + deal.drawn <= b for a, b in expanded)
                        assert inside == (deal.size == 0 or seat_of(layout, start) != seat)
                for position in range(20):
                    taken = {layout.seat(position, party) for party in range(parties)}
                    assert taken == set(range(parties))


# -- negative ones -------------------------------------------------------------------------------


def lonely(program: Program, index: int, supply: Any, exchange: Any) -> Party:
    shares = share_inputs({"data": rows_of_data(1)}, program.parties, 1)
    own = seeds(program.parties, 1)[index]
    return Party(program, index, own, supply, exchange, sources(shares, program.parties)[index])


def run_all(party: Party) -> None:
    """Every training round."""
    for k in range(len(party.program.rounds)):
        party.run_round(k)


class Odd:
    """An exchange in which one peer sends too much or too little; the others echo."""

    def __init__(self, parties: int, culprit: int, change: int) -> None:
        self.parties, self.culprit, self.change = parties, culprit, change

    def swap(self, payload: bytes) -> list[Buffer]:
        others: list[Buffer] = [payload] * (self.parties - 1)
        size = len(payload) + self.change
        others[self.culprit] = payload[:size] + bytes(max(0, self.change))
        return others


@pytest.mark.parametrize("change", [-1, 1, 8, -10_000])
@pytest.mark.parametrize(("index", "culprit"), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)])
def test_a_peer_that_sends_another_length_is_named(index: int, culprit: int, change: int) -> None:
    program = epochs(3, 1)
    stock = inprocess.stock(program, seeds(3, 1))[index]
    seat = culprit - (culprit > index)
    party = lonely(program, index, stock, Odd(3, seat, change))
    with pytest.raises(ProtocolError, match="a peer opened") as caught:
        run_all(party)
    assert caught.value.where == {"party": culprit}


@pytest.mark.parametrize("change", [-1, 1, -10_000])
def test_a_dealer_that_sends_another_length_is_named(change: int) -> None:
    class Short:
        def corrections(self, position: int, size: int) -> Buffer:
            return bytes(max(0, size + change))

    program = epochs(2, 1)
    party = lonely(program, 0, Short(), Odd(2, 0, 0))
    with pytest.raises(ProtocolError, match="the dealer sent") as caught:
        run_all(party)
    assert caught.value.where == {"service": "dealer"}


def test_rounds_are_run_in_order() -> None:
    program = epochs(2, 2)
    party = lonely(program, 0, inprocess.stock(program, seeds(2, 1))[0], Odd(2, 0, 0))
    with pytest.raises(ProtocolError, match="round 0 is next"):
        party.run_round(1)
    party.run_round(0)
    with pytest.raises(ProtocolError, match="round 1 is next"):
        party.run_round(0)


def test_a_store_that_changed_is_refused() -> None:
    program = epochs(2, 2)
    stock = inprocess.stock(program, seeds(2, 1))[0]

    def fewer(name: str, rows: slice) -> Ring:
        return np.zeros((9, 4), dtype=np.uint64)

    party = Party(program, 0, seeds(2, 1)[0], stock, Odd(2, 0, 0), fewer)
    with pytest.raises(ProtocolError, match="has changed"):
        party.run_round(0)


def test_no_share_seed_or_mask_is_shown() -> None:
    program = epochs(2, 2)
    party = lonely(program, 0, inprocess.stock(program, seeds(2, 1))[0], Odd(2, 0, 0))
    party.run_round(0)
    held = party.registers["x"]
    shown = repr(party) + repr(held) + str(party)
    assert "array" not in shown
    assert seeds(2, 1)[0].hex() not in shown
    assert all(str(int(v)) not in shown for v in held.a.reshape(-1))


def test_fits_are_part_of_a_program() -> None:
    nodes = block_of(everything(2)).nodes.values()
    waves = [node for node in nodes if node.op == "waves"]
    assert all(node.params[1] == FITS[str(node.params[0])].digest.hex() for node in waves)
    assert waves


def test_digests_tell_blocks_apart() -> None:
    programs = [everything(2), everything(3), everything(2, (6, 4)), epochs(2), epochs(2, 3)]
    assert len({program.digest for program in programs}) == len(programs)
    assert everything(2).digest == everything(2).digest
    blocks = [block_of(program) for program in programs]
    assert blocks[0].digest != blocks[1].digest


def test_what_the_dealer_sends_is_waited_for_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Factors are opened before: meanwhile the dealer may be at their product."""
    asked: list[int] = []
    swap, corrections = inprocess.Seat.swap, inprocess.Stock.corrections
    swapped: dict[int, int] = {}

    def counting(self: inprocess.Seat, payload: bytes) -> list[Buffer]:
        swapped[threading.get_ident()] = swapped.get(threading.get_ident(), 0) + 1
        return swap(self, payload)

    def late(self: inprocess.Stock, position: int, size: int) -> Buffer:
        asked.append(swapped.get(threading.get_ident(), 0))
        return corrections(self, position, size)

    monkeypatch.setattr(inprocess.Seat, "swap", counting)
    monkeypatch.setattr(inprocess.Stock, "corrections", late)
    values = np.arange(12, dtype=np.int64)
    factors = [Clear(values.reshape(shape), 4, 1.0) for shape in ((3, 4), (4, 3))]
    evaluate(lambda x, y: x @ y, factors, 2)
    assert asked == [1]
