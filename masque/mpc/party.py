"""The `party` interpreter: shares, a supply of corrections, an exchange.

Each method is one local step of a protocol in docs/protocol.md; the openings are in `open`.
Notation there and here: x secret, a its mask, d = x - a opened, r = -a, c = x + r = d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masque.errors import ProtocolError, Refused
from masque.mpc import comparison, packing, prg, trig
from masque.mpc.bilinear import BILINEAR
from masque.mpc.correlations import opened_bits, truncation, wave, window
from masque.mpc.doors import Exchange, Source, Supply
from masque.mpc.graph import Block, Kind, Node
from masque.mpc.machine import Machine, Values, chosen, linear
from masque.mpc.program import Program, Ref
from masque.mpc.scaling import scale_down
from masque.mpc.types import Array, Bytes, Ring


@dataclass(frozen=True, slots=True, repr=False)
class Masked:
    """d = x - a, opened from bit `low` up; and this party's share of a."""

    d: Ring
    a: Ring
    low: int = 0

    def bits(self, low: int, length: int) -> Ring:
        """Bits low .. low + length - 1 of d."""
        moved = self.above(low)
        return moved if length == 64 else moved & np.uint64((1 << length) - 1)

    def above(self, low: int) -> Ring:
        """d without the bits below `low`."""
        assert low >= self.low, "these bits were not opened"
        return self.d >> np.uint64(low - self.low) if low > self.low else self.d


@dataclass(frozen=True, slots=True, repr=False)
class Flag:
    """beta = b xor m, opened; and this party's share of m."""

    beta: Bytes
    m: Ring


@dataclass(frozen=True, slots=True, repr=False)
class Nodes:
    """Opened bits of masked groups of pairs, with what combining them needs."""

    opened: Bytes
    words: Array
    less3: Bytes


class Party(Machine):
    """Party `index` of a program; `seed` and `supply` are its material, 32 bytes and a stream."""

    def __init__(
        self,
        program: Program,
        index: int,
        seed: bytes,
        supply: Supply,
        exchange: Exchange,
        source: Source,
    ) -> None:
        super().__init__(program)
        self.index, self.first = index, index == 0
        self.opened: dict[str, Ring] = {}
        self.stopped = False
        self.round = 0
        self._stream, self._supply = prg.Stream(seed), supply
        self._exchange, self._source = exchange, source
        self._position = 0
        self._material: dict[int, list[Array]] = {}
        self._allocate()

    def __repr__(self) -> str:
        return f"Party(index={self.index}, round={self.round})"

    def _allocate(self) -> None:
        for name, register in self.program.registers.items():
            empty = np.zeros(register.shape, dtype=np.uint64)
            masked = register.kind is Kind.MASKED
            self.registers[name] = Masked(empty, empty.copy()) if masked else empty

    # -- training rounds -------------------------------------------------------------------------

    def run_round(self, k: int) -> None:
        """Run training round `k`; rounds are run (or skipped) in order, each once."""
        self._next(k)
        for call in self.program.rounds[k].calls():
            self._draw(call.block)
            self.run(call)
            self._material.clear()
            self._position += 1

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

    def output(self, name: str) -> Ring:
        """This party's share of an output."""
        return self._shares(self.registers[self.program.outputs[name].register])

    def _draw(self, block: Block) -> None:
        """Expand this call's material, apply the corrections meant for this party."""
        layout, position = self.layout(block), self._position
        drawn = self._stream.expand(position, layout.drawn)
        size, own_seat = layout.corrected(position, self.index), layout.seat(position, self.index)
        corrections = memoryview(self._supply.corrections(position, size) if size else b"")
        if len(corrections) != size:
            raise ProtocolError(
                f"the dealer sent {len(corrections)} bytes for call {position}, not {size}.",
                hint="Dealer and party must run the same version and the same job.",
                service="dealer",
            )
        for node_id, rows in layout.deals.items():
            arrays = []
            for deal, offset, seat in rows:
                array = np.ndarray(deal.shape, deal.dtype, drawn, offset)
                if deal.bits and seat == own_seat:
                    part, corrections = corrections[: deal.corrected], corrections[deal.corrected :]
                    fix = packing.unpack(part, deal.size, deal.bits).reshape(deal.shape)
                    array = array ^ fix.astype(deal.dtype) if deal.xor else array + fix
                arrays.append(array)
            self._material[node_id] = arrays

    # -- values ----------------------------------------------------------------------------------

    def _shares(self, value: Masked | Ring) -> Ring:
        if not isinstance(value, Masked):
            return value
        assert value.low == 0
        return value.d + value.a if self.first else value.a

    def read_input(self, name: str, rows: slice, node: Node) -> Ring:
        """Share rows from the party's store."""
        share = self._source(name, rows)
        if share.dtype != np.uint64 or share.shape != node.shape:
            raise ProtocolError(
                f"input {name!r}: the store gave {share.dtype} {share.shape}, not {node.shape}.",
                hint="The data set has changed since the job was prepared: submit it again.",
            )
        return share

    def load(self, ref: Ref) -> Masked | Ring:
        """(Rows of) a register; rows chosen by an index array are copies."""
        value: Masked | Ring = self.registers[ref.name]
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

    def store(self, ref: Ref, value: Masked | Ring) -> None:
        """Write (rows of) a register."""
        held = self.registers[ref.name]
        rows = ... if ref.rows is None else ref.rows
        if isinstance(held, Masked):
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

    def _contribution(self, node: Node, values: Values) -> Ring:
        """This party's summand of an opening: uint64 [size], within the bits that are sent."""
        value = values[node.args[0]]
        match node.op:
            case "mask":
                low, high = node.params
                assert isinstance(low, int) and isinstance(high, int)
                moved = (self._shares(value) - self._material[node.id][0]).reshape(-1)
                if low:
                    moved >>= np.uint64(low)
                return moved if high == 64 else moved & np.uint64((1 << (high - low)) - 1)
            case "mask_pairs":
                bits, values[node.id] = comparison.node_inputs(value, first=self.first)
                masks = self._material[node.id][0] & 127
                return (bits ^ masks).astype(np.uint64).reshape(-1)
            case "mask_bit":
                masks = self._material[node.id][0] & 1
                return np.asarray(value ^ masks, dtype=np.uint64).reshape(-1)
        assert node.op == "reveal"
        return np.ascontiguousarray(self._shares(value)).reshape(-1)

    def _opened(self, node: Node, values: Values, total: Ring) -> None:
        material = self._material.pop(node.id, [])
        match node.op:
            case "mask":
                low = node.params[0]
                assert isinstance(low, int)
                values[node.id] = Masked(total, material[0], low)
            case "mask_pairs":
                words = (material[0] & 127).astype(np.uint32) | material[1] << np.uint32(7)
                values[node.id] = Nodes(total.astype(np.uint8), words, values[node.id])
            case "mask_bit":
                values[node.id] = Flag(total.astype(np.uint8), material[1])
            case "reveal":
                values[node.id] = None
                name, effect = node.params
                self._revealed(str(name), str(effect), total)

    def _revealed(self, name: str, effect: str, value: Ring) -> None:
        self.opened[name] = value
        if effect == "stop":
            self.stopped = self.stopped or bool(value.any())
        if effect == "require" and not value.all():
            raise Refused(
                f"{name}: no.",
                hint="The data sets do not belong together; check them and share them again.",
                check=name,
            )

    # -- local steps -----------------------------------------------------------------------------

    def unmask(self, node: Node, values: Values) -> Ring:
        """[x] = [a] + d at party 0."""
        return self._shares(values[node.args[0]])

    def product(self, node: Node, values: Values) -> Ring:
        """[x o y] = d_x o d_y at party 0, + d_x o [b] + [a] o d_y + [a o b]."""
        x, y = values[node.args[0]], values[node.args[1]]
        times, (q,) = BILINEAR[str(node.params[0])].function, self._material.pop(node.id)
        right = y.d + y.a if self.first else y.a
        result = times(x.d, right)
        result += times(x.a, y.d)
        result += q
        return np.asarray(result)

    def flag_times(self, node: Node, values: Values) -> Ring:
        """[b x] = beta x + (1 - 2 beta) [m x], with [m x] = [m] d + [m a]."""
        flag, x = values[node.args[0]], values[node.args[1]]
        (q,) = self._material.pop(node.id)
        product = flag.m * x.d + q
        return np.asarray(np.where(flag.beta != 0, self._shares(x) - product, product))

    def flag_share(self, node: Node, values: Values) -> Ring:
        """[b] = beta + (1 - 2 beta) [m]."""
        flag = values[node.args[0]]
        one = np.uint64(self.first)
        return np.asarray(np.where(flag.beta != 0, one - flag.m, flag.m))

    def truncate(self, node: Node, values: Values) -> Ring:
        """f x / 2^s = F(y) - F(r) + f 2^(B+1-s) m (1 - top) - f 2^(B-1-s), F(v) = f v >> s.

        y = x + 2^(B-1) + r modulo 2^(B+1), as far as it was opened; rounded to nearest.
        """
        shift, width = truncation(node)
        x: Masked = values[node.args[0]]
        factor = values[node.args[1]] if len(node.args) > 1 else None
        scaled_r, m = self._material.pop(node.id)
        length = width + 1 - x.low
        y = x.bits(x.low, length) + np.uint64(1 << (width - 1 - x.low))
        y = (y & np.uint64((1 << length) - 1)) << np.uint64(x.low)
        top = y >> np.uint64(width)
        one = np.uint64(1) if factor is None else factor
        lift = one << np.uint64(width + 1 - shift)
        result = (np.uint64(1) - top) * m * lift - scaled_r
        if self.first:
            offset = one << np.uint64(width - 1 - shift)
            result += scale_down(y, factor, shift, half=True) - offset
        return np.asarray(result)

    def words(self, node: Node, values: Values) -> Array:
        """The dealt products of the bits of r."""
        return self._material.pop(node.id)[0]

    def compare_chunks(self, node: Node, values: Values) -> Bytes:
        """XOR shares of less and equal of every chunk of c - t and r, for every threshold t."""
        x, words = values[node.args[0]], values[node.args[1]]
        flat = np.ascontiguousarray(words).reshape(-1, words.shape[-1])
        c, length = self._public_bits(node, x), window(node)[1]
        pairs = comparison.compare_chunks(c.reshape(-1), flat, length, first=self.first)
        return pairs.reshape(node.shape)

    def _public_bits(self, node: Node, x: Masked) -> Ring:
        """c - t on bits low .. low + length, t in units of 2^low: [thresholds, ...]."""
        thresholds, (low, length) = node.params[0], window(node)
        assert isinstance(thresholds, tuple)
        whole = min(length + 1, 64 - low)
        c = np.ascontiguousarray(x.bits(low, whole))
        if thresholds != (0,):
            t = np.array([t % (1 << 64) for t in thresholds], dtype=np.uint64)
            c = c - t.reshape(-1, *(1,) * c.ndim)
        if whole < 64:
            return c & np.uint64((1 << whole) - 1)
        return np.require(c, requirements="W")  # a broadcast value is read-only

    def sign_bit(self, node: Node, values: Values) -> Bytes:
        """[x < t] = borrow xor top bit of c - t xor top bit of r."""
        pairs, x, words = (values[arg] for arg in node.args)
        bit = pairs[..., 0] & 1 ^ (words[..., -1] >> np.uint16(15)).astype(np.uint8)
        if self.first:
            top = self._public_bits(node, x) >> np.uint64(window(node)[1])
            bit ^= top.astype(np.uint8).reshape(node.shape)
        return np.asarray(bit)

    def equal_bit(self, node: Node, values: Values) -> Bytes:
        """[all chunks equal], after combining."""
        return np.asarray(values[node.args[0]][..., 0] >> 1)

    def pairs_of(self, node: Node, values: Values) -> Bytes:
        """Bits as pairs (never less, equal if the bit is one): to AND many of them at once."""
        return np.asarray(values[node.args[0]] << 1)

    def combine(self, node: Node, values: Values) -> Bytes:
        """Less and equal of groups of four, from the opened bits."""
        nodes: Nodes = values[node.args[0]]
        return comparison.combine(nodes.opened, nodes.words, nodes.less3, first=self.first)

    def xor(self, node: Node, values: Values) -> Bytes:
        """XOR of bits is free."""
        return np.asarray(values[node.args[0]] ^ values[node.args[1]])

    def invert(self, node: Node, values: Values) -> Bytes:
        """Not b: party 0 flips its share."""
        bits = values[node.args[0]]
        return np.asarray(bits ^ 1) if self.first else np.asarray(bits)

    def waves(self, node: Node, values: Values) -> Ring:
        """sum over k of A_k(c) [cos k w r] + B_k(c) [sin k w r], plus the constant at party 0."""
        low, length = window(node)
        fit, public, scale = wave(node)
        x: Masked = values[node.args[0]]
        (dealt,) = self._material.pop(node.id)
        c = np.ascontiguousarray(x.bits(low, length)).reshape(-1)
        flat = np.ascontiguousarray(dealt).reshape(c.size, dealt.shape[-1])
        total = trig.wave_sum(c, length, fit.harmonics_array, *fit.arrays, flat, public)
        if self.first:
            total += np.uint64(fit.constant_at(public + scale) % (1 << 64))
        return total.reshape(node.shape)
