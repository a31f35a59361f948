"""Additive sharing over Z_2^64: a value is the sum of its shares, modulo 2^64.

All shares but the last are uniform and independent of the value; any n - 1 of the n shares are
jointly uniform, so they say nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from masque.errors import ProtocolError
from masque.mpc.types import Bytes, Ring, Shape

Randomness: TypeAlias = Callable[[int], bytes | bytearray | memoryview | Bytes]
"""`randomness(size)` gives `size` fresh uniform bytes: `os.urandom`, or `prg.reader(seed)`."""


def split(values: Ring, parties: int, randomness: Randomness) -> list[Ring]:
    """Shares of `values` (uint64, any shape), one array of that shape for each of the parties.

    Draws 8 bytes a value for each party but the last, in one call a party, in party order.
    Memory: `parties` arrays of the size of `values`. parties >= 2.
    """
    assert parties >= 2, "sharing takes two parties or more"
    assert values.dtype == np.uint64, "shares are of uint64 ring elements"
    last = np.array(values, dtype=np.uint64, order="C")
    shares = []
    for _ in range(parties - 1):
        share = _uniform(last.shape, randomness)
        np.subtract(last, share, out=last)
        shares.append(share)
    return [*shares, last]


def _uniform(shape: Shape, randomness: Randomness) -> Ring:
    size = 8 * int(np.prod(shape, dtype=np.int64))
    drawn = randomness(size)
    words = np.frombuffer(drawn, dtype="<u8") if size else np.empty(0, dtype="<u8")
    assert words.nbytes == size, "the source of randomness gave another number of bytes"
    return words.reshape(shape).astype(np.uint64, copy=not words.flags.writeable)


def join(shares: Sequence[Ring]) -> Ring:
    """The values that `shares` (uint64 arrays of one shape, one a party) are shares of.

    Errors: ProtocolError if there are fewer than two shares or their shapes differ.
    """
    if len(shares) < 2:
        raise ProtocolError(
            f"joining needs the shares of all parties, got {len(shares)}.",
            hint="Fetch the share of every party first.",
        )
    total = np.array(shares[0], dtype=np.uint64, order="C")
    for index, share in enumerate(shares[1:], start=1):
        if share.shape != total.shape or share.dtype != np.uint64:
            raise ProtocolError(
                f"share {index} is {share.dtype} {share.shape}, share 0 is uint64 {total.shape}.",
                hint="All shares must come from the same job and output.",
                party=index,
            )
        np.add(total, share, out=total)
    return total
