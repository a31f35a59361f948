"""Correlated randomness: what the dealer deals for each operation, and the law it obeys.

Every party expands its own seed into its shares of everything; where the shares of a value must
satisfy a law, one party (rotating) receives a *correction* that it adds to its share. So the
material of all the others is their seed. A `Deal` says how one array of shares is drawn; `LAWS`
says what they must sum to. docs/protocol.md, protocol 1, and the table there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from masque.mpc import comparison, trig
from masque.mpc.bilinear import BILINEAR
from masque.mpc.fits import FITS, Fit
from masque.mpc.graph import Block, Graph, Node
from masque.mpc.packing import packed_size
from masque.mpc.scaling import scale_down
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
            return (Deal("<u8", shape, 64),)
        case "truncate":
            shift, width = truncation(node)
            return (Deal("<u8", shape, 64), Deal("<u8", shape, 63 - width + shift))
        case "words":
            return (Deal("<u2", shape, 16, xor=True),)
        case "mask_pairs":
            return (
                Deal("<u1", shape, xor=True),
                Deal("<u4", shape, comparison.PRODUCT_BITS, xor=True),
            )
        case "mask_bit":
            return (Deal("<u1", shape, xor=True), Deal("<u8", shape, 64))
        case "waves":
            return (Deal("<u8", (*shape, wave_columns(node)), 64),)
    return ()


def truncation(node: Node) -> tuple[int, int]:
    """(shift, width) of a truncate node."""
    shift, width = node.params
    assert isinstance(shift, int) and isinstance(width, int)
    return shift, width


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
    return (BILINEAR[str(node.params[0])].function(args[0], args[1]),), None


def _flag_times(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    return (np.broadcast_to(args[0] * args[1], node.shape),), None


def _truncate(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    shift, width = truncation(node)
    factor = args[1] if len(args) > 1 else None
    r = np.negative(args[0])
    kept = r & np.uint64((1 << (width + 1)) - 1)
    return (scale_down(kept, factor, shift), r >> np.uint64(width) & np.uint64(1)), None


def _words(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    r = np.negative(args[0]).reshape(-1)
    return (comparison.deal_words(r, *window(node)).reshape(node.shape),), None


def _mask_pairs(node: Node, args: Sequence[Known], sums: Sequence[Array]) -> Any:
    return (None, comparison.deal_products(sums[0])), None


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
    "words": _words,
    "mask_pairs": _mask_pairs,
    "mask_bit": _mask_bit,
    "waves": _waves,
}


def opened_bits(graph: Graph | Block, node: Node) -> int:
    """Bits an element that an opening sends."""
    if node.op == "mask":
        low, high = Graph.window(node)
        return high - low
    return {"mask_pairs": comparison.NODE_BITS, "mask_bit": 1, "reveal": 64}[node.op]


class Layout:
    """Where everything dealt for a block lies: in the seeds' stream, and in the corrections.

    Draws lie in schedule order, each array at a multiple of 8 bytes. Corrected arrays are dealt to
    n *seats* of about equal loads; which party takes which seat turns from call to call.
    """

    def __init__(self, block: Block) -> None:
        self.parties = block.parties
        self.deals: dict[int, tuple[tuple[Deal, int, int], ...]] = {}  # node: deal, offset, seat
        self.drawn = 0
        self._loads = [0] * block.parties
        for step in block.steps:
            for node in (*step.local, *step.opened):
                rows = []
                for deal in deals(node):
                    seat = self._loads.index(min(self._loads))
                    rows.append((deal, self.drawn, seat))
                    self.drawn += deal.drawn
                    self._loads[seat] += deal.corrected
                if rows:
                    self.deals[node.id] = tuple(rows)

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
