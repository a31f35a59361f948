"""The `dealer` interpreter: runs the program on masks, from shapes alone, and emits corrections.

The dealer knows every party's seed, hence every mask; it sees no share, no opening and nothing
that depends on data. What it holds for a value: the mask of a MASKED one, the mask bit of a FLAG,
and None for everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from masque.mpc import comparison, packing, prg
from masque.mpc.correlations import LAWS, Deal, cut
from masque.mpc.graph import Block, Kind, Node
from masque.mpc.machine import Action, Machine, Value, Values, chosen, linear
from masque.mpc.program import Call, Program, Ref
from masque.mpc.regenerated import LARGE, Regenerated
from masque.mpc.types import Array, Bytes, Ring


class Dealer(Machine):
    """Deals the material of a program to parties with these 32-byte `seeds`, one a party."""

    def __init__(self, program: Program, seeds: Sequence[bytes]) -> None:
        super().__init__(program)
        assert len(seeds) == program.parties
        self._streams = [prg.Stream(seed) for seed in seeds]
        self._drawn: list[Bytes] = []  # by seat
        self._position = 0
        self._skippable = False
        self._unsure: set[str] = set()
        self._parts: list[list[Bytes]] = []
        for name, register in program.registers.items():
            if register.kind is Kind.MASKED:
                large = 8 * prod(register.shape) >= LARGE
                self.registers[name] = (
                    Regenerated(register.shape, self._streams)
                    if large
                    else np.zeros(register.shape, dtype=np.uint64)
                )

    def __repr__(self) -> str:
        return f"Dealer(parties={self.program.parties}, position={self._position})"

    def deal(self) -> Iterator[tuple[int, list[bytes]]]:
        """(position, corrections of each party) for every call of the job, in order.

        b"" where a party has nothing to receive. Whether a job stops early changes nothing here.
        """
        for position, k, call in self.program.positions():
            self._skippable = self.program.rounds[k].skippable
            yield position, self.deal_call(position, call)

    def deal_call(self, position: int, call: Call) -> list[bytes]:
        """The corrections of one call; calls are dealt in order, since they share registers."""
        assert position == self._position
        layout = self.layout(call.block)
        seats = [layout.seat(position, party) for party in range(self.program.parties)]
        drawn = {
            seat: stream.expand_spans(position, layout.drawn, layout.spans(seat))
            for seat, stream in zip(seats, self._streams, strict=True)
        }
        self._drawn = [drawn[seat] for seat in range(self.program.parties)]
        self._parts = [[] for _ in self._streams]
        self.run(call)
        self._position += 1
        self._drawn.clear()
        return [b"".join(part.data for part in self._parts[seat]) for seat in seats]

    def _sum(self, deal: Deal, offset: int, seat: int) -> Array:
        """The sum (or XOR) of what is drawn for one array, in place of one of the shares.

        By all parties; of a corrected array by all but the one at its seat.
        """
        fold = np.bitwise_xor if deal.xor else np.add
        drawn = [one for index, one in enumerate(self._drawn) if index != seat]
        words = [np.ndarray((deal.drawn // 8,), np.uint64, one, offset) for one in drawn]
        for other in words[1:]:
            fold(words[0], other, out=words[0])
        return np.ndarray(deal.shape, deal.dtype, drawn[0], offset)

    def _deal_node(self, node: Node, values: Values, block: Block) -> Value:
        rows = self.layout(block).deals[node.id]
        sums = [self._sum(*row) for row in rows]
        args = [values.get(arg) for arg in node.args]
        targets, known = LAWS[node.op](node, args, sums)
        for (deal, _, seat), total, target in zip(rows, sums, targets, strict=True):
            if target is not None and deal.size:
                difference = np.bitwise_xor if deal.xor else np.subtract
                difference(target, total, out=total)
                self._parts[seat].append(_packed(total, deal.bits))
        return known

    def action(self, node: Node, block: Block) -> Action | None:
        """Deal what the node needs; follow masks and public arrays; nothing else is known here."""
        if node.op in LAWS:
            return lambda values, arguments: self._deal_node(node, values, block)
        if node.kind in (Kind.PUBLIC, Kind.MASKED):
            return super().action(node, block)
        return None

    def gaps(self, node: Node, values: Values) -> Ring:
        """Differences of r cut to its upper bits, as masks."""
        r = np.negative(values[node.args[0]]) >> np.uint64(cut(node))
        return np.negative(comparison.gaps(r))

    def open(self, nodes: Sequence[Node], values: Values, block: Block) -> None:
        """Nothing is opened here; what is opened is masked by what is dealt here."""
        for node in nodes:
            if node.op in LAWS:
                values[node.id] = self._deal_node(node, values, block)

    def linear(self, node: Node, secrets: Sequence[Value], public: Sequence[Array]) -> Value:
        """Masks follow their values through linear functions; public addends do not touch them."""
        return linear(node, secrets, public, constant=False)

    def read_input(self, name: str, rows: slice, node: Node) -> None:
        """The dealer has no data."""

    def load(self, ref: Ref) -> Value:
        """The mask in (rows of) a register.

        Parties that stopped early hold an older one than the dealer, who deals all the same: a
        program must not use masks beyond the rounds that may be skipped with them.
        """
        assert self._skippable or ref.name not in self._unsure, f"whose mask has {ref.name!r}?"
        mask = self.registers.get(ref.name)
        if isinstance(mask, Regenerated):
            return mask[slice(None) if ref.rows is None else ref.rows]
        return mask if mask is None or ref.rows is None else chosen(mask, ref.rows)

    def store(self, ref: Ref, value: Value, drawn_at: int | None = None) -> None:
        """Keep the mask of (rows of) a MASKED register."""
        mask = self.registers.get(ref.name)
        if mask is not None:
            if self._skippable:
                self._unsure.add(ref.name)
            elif ref.rows is None:
                self._unsure.discard(ref.name)
            if isinstance(mask, Regenerated):
                mask.put(ref.rows, value, self._position, drawn_at)
            else:
                mask[... if ref.rows is None else ref.rows] = value


def _packed(values: Array, bits: int) -> Bytes:
    """The low `bits` of every value."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if bits == 8 * flat.itemsize:
        return flat.view(np.uint8)
    return packing.pack(flat.astype(np.uint64, copy=False), 0, bits)
