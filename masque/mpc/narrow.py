"""How many low bits of every value anything uses: no more are opened, and no more corrected.

Sums, products, selections and sums of waves modulo 2^h need their operands modulo 2^h only. So
where a value ends in a truncation of B + 1 bits, all that leads to it, back to the openings before,
is computed modulo 2^(B+1), and what lies above is never made right (docs/protocol.md, protocol 1).
What a block hands over or reveals is always whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from masque.mpc.graph import Node

WHOLE = 64

# Operations that are computed modulo any power of two.
MODULAR = frozenset(
    {"add", "subtract", "add_public", "times_public", "matmul_public", "sum", "unmask", "product"}
) | {"reshape", "transpose", "index", "broadcast", "concat", "place", "flag_times", "flag_share"}

# Operations whose last two parameters are the window (low, length) that they look at.
WINDOWED = frozenset({"words", "compare_chunks", "sign_bit", "waves"})

# Operations on bits, which have no bits above others.
BITWISE = frozenset({"mask_bit", "mask_pairs", "combine", "equal_bits", "every", "xor", "invert"})


def _wanted(node: Node, bits: int, k: int) -> int:
    """Low bits of operand k of a node that it needs for its own `bits`."""
    match node.op:
        case op if op in MODULAR:
            return bits
        case "times":
            factor = node.params[0]
            assert isinstance(factor, int)
            zeros = (factor & -factor).bit_length() - 1 if factor else 0
            return max(1, bits - zeros)
        case "mask":
            return bits
        case "truncate" | "flag_truncate":
            *_, width = node.params
            assert isinstance(width, int)
            return bits if node.op == "flag_truncate" and k == 0 else width + 1
        case op if op in WINDOWED:
            low, length = node.params[-2:]
            assert isinstance(low, int) and isinstance(length, int)
            return min(WHOLE, low + length + (op != "waves"))
        case op if op in BITWISE:
            return 1
    return WHOLE


def narrowed(nodes: Iterable[Node], outputs: Iterable[int]) -> list[Node]:
    """The same nodes with their `bits`; openings of masked values end there."""
    order = list(nodes)
    whole = set(outputs)
    needed: dict[int, int] = {}
    found = []
    for node in reversed(order):
        bits = WHOLE if node.id in whole or node.op == "reveal" else needed.get(node.id, 1)
        params = node.params
        if node.op == "mask":
            low, high = params
            assert isinstance(low, int) and isinstance(high, int)
            bits = min(high, max(bits, low + 1))
            params = (low, bits)
        found.append(replace(node, params=params, bits=bits))
        for k, arg in enumerate(node.args):
            needed[arg] = max(needed.get(arg, 1), _wanted(node, bits, k))
    return found[::-1]
