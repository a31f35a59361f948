"""Truncation (docs/protocol.md, protocol 4): what it opens, and its arithmetic on public words.

floor(factor * y / 2^shift) for public factors, exactly, in 64-bit words, is used by the dealer on
its mask, by everyone on the opened value.
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np

from masque.errors import RangeError
from masque.mpc.types import Ring

RING_BITS = 62  # magnitudes stay below 2^62, so that sums of two never wrap
SLACK = 1 + 2.0**-40  # bounds are floating-point numbers, rounded at every operation

_HALF = np.uint64(32)
_LOW = np.uint64((1 << 32) - 1)


def guard_bits(parties: int) -> int:
    """Bits opened below the cut so that the carries of n parties move a result by one ulp."""
    return max(2, ceil(log2(parties)))


def truncation_window(magnitude: float, shift: int, bits: int, parties: int) -> tuple[int, int]:
    """Width B and lowest opened bit for z * factor / 2^shift, |z| <= magnitude, factor < 2^bits.

    B is the least with magnitude < 2^(B-1) - n 2^low and B > shift (Escudero et al., ePrint
    2020/338, section 5.1, with the opening narrowed; docs/protocol.md, protocol 4). `low` leaves
    guard bits for the carries of n parties.
    """
    low = max(0, shift - bits - guard_bits(parties))
    need = ceil(magnitude * SLACK) + parties * (1 << low) + 1
    width = max(shift + 1, need.bit_length() + 1)
    if width > RING_BITS + 1:
        raise RangeError(
            f"a value of {width} bits is too wide to be divided by 2^{shift}.",
            hint="Use tighter ranges or weight bounds, smaller batches, or a smaller scale.",
        )
    return width, low


def scale_down(y: Ring, factor: Ring | None, shift: int, *, half: bool = False) -> Ring:
    """floor((factor * y [+ 2^(shift-1)]) / 2^shift) modulo 2^64, y as an unsigned number.

    `factor`: uint64 below 2^31, of any shape that broadcasts with y; None is one. 1 <= shift < 64.
    The product has up to 95 bits: y is cut in two halves.
    """
    if factor is None:
        moved = y >> np.uint64(shift)
        return moved + (y >> np.uint64(shift - 1) & np.uint64(1)) if half else moved
    c = factor
    assert int(c.max(initial=0)) >> 31 == 0, "a factor is not negative, and below 2^31"
    low = (y & _LOW) * c
    if half and shift <= 32:
        low += np.uint64(1 << (shift - 1))
    top = (y >> _HALF) * c + (low >> _HALF)
    if half and shift > 32:
        top += np.uint64(1 << (shift - 33))
    if shift >= 32:
        return top >> np.uint64(shift - 32)
    return (top << np.uint64(32 - shift)) + ((low & _LOW) >> np.uint64(shift))
