"""AND of many secret bits in one opening, from dealt truth tables (docs/protocol.md, protocol 5).

With o = b xor m open, a group of k bits is all ones exactly if m is the complement of o. The dealer
deals XOR shares of the one-hot table of m, 2^k bits with a one at number m; the AND is its entry
number ~o (Ishai, Kushilevitz, Meldgaard, Orlandi, Paskin-Cherniavsky, TCC 2013: one-time truth
tables).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from masque.mpc.types import Array, Bytes, Ring

WIDEST = 10  # bits of a group: 2^10 bits are dealt for it


@cache
def groups(count: int) -> tuple[int, ...]:
    """Sizes of the groups, an opening each, that AND `count` bits: fewest openings, then bits."""
    openings = 0
    while WIDEST**openings < count:
        openings += 1
    return _groups(count, openings)[1]


@cache
def _groups(count: int, openings: int) -> tuple[int, tuple[int, ...]]:
    if count == 1:
        return 0, ()
    found = []
    for size in range(2, WIDEST + 1):
        rest = -(-count // size)
        if rest <= WIDEST ** (openings - 1):
            bits, sizes = _groups(rest, openings - 1)
            found.append((bits + rest * (max(8, 1 << size) + 2 * size), (size, *sizes)))
    return min(found)


def group_bits(bits: Bytes, size: int, *, first: bool) -> Array:
    """[..., m] bits in groups, missing ones set: uint64 [..., groups], bit j the group's j-th."""
    missing = -bits.shape[-1] % size
    if missing:
        widths = [(0, 0)] * (bits.ndim - 1) + [(0, missing)]
        bits = np.pad(bits, widths, constant_values=1 if first else 0)
    parts = bits.reshape(*bits.shape[:-1], bits.shape[-1] // size, size)
    total = parts[..., 0].astype(np.uint64)
    for j in range(1, size):
        total |= parts[..., j].astype(np.uint64) << np.uint64(j)
    return total


def deal_one_hot(masks: Array, size: int) -> Bytes:
    """One bit in 2^size, number `mask` of each: uint8 [..., max(1, 2^size / 8)]."""
    place = masks & ((1 << size) - 1)
    out = np.zeros((*masks.shape, max(1, (1 << size) >> 3)), dtype=np.uint8)
    byte = (place >> 3).astype(np.intp)[..., np.newaxis]
    np.put_along_axis(out, byte, (1 << (place & 7)).astype(np.uint8)[..., np.newaxis], axis=-1)
    return out


def all_ones(opened: Ring, table: Bytes, size: int) -> Bytes:
    """XOR shares of [all bits of the group are one]: of [mask = not opened], looked up."""
    place = ~opened & np.uint64((1 << size) - 1)
    byte = (place >> np.uint64(3)).astype(np.intp)[..., np.newaxis]
    found = np.take_along_axis(table, byte, axis=-1)[..., 0]
    return np.asarray(found >> (place & np.uint64(7)).astype(np.uint8) & 1)
