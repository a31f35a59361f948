"""Secret bits and comparison (docs/protocol.md, protocol 5).

Bits are shared by XOR; `value` and `times` bring them to the ring with one opening of one bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from typing import NoReturn

import numpy as np

from masque.errors import RangeError
from masque.mpc import comparison, conjunction
from masque.mpc.graph import Graph, Kind
from masque.mpc.indexing import indexed
from masque.mpc.scaling import SLACK, truncation_window
from masque.mpc.secret import Secret
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

    def times_at(self, x: Secret, scale: int) -> Secret:
        """b x at another scale: within one ulp of x where the bit is one, 0 exactly elsewhere.

        x is opened only as far as its truncation needs, and its truncated form never: as one
        opening for both (protocol 5). Beside those of the bit and x no opening.
        """
        if scale >= x.scale:
            return self.times(x).at(scale)
        shift = x.scale - scale
        width, low = truncation_window(x.bound * 2.0**x.scale, shift, 0, x.graph.parties)
        shape = np.broadcast_shapes(self.shape, x.shape)
        args, params = (self.flag(), x.masked(low, width + 1)), (shift, width)
        node = self.graph.add("flag_truncate", args, Kind.SHARE, shape, params)
        return Secret(self.graph, shape, scale, x.bound + 2.0 ** (1 - scale), share=node)

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
    """Combine pairs until one is left: an opening a level, `less` only at the last."""
    plan = comparison.levels(graph.nodes[pairs].shape[-1])
    for k, arity in enumerate(plan):
        *leading, count = graph.nodes[pairs].shape
        shape, params = (*leading, -(-count // arity)), (arity, k == len(plan) - 1)
        masked = graph.add("mask_pairs", (pairs,), Kind.NODES, shape, params)
        pairs = graph.add("combine", (masked,), Kind.PAIRS, shape, params)
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
    return pairs, masked, words


def _leading(thresholds: tuple[int, ...]) -> Shape:
    """Several thresholds make a leading axis, one makes none."""
    return (len(thresholds),) if len(thresholds) > 1 else ()


def less(x: Secret, threshold: float = 0.0, *, resolution: int | None = None) -> Bit:
    """[x < threshold] for a public threshold, exact; |x| <= x.bound as always.

    `resolution`: look only at bits worth u = 2^-resolution and more: cheaper. For a threshold that
    is a multiple of u the bit is sure to be 1 below threshold - u, and 0 from the threshold on, or
    from threshold + (n - 1) u if no other use of x opens more of its low bits.
    Openings: 1 of x (shared with other uses), 1 of pairs up to 20 bits, 2 beyond.
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
    pairs = _combined(x.graph, pairs)
    args, params = (pairs, masked, words), (units, low, length)
    shape = (*_leading(units), *x.shape)
    return Bit(x.graph, x.graph.add("sign_bit", args, Kind.BITS, shape, params), shape)


def equals(x: Secret, value: float = 0.0) -> Bit:
    """[x == value] exactly, `value` a public number of x's scale."""
    t = round(value * 2.0**x.scale)
    length = min(64, _width(x, t, 0) + 1)
    pairs, _, _ = _pairs(x, (t,), 0, length, sign=False)
    shape = x.graph.nodes[pairs].shape
    return every(Bit(x.graph, x.graph.add("equal_bits", (pairs,), Kind.BITS, shape), shape))


def every(bits: Bit) -> Bit:
    """AND over the last axis: up to ten bits in one opening, a hundred in two, and so on.

    Dealt: 2^k bits for a group of k, the one-hot table of its masks (Ishai et al., TCC 2013).
    """
    graph, node, shape = bits.graph, bits.node, bits.shape
    for size in conjunction.groups(shape[-1]):
        shape = (*shape[:-1], -(-shape[-1] // size))
        node = graph.add("every", (node,), Kind.BITS, shape, (size,))
    return Bit(graph, node, shape)[..., 0]
