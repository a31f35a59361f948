"""The `party` interpreter: shares, a supply of corrections, an exchange.

The local steps are in `masque.mpc.steps`; here are material, registers and openings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod

import numpy as np

from masque.errors import ProtocolError, Refused
from masque.mpc import comparison, conjunction, packing, prg
from masque.mpc.correlations import Deal, combination, group_size, noise_of, opened_bits
from masque.mpc.doors import Exchange, Source, Spool, Supply, in_memory
from masque.mpc.gaussian import Draw, discrete_gaussian
from masque.mpc.graph import Block, Kind, Node
from masque.mpc.machine import Values, chosen, linear
from masque.mpc.program import Program, Ref
from masque.mpc.regenerated import LARGE, Held, Regenerated
from masque.mpc.steps import Flag, Masked, Nodes, Steps
from masque.mpc.types import Array, Ring


def _received(part: memoryview, deal: Deal) -> Array:
    """This party's share of what is dealt, as the dealer sent it: the bits that matter."""
    if deal.bits == 8 * np.dtype(deal.dtype).itemsize:
        share = np.frombuffer(part, deal.dtype).copy()
    else:
        share = packing.unpack(part, deal.size, deal.bits).astype(deal.dtype, copy=False)
    return share.reshape(deal.shape)


_ABSENT: Array = np.empty(0, dtype=np.uint8)


class Party(Steps):
    """Party `index` of a program; `seed` and `supply` are its material, 32 bytes and a stream.

    `draw`: its own randomness, which the dealer does not know either, for noise.
    """

    def __init__(
        self,
        program: Program,
        index: int,
        seed: bytes,
        supply: Supply,
        exchange: Exchange,
        source: Source,
        spool: Spool = in_memory,
        draw: Draw = os.urandom,
    ) -> None:
        super().__init__(program, first=index == 0)
        self.index = index
        self.opened: dict[str, Ring] = {}
        self.stopped = False
        self.round = 0
        self._written: set[str] = set()
        self._stream, self._supply = prg.Stream(seed), supply
        self._exchange, self._source, self._draws = exchange, source, draw
        self._position = 0
        self._due: dict[int, list[tuple[int, Deal]]] = {}  # by node: what the dealer sends of it
        self._size = 0  # bytes of that
        self._allocate(spool)

    def __repr__(self) -> str:
        return f"Party(index={self.index}, round={self.round})"

    def _allocate(self, spool: Spool) -> None:
        for name, register in self.program.registers.items():
            masked, shape = register.kind is Kind.MASKED, register.shape
            if masked and 8 * prod(shape) >= LARGE:
                self.registers[name] = Held(spool(shape), Regenerated(shape, [self._stream]))
                continue
            empty = np.zeros(shape, dtype=np.uint64)
            self.registers[name] = Masked(empty, empty.copy()) if masked else empty

    # -- training rounds -------------------------------------------------------------------------

    def run_round(self, k: int) -> None:
        """Run training round `k`; rounds are run (or skipped) in order, each once."""
        self._next(k)
        prepares = self.program.rounds[k].prepares
        for call in self.program.rounds[k].calls():
            self._draw(call.block)
            self.run(call)
            self._receive()
            self._material.clear()
            self._position += 1
            if not prepares:
                self._written.update(ref.name for ref in call.outputs.values())

    def skip_round(self, k: int) -> None:
        """Pass over round `k`: its material is taken from the supply and destroyed unused."""
        self._next(k)
        for call in self.program.rounds[k].calls():
            size = self.layout(call.block).corrected(self._position, self.index)
            if size:
                self._supply.corrections(self._position, size)
            self._position += 1

    def _next(self, k: int) -> None:
        if k != self.round:
            raise ProtocolError(
                f"training round {k} was asked for, but round {self.round} is next.",
                hint="Every training round runs once, in order.",
            )
        self.round += 1

    def state(self) -> dict[str, Ring]:
        """This party's shares of the registers that make a checkpoint (`masque.mpc.resume`)."""
        return {name: self._shares(self.load(Ref(name))) for name in sorted(self._written)}

    def output(self, name: str) -> Ring:
        """This party's share of an output."""
        return self._shares(self.registers[self.program.outputs[name].register])

    # -- material --------------------------------------------------------------------------------

    def _draw(self, block: Block) -> None:
        """Expand this call's material; what the dealer sends for this party's seat comes later."""
        layout, position = self.layout(block), self._position
        own_seat = layout.seat(position, self.index)
        drawn = self._stream.expand_spans(position, layout.drawn, layout.spans(own_seat))
        self._size = layout.corrected(position, self.index)
        for node_id, rows in layout.deals.items():
            arrays = []
            for deal, offset, seat in rows:
                sent = seat == own_seat and deal.size
                arrays.append(
                    _ABSENT if sent else np.ndarray(deal.shape, deal.dtype, drawn, offset)
                )
                if sent:
                    self._due.setdefault(node_id, []).append((len(arrays) - 1, deal))
            self._material[node_id] = arrays

    def _receive(self) -> None:
        """Wait for what the dealer sends for this call, unless it is here; put it in its places."""
        if not self._due:
            return
        position, size = self._position, self._size
        corrections = memoryview(self._supply.corrections(position, size))
        if len(corrections) != size:
            raise ProtocolError(
                f"the dealer sent {len(corrections)} bytes for call {position}, not {size}.",
                hint="Dealer and party must run the same version and the same job.",
                service="dealer",
            )
        for node_id, deals in self._due.items():
            for index, deal in deals:
                part, corrections = corrections[: deal.corrected], corrections[deal.corrected :]
                self._material[node_id][index] = _received(part, deal)
        self._due.clear()

    def _dealt(self, node: Node) -> list[Array]:
        if node.id in self._due:
            self._receive()
        return self._material.pop(node.id, [])

    # -- values ----------------------------------------------------------------------------------

    def read_input(self, name: str, rows: slice, node: Node) -> Ring:
        """Share rows from the party's store."""
        share = self._source(name, rows)
        if share.dtype != np.uint64 or share.shape != node.shape:
            raise ProtocolError(
                f"input {name!r}: the store gave {share.dtype} {share.shape}, not {node.shape}.",
                hint="The data set has changed since the job was prepared: submit it again.",
            )
        return share

    def noise(self, node: Node, values: Values) -> Ring:
        """This party's own noise, fresh at every run; no other party's is part of it."""
        return discrete_gaussian(noise_of(node), node.shape, self._draws)

    def load(self, ref: Ref) -> Masked | Ring:
        """(Rows of) a register; rows chosen by an index array are copies."""
        value: Masked | Held | Ring = self.registers[ref.name]
        if isinstance(value, Held):
            rows = slice(None) if ref.rows is None else ref.rows
            return Masked(value.d[rows], value.a[rows])
        if ref.rows is None:
            return value
        if isinstance(value, Masked):
            return Masked(chosen(value.d, ref.rows), chosen(value.a, ref.rows))
        return chosen(value, ref.rows)

    def copied(self, value: Masked | Ring) -> Masked | Ring:
        """The same value in memory of its own."""
        if isinstance(value, Masked):
            return Masked(value.d.copy(), value.a.copy(), value.low)
        return value.copy()

    def store(self, ref: Ref, value: Masked | Ring, drawn_at: int | None = None) -> None:
        """Write (rows of) a register."""
        held = self.registers[ref.name]
        rows = ... if ref.rows is None else ref.rows
        if isinstance(held, Held):
            assert isinstance(value, Masked) and value.low == 0
            held.d[slice(None) if ref.rows is None else ref.rows] = value.d
            held.a.put(ref.rows, value.a, self._position, drawn_at)
        elif isinstance(held, Masked):
            assert isinstance(value, Masked) and value.low == 0
            held.d[rows], held.a[rows] = value.d, value.a
        else:
            held[rows] = self._shares(value)

    def linear(
        self, node: Node, secrets: Sequence[Masked | Ring], public: Sequence[Array]
    ) -> Masked | Ring:
        """On masked values: on d, which carries public addends, and on the share of a."""
        if node.kind is Kind.MASKED:
            masked = [s for s in secrets if isinstance(s, Masked)]
            low = max(s.low for s in masked)  # differs only where values are moved together
            d = linear(node, [s.above(low) for s in masked], public, constant=True)
            a = linear(node, [s.a for s in masked], public, constant=False)
            return Masked(d, a, low)
        shares = [self._shares(s) for s in secrets]
        return linear(node, shares, public, constant=self.first and node.kind is Kind.SHARE)

    # -- openings --------------------------------------------------------------------------------

    def open(self, nodes: Sequence[Node], values: Values, block: Block) -> None:
        """Send what each node contributes, packed, in one message; combine what comes back."""
        own = [self._contribution(node, values) for node in nodes]
        widths = [opened_bits(block, node) for node in nodes]
        parts = [
            packing.pack(c, 0, w).tobytes() if c.size else b""
            for c, w in zip(own, widths, strict=True)
        ]
        payload = parts[0] if len(parts) == 1 else b"".join(parts)
        theirs = [memoryview(other) for other in self._exchange.swap(payload)]
        for peer, other in enumerate(theirs):
            if len(other) != len(payload):
                raise ProtocolError(
                    f"a peer opened {len(other)} bytes where {len(payload)} were due.",
                    hint="All parties must run the same version and the same job.",
                    party=peer + (peer >= self.index),
                )
        offset = 0
        for node, mine, width, part in zip(nodes, own, widths, parts, strict=True):
            pieces = [other[offset : offset + len(part)] for other in theirs]
            offset += len(part)
            fold = packing.accumulate if node.op in ("mask", "reveal") else packing.fold_xor
            total = fold(pieces, node.size, width, mine) if node.size else mine
            self._opened(node, values, total.reshape(node.shape))

    def _contribution(self, node: Node, values: Values) -> Array:
        """This party's summand of an opening, [size], within the bits that are sent."""
        value = values[node.args[0]]
        match node.op:
            case "mask":
                low, high = node.params
                assert isinstance(low, int) and isinstance(high, int)
                a = self._material[node.id][0]
                return packing.difference(self._shares(value), a, low, high - low)
            case "mask_pairs":
                kind = combination(node)
                bits, values[node.id] = comparison.node_inputs(value, kind, first=self.first)
                masks = self._material[node.id][0] & ((1 << kind.bits) - 1)
                return np.asarray(bits ^ masks).reshape(-1)
            case "every":
                size = group_size(node)
                masks = self._material[node.id][0] & ((1 << size) - 1)
                groups = conjunction.group_bits(value, size, first=self.first)
                return np.asarray(groups ^ masks).reshape(-1)
            case "mask_bit":
                masks = self._material[node.id][0] & 1
                return np.asarray(value ^ masks).reshape(-1)
        assert node.op == "reveal"
        return np.array(self._shares(value), order="C").reshape(-1)

    def _opened(self, node: Node, values: Values, total: Array) -> None:
        material = self._dealt(node)
        match node.op:
            case "mask":
                low = node.params[0]
                assert isinstance(low, int)
                values[node.id] = Masked(total, material[0], low)
            case "mask_pairs":
                values[node.id] = Nodes(total, material[0], material[1], values[node.id])
            case "every":
                values[node.id] = conjunction.all_ones(total, material[1], group_size(node))
            case "mask_bit":
                values[node.id] = Flag(total, material[1])
            case "reveal":
                values[node.id] = None
                self._revealed(node, total)

    def _revealed(self, node: Node, value: Ring) -> None:
        name, effect, wrong, cure = (str(part) for part in node.params)
        self.opened[name] = value
        if effect == "stop":
            self.stopped = self.stopped or bool(value.any())
        if effect == "require" and not value.all():
            raise Refused(wrong or f"{name}: no.", hint=cure, check=name)
