"""The local steps of a party: what it computes on shares between two openings.

Each method is one local step of a protocol in docs/protocol.md; openings are in
`masque.mpc.party`. Notation there and here: x secret, a its mask, d = x - a opened, r = -a,
c = x + r = d.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from masque.mpc import comparison, trig
from masque.mpc import truncation as truncated
from masque.mpc.bilinear import multiply, multiply_add
from masque.mpc.correlations import combination, cut, truncation, wave, window
from masque.mpc.graph import Node
from masque.mpc.machine import Machine, Values
from masque.mpc.program import Program
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
    masks: Bytes
    products: Array
    top: Bytes


class Steps(Machine):
    """The local operations; `first` is the party that adds public constants."""

    def __init__(self, program: Program, *, first: bool) -> None:
        super().__init__(program)
        self.first = first
        self._material: dict[int, list[Array]] = {}

    @abstractmethod
    def _dealt(self, node: Node) -> list[Array]:
        """This party's shares of what is dealt for a node; they are handed out once."""

    def _shares(self, value: Masked | Ring) -> Ring:
        if not isinstance(value, Masked):
            return value
        assert value.low == 0
        return value.d + value.a if self.first else value.a

    def unmask(self, node: Node, values: Values) -> Ring:
        """[x] = [a] + d at party 0."""
        return self._shares(values[node.args[0]])

    def product(self, node: Node, values: Values) -> Ring:
        """[x o y] = d_x o d_y at party 0, + d_x o [b] + [a] o d_y + [a o b].

        What is dealt comes last: the dealer may still be at it.
        """
        x, y = values[node.args[0]], values[node.args[1]]
        right = y.d + y.a if self.first else y.a
        result = multiply(node.params, x.d, right)
        result = multiply_add(node.params, x.a, y.d, result)
        (q,) = self._dealt(node)
        return np.add(result, q, out=result)

    def flag_times(self, node: Node, values: Values) -> Ring:
        """[b x] = beta x + (1 - 2 beta) [m x], with [m x] = [m] d + [m a]."""
        flag, x = values[node.args[0]], values[node.args[1]]
        (q,) = self._dealt(node)
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
        dealt = self._dealt(node)
        factor = values[node.args[1]] if len(node.args) > 1 else None
        window = (x.low, shift, width)
        return truncated.share(x.d, (dealt[0], dealt[1]), window, factor, first=self.first)

    def flag_truncate(self, node: Node, values: Values) -> Ring:
        """b x / 2^s = b (F(y) - 2^(B-1-s)) - b F(r) + 2^(B+1-s) b m (1 - top), dealt for both b."""
        flag, x = values[node.args[0]], values[node.args[1]]
        scaled_r, m = self._dealt(node)
        window, bit = (x.low, *truncation(node)), (flag.beta, flag.m)
        return truncated.share_under_bit(x.d, (scaled_r, m), bit, window, first=self.first)

    def gaps(self, node: Node, values: Values) -> Masked:
        """Differences of c cut to its upper bits: to be compared, nobody has shares of them."""
        x: Masked = values[node.args[0]]
        return Masked(comparison.gaps(x.above(cut(node))), np.empty(0, dtype=np.uint64))

    def words(self, node: Node, values: Values) -> Array:
        """The dealt products of the bits of r."""
        return self._dealt(node)[0]

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

    def equal_bits(self, node: Node, values: Values) -> Bytes:
        """[equal] of every chunk."""
        return np.asarray(values[node.args[0]] >> 1)

    def combine(self, node: Node, values: Values) -> Bytes:
        """Less and equal of groups, from the opened bits."""
        nodes: Nodes = values[node.args[0]]
        parts = (nodes.opened, nodes.masks, nodes.products, nodes.top)
        return comparison.combine(*parts, combination(node), first=self.first)

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
        (dealt,) = self._dealt(node)
        c = np.ascontiguousarray(x.bits(low, length)).reshape(-1)
        flat = np.ascontiguousarray(dealt).reshape(c.size, dealt.shape[-1])
        total = trig.wave_sum(c, length, fit.harmonics_array, *fit.arrays, flat, public)
        if self.first:
            total += np.uint64(fit.constant_at(public + scale) % (1 << 64))
        return total.reshape(node.shape)
