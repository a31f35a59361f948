"""floor(factor * y / 2^shift) for public factors, exactly, in 64-bit words.

Used by truncation (docs/protocol.md, protocol 4): by the dealer on its mask, by everyone on the
opened value.
"""

from __future__ import annotations

import numpy as np

from masque.mpc.types import Ring

_HALF = np.uint64(32)
_LOW = np.uint64((1 << 32) - 1)


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
