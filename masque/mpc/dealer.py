"""The `dealer` interpreter: runs the program on masks, from shapes alone, and emits corrections.

The dealer knows every party's seed, hence every mask; it sees no share, no opening and nothing
that depends on data. What it holds for a value: the mask of a MASKED one, the mask bit of a FLAG,
and None for everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from masque.mpc import packing, prg
from masque.mpc.correlations import LAWS, Deal
from masque.mpc.graph import Block, Kind, Node
from masque.mpc.machine import Action, Machine, Value, Values, chosen, linear
from masque.mpc.program import Call, Program, Ref
from masque.mpc.types import Array, Bytes, Ring


class Dealer(Machine):
    """Deals the material of a program to parties with these 32-byte `seeds`, one a party."""

    def __init__(self, program: Program, seeds: Sequence[bytes]) -> None:
        super().__init__(program)
        assert len(seeds) == program.parties
        self._streams = [prg.Stream(seed) for seed in seeds]
        self._drawn: list[Bytes] = []
        self._sums: dict[bool, Ring] = {}
        self._position = 0
        self._skippable = False
        self._unsure: set[str] = set()
        self._parts: list[list[bytes]] = []
        for name, register in program.registers.items():
            if register.kind is Kind.MASKED:
                self.registers[name] = np.zeros(register.shape, dtype=np.uint64)

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
        drawn = self.layout(call.block).drawn
        self._drawn = [stream.expand(position, drawn) for stream in self._streams]
        self._sums.clear()
        self._parts = [[] for _ in self._streams]
        self.run(call)
        self._position += 1
        self._drawn.clear()
        self._sums.clear()
        seats = [b"".join(parts) for parts in self._parts]
        layout = self.layout(call.block)
        return [seats[layout.seat(position, party)] for party in range(self.program.parties)]

    def _sum(self, deal: Deal, offset: int) -> Array:
        """The sum (or XOR) of what all parties draw for one array."""
        if deal.xor not in self._sums:
            fold = np.bitwise_xor if deal.xor else np.add
            words = [drawn.view(np.uint64) for drawn in self._drawn]
            total = fold(words[0], words[1])
            for word in words[2:]:
                fold(total, word, out=total)
            self._sums[deal.xor] = total
        return np.ndarray(deal.shape, deal.dtype, self._sums[deal.xor], offset)

    def _deal_node(self, node: Node, values: Values, block: Block) -> Value:
        layout = self.layout(block)
        rows = layout.deals[node.id]
        sums = [self._sum(deal, offset) for deal, offset, _ in rows]
        args = [values.get(arg) for arg in node.args]
        targets, known = LAWS[node.op](node, args, sums)
        for (deal, _, seat), total, target in zip(rows, sums, targets, strict=True):
            if target is not None and deal.size:
                fix = target ^ total if deal.xor else target - total
                packed = packing.pack(_words(fix, deal.bits), 0, deal.bits)
                self._parts[seat].append(packed.tobytes())
        return known

    def action(self, node: Node, block: Block) -> Action | None:
        """Deal what the node needs; follow masks and public arrays; nothing else is known here."""
        if node.op in LAWS:
            return lambda values, arguments: self._deal_node(node, values, block)
        if node.kind in (Kind.PUBLIC, Kind.MASKED):
            return super().action(node, block)
        return None

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
        return mask if mask is None or ref.rows is None else chosen(mask, ref.rows)

    def store(self, ref: Ref, value: Value) -> None:
        """Keep the mask of (rows of) a MASKED register."""
        mask = self.registers.get(ref.name)
        if mask is not None:
            if self._skippable:
                self._unsure.add(ref.name)
            elif ref.rows is None:
                self._unsure.discard(ref.name)
            mask[... if ref.rows is None else ref.rows] = value


def _words(values: Array, bits: int) -> Ring:
    words = values.astype(np.uint64, copy=False).reshape(-1)
    return words if bits == 64 else words & np.uint64((1 << bits) - 1)
