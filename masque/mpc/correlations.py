"""Correlated randomness: what the dealer deals for each operation, and the law it obeys.

Every party expands its own seed into its shares of everything; where the shares of a value must
satisfy a law, one party (rotating) is sent its share instead. So the material of all the others is
their seed. A `Deal` says how one array of shares is drawn; `LAWS`
says what they must sum to. docs/protocol.md, protocol 1, and the table there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from masque.mpc import comparison, conjunction, trig
from masque.mpc import truncation as truncated
from masque.mpc.bilinear import multiply
from masque.mpc.fits import FITS, Fit
from masque.mpc.graph import Block, Graph, Node
from masque.mpc.packing import packed_size
from masque.mpc.types import Array, Shape


@dataclass(frozen=True, slots=True)
class Deal:
    """Shares of one array: drawn from the seeds; corrected in `bits` bits if that is not 0."""

    dtype: str
    shape: Shape
    bits: int = 0
    xor: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def drawn(self) -> int:
        """Bytes drawn from every seed, a multiple of 8 so that arrays stay aligned."""
        return -(-self.size * np.dtype(self.dtype).itemsize // 8) * 8

    @property
    def corrected(self) -> int:
        """Bytes of the correction that one party receives."""
        return packed_size(self.size, self.bits) if self.bits and self.size else 0


def wave_columns(node: Node) -> int:
    """Dealt values an element of a smooth function: a cosine and a sine a harmonic."""
    return 2 * len(wave(node)[0].harmonics)


def deals(node: Node) -> tuple[Deal, ...]:
    """What is dealt for a node; () for most operations."""
    shape = node.shape
    match node.op:
        case "mask":
            return (Deal("<u8", shape),)
        case "product" | "flag_times":
            return (Deal("<u8", shape, node.bits),)
        case "truncate":
            return (Deal("<u8", shape, node.bits), Deal("<u8", shape, _lifted(node)))
        case "flag_truncate":
            both = (2, *shape)
            return (Deal("<u8", both, node.bits), Deal("<u8", both, _lifted(node)))
        case "words":
            return (Deal("<u2", shape, 16, xor=True),)
        case "mask_pairs":
            kind = combination(node)
            products = Deal(kind.dtype, shape, len(kind.products), xor=True)
            return (Deal("<u1", shape, xor=True), products)
        case "every":
            entries = 1 << group_size(node)
            table = Deal("<u1", (*shape, max(1, entries // 8)), min(8, entries), xor=True)
            return (Deal("<u2", shape, xor=True), table)
        case "mask_bit":
            return (Deal("<u1", shape, xor=True), Deal("<u8", shape, node.bits))
        case "waves":
            return (Deal("<u8", (*shape, wave_columns(node)), node.bits),)
    return ()


def truncation(node: Node) -> tuple[int, int]:
    """(shift, width) of a truncate node."""
    shift, width = node.params
    assert isinstance(shift, int) and isinstance(width, int)
    return shift, width


def _lifted(node: Node) -> int:
    """Bits of m that matter to m 2^(width + 1 - shift), below the node's bits."""
    shift, width = truncation(node)
    return max(1, node.bits - (width + 1 - shift))


def combination(node: Node) -> comparison.Combination:
    """How a mask_pairs or combine node makes one pair of several."""
    arity, last = node.params
    assert isinstance(arity, int) and isinstance(last, bool)
    return comparison.combination(arity, last)


def group_size(node: Node) -> int:
    """Bits of a group of an every node."""
    (size,) = node.params
    assert isinstance(size, int)
    return size


def cut(node: Node) -> int:
    """Bits that a gaps node drops."""
    (low,) = node.params
    assert isinstance(low, int)
    return low


def noise_of(node: Node) -> int:
    """Sigma of a noise node, in units of the last place."""
    _, sigma = node.params
    assert isinstance(sigma, int)
    return sigma


def wave(node: Node) -> tuple[Fit, int, int]:
    """(fit, public scale, dealt scale) of a waves node."""
    name, _, public, dealt, *_ = node.params
    assert isinstance(public, int) and isinstance(dealt, int)
    return FITS[str(name)], public, dealt


def window(node: Node) -> tuple[int, int]:
    """(low, length) of a words or waves node's bits."""
    low, length = node.params[-2:]
    assert isinstance(low, int) and isinstance(length, int)
    return low, length


# What the dealer knows of a node: the mask a of a MASKED value, the mask bit of a FLAG.
Known = Any
Law = Callable[[Node, Sequence[Known], Sequence[Array]], tuple[Sequence[Array | None], Known]]


def _mask(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    return (None,), sums[0]


def _product(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    return (multiply(node.params, args[0], args[1]),), None


def _flag_times(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    return (np.broadcast_to(args[0] * args[1], node.shape),), None


def _truncate(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    factor = args[1] if len(args) > 1 else None
    return truncated.deal(args[0], *truncation(node), factor), None


def _flag_truncate(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    return truncated.deal_under_bit(args[0], args[1], *truncation(node), node.shape), None


def _words(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    r = np.negative(args[0]).reshape(-1)
    return (comparison.deal_words(r, *window(node)).reshape(node.shape),), None


def _mask_pairs(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    return (None, comparison.deal_products(sums[0], combination(node))), None


def _every(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    return (None, conjunction.deal_one_hot(sums[0], group_size(node))), None


def _mask_bit(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    bit = (sums[0] & 1).astype(np.uint64)
    return (None, bit), bit


def _waves(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    low, length = window(node)
    r = np.negative(args[0]).reshape(-1) >> np.uint64(low)
    fit, _, scale = wave(node)
    dealt = trig.dealt_waves(r, length, fit.harmonics_array, scale)
    return (dealt.reshape(*node.shape, wave_columns(node)),), None


LAWS: dict[str, Law] = {
    "mask": _mask,
    "product": _product,
    "flag_times": _flag_times,
    "truncate": _truncate,
    "flag_truncate": _flag_truncate,
    "words": _words,
    "mask_pairs": _mask_pairs,
    "every": _every,
    "mask_bit": _mask_bit,
    "waves": _waves,
}


def opened_bits(graph: Graph | Block, node: Node) -> int:
    """Bits an element that an opening sends."""
    if node.op == "mask":
        low, high = Graph.window(node)
        return high - low
    if node.op == "mask_pairs":
        return combination(node).bits
    if node.op == "every":
        return group_size(node)
    return {"mask_bit": 1, "reveal": 64}[node.op]


class Layout:
    """Where everything dealt for a block lies: in the seeds' stream, and in the corrections.

    Corrected arrays are dealt to n *seats* of about equal loads; which party takes which seat turns
    from call to call. In the stream, what is not corrected lies first, then what is corrected at
    seat 0, at seat 1, ...: a party expands everything but the part of its own seat, whose arrays it
    is sent. Each array lies at a multiple of 8 bytes, each part of 16; in schedule order.
    """

    def __init__(self, block: Block) -> None:
        self.parties = block.parties
        self._loads = [0] * block.parties
        placed: list[tuple[int, Deal, int, int]] = []  # node, deal, seat, place in its part
        sizes = [0] * (block.parties + 1)  # of the parts; the last is what is not corrected
        for step in block.steps:
            for node in (*step.local, *step.opened):
                for deal in deals(node):
                    seat = self._loads.index(min(self._loads)) if deal.bits else block.parties
                    placed.append((node.id, deal, seat, sizes[seat]))
                    sizes[seat] += deal.drawn
                    if deal.bits:
                        self._loads[seat] += deal.corrected
        starts = self._starts(sizes)
        self._parts = [(starts[seat], starts[seat] + sizes[seat]) for seat in range(block.parties)]
        self.drawn = starts[-1]
        found: dict[int, list[tuple[Deal, int, int]]] = {}  # node: deal, offset, seat
        for node_id, deal, seat, place in placed:
            base = 0 if seat == block.parties else starts[seat]
            found.setdefault(node_id, []).append((deal, base + place, seat))
        self.deals = {node_id: tuple(rows) for node_id, rows in found.items()}

    @staticmethod
    def _starts(sizes: list[int]) -> list[int]:
        """Where the part of every seat begins, and where the last ends, in whole blocks."""
        starts = [-(-sizes[-1] // 16) * 16]
        for size in sizes[:-1]:
            starts.append(-(-(starts[-1] + size) // 16) * 16)
        return starts

    def spans(self, seat: int) -> tuple[tuple[int, int], ...]:
        """What whoever takes `seat` expands: everything but the part of that seat."""
        start, stop = self._parts[seat]
        after = -(-stop // 16) * 16
        return tuple(span for span in ((0, start), (after, self.drawn)) if span[0] < span[1])

    @property
    def expanded(self) -> int:
        """Bytes that all parties together expand their seeds to."""
        spans = (span for seat in range(self.parties) for span in self.spans(seat))
        return sum(stop - start for start, stop in spans)

    def seat(self, position: int, party: int) -> int:
        """The seat that `party` takes in call `position`.

        Turned by the sum of the position's digits in base n: whatever the rhythm in which a
        program calls its blocks, no party keeps to the heavier seats.
        """
        turn = 0
        while position:
            position, digit = divmod(position, self.parties)
            turn += digit
        return (party - turn) % self.parties

    def corrected(self, position: int, party: int) -> int:
        """Correction bytes that `party` receives for call `position`."""
        return self._loads[self.seat(position, party)]
