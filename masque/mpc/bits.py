"""Secret bits and comparison (docs/protocol.md, protocol 5).

Bits are shared by XOR; `value` and `times` bring them to the ring with one opening of one bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from typing import NoReturn

import numpy as np

from masque.errors import RangeError
from masque.mpc import comparison
from masque.mpc.graph import Graph, Kind
from masque.mpc.secret import SLACK, Secret, indexed
from masque.mpc.types import Shape


class Bit:
    """An array of secret bits, shared by XOR; `value` and `times` bring it to the ring."""

    def __init__(self, graph: Graph, node: int, shape: Shape) -> None:
        self.graph, self.node, self.shape = graph, node, shape
        self._flag: int | None = None

    def __repr__(self) -> str:
        return f"Bit(shape={self.shape})"

    def __bool__(self) -> NoReturn:
        raise TypeError("a secret Bit has no value here: use functions.where")

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("a secret Bit has no value here: use ^ and ~")

    __hash__ = object.__hash__

    def __iter__(self) -> NoReturn:
        raise TypeError("secret bits cannot be looked at one by one: use functions.where")

    def flag(self) -> int:
        """The node of beta = b xor m, opened."""
        if self._flag is None:
            self._flag = self.graph.add("mask_bit", (self.node,), Kind.FLAG, self.shape)
        return self._flag

    def __invert__(self) -> Bit:
        return Bit(
            self.graph, self.graph.add("invert", (self.node,), Kind.BITS, self.shape), self.shape
        )

    def __xor__(self, other: Bit) -> Bit:
        assert self.shape == other.shape
        args = (self.node, other.node)
        return Bit(self.graph, self.graph.add("xor", args, Kind.BITS, self.shape), self.shape)

    def value(self) -> Secret:
        """The bit as the number 0 or 1, scale 0 (one opening of one bit)."""
        node = self.graph.add("flag_share", (self.flag(),), Kind.SHARE, self.shape)
        return Secret(self.graph, self.shape, 0, 1.0, share=node)

    def times(self, x: Secret) -> Secret:
        """b x: x where the bit is one, 0 elsewhere; scale of x."""
        shape = np.broadcast_shapes(self.shape, x.shape)
        args = (self.flag(), x.masked())
        node = self.graph.add("flag_times", args, Kind.SHARE, shape)
        return Secret(self.graph, shape, x.scale, x.bound, share=node)

    def __getitem__(self, index: object) -> Bit:
        """As of a Secret."""
        shape, params = indexed(self.shape, index)
        return Bit(
            self.graph, self.graph.add("index", (self.node,), Kind.BITS, shape, params), shape
        )

    def reshape(self, *shape: int) -> Bit:
        """The same bits in another shape."""
        example = np.empty(self.shape, dtype=np.bool_).reshape(shape).shape
        node = self.graph.add("reshape", (self.node,), Kind.BITS, example, (example,))
        return Bit(self.graph, node, example)


def join_bits(first: Bit, second: Bit) -> Bit:
    """Bits side by side, along the last axis."""
    shape = (*first.shape[:-1], first.shape[-1] + second.shape[-1])
    args, axis = (first.node, second.node), (len(shape) - 1,)
    return Bit(first.graph, first.graph.add("concat", args, Kind.BITS, shape, axis), shape)


# -- comparison (protocol 5) -------------------------------------------------------------------


def _combined(graph: Graph, pairs: int) -> int:
    """Combine pairs four at a time until one is left: an opening a level."""
    while (count := graph.nodes[pairs].shape[-1]) > 1:
        shape = (*graph.nodes[pairs].shape[:-1], -(-count // comparison.ARITY))
        masked = graph.add("mask_pairs", (pairs,), Kind.NODES, shape)
        pairs = graph.add("combine", (masked,), Kind.PAIRS, shape)
    return pairs


def _width(x: Secret, threshold: int, low: int) -> int:
    """Bits of x - t above `low`, sign excluded."""
    if x.bound == inf:
        return 63
    reach = ceil(x.bound * SLACK * 2.0 ** (x.scale - low)) + abs(threshold) + x.graph.parties
    return max(1, reach.bit_length())


def _pairs(
    x: Secret, thresholds: tuple[int, ...], low: int, length: int, *, sign: bool
) -> tuple[int, int, int]:
    high = low + length + sign
    if high > 64:
        raise RangeError(
            f"comparing values up to {x.bound:.6g} at {x.scale} fraction bits with "
            f"{max(thresholds, key=abs) * 2.0 ** (low - x.scale):.6g} takes {high} bits; "
            "the ring has 64.",
            hint="Use tighter ranges, a nearer threshold, or a smaller scale.",
        )
    key = (low, length)
    masked = x.masked(low, high)
    chunks = comparison.chunks_of(length)
    if key not in x.forms.words:
        node = x.graph.add("words", (masked,), Kind.WORDS, (*x.shape, chunks), key)
        x.forms.words[key] = node
    words, params = x.forms.words[key], (thresholds, *key)
    shape = (*_leading(thresholds), *x.shape, chunks)
    pairs = x.graph.add("compare_chunks", (masked, words), Kind.PAIRS, shape, params)
    return _combined(x.graph, pairs), masked, words


def _leading(thresholds: tuple[int, ...]) -> Shape:
    """Several thresholds make a leading axis, one makes none."""
    return (len(thresholds),) if len(thresholds) > 1 else ()


def less(x: Secret, threshold: float = 0.0, *, resolution: int | None = None) -> Bit:
    """[x < threshold] for a public threshold, exact; |x| <= x.bound as always.

    `resolution`: look only at bits worth 2^-resolution and more: cheaper, and the effective
    threshold is then up to (carries) * 2^-resolution lower than the given one, a multiple of
    that; the carries are 1, or n if no other use of x opens more of its low bits.
    Openings: 1 of x (shared with other uses), 1 or 2 of pairs.
    """
    return less_each(x, [threshold], resolution=resolution)


def less_each(x: Secret, thresholds: Sequence[float], *, resolution: int | None = None) -> Bit:
    """`less` for several thresholds along a new first axis, on the same opening and material.

    One threshold makes no axis.
    """
    assert x.bound != inf, "whole ring elements have no order"
    low = 0 if resolution is None else max(0, x.scale - resolution)
    # x < t for integers x and real t is x < ceil(t)
    units = tuple(ceil(t * 2.0 ** (x.scale - low)) for t in thresholds)
    length = _width(x, max(units, key=abs), low)
    pairs, masked, words = _pairs(x, units, low, length, sign=True)
    args, params = (pairs, masked, words), (units, low, length)
    shape = (*_leading(units), *x.shape)
    return Bit(x.graph, x.graph.add("sign_bit", args, Kind.BITS, shape, params), shape)


def equals(x: Secret, value: float = 0.0) -> Bit:
    """[x == value] exactly, `value` a public number of x's scale."""
    t = round(value * 2.0**x.scale)
    length = min(64, _width(x, t, 0) + 1)
    pairs, _, _ = _pairs(x, (t,), 0, length, sign=False)
    return Bit(x.graph, x.graph.add("equal_bit", (pairs,), Kind.BITS, x.shape), x.shape)


def every(bits: Bit) -> Bit:
    """AND over the last axis, four bits an opening."""
    graph = bits.graph
    pairs = graph.add("pairs_of", (bits.node,), Kind.PAIRS, bits.shape)
    pairs = _combined(graph, pairs)
    shape = bits.shape[:-1]
    return Bit(graph, graph.add("equal_bit", (pairs,), Kind.BITS, shape), shape)
