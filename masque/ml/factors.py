"""Public factors that change between calls, applied within the opening of a truncation."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from masque.mpc.public import Public, public_array
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from masque.mpc.types import Array, Shape

FACTOR_BITS = 23
LONGEST_SHIFT = 61


def power(base: float, exponent: int) -> float:
    """`base ** exponent` by multiplications alone: the C library's `pow` differs by machine, and
    factors are part of what all parties must agree on.
    """
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base, exponent = base * base, exponent >> 1
    return result


@dataclass(frozen=True, slots=True)
class Factor:
    """A public factor that changes between calls, with a scale that holds its largest value.

    23 significant bits, or fewer where the truncation has no room: then the factor's rounding moves
    the product by one more ulp at most.
    """

    name: str
    largest: float
    scale: int
    shape: Shape

    @classmethod
    def of(cls, name: str, largest: float, x: Secret, scale: int, shape: Shape = ()) -> Factor:
        """A factor for x.scaled(factor, scale)."""
        bits = FACTOR_BITS - ceil(log2(max(largest, 2.0**-LONGEST_SHIFT)))
        return cls(name, largest, min(bits, LONGEST_SHIFT - (x.scale - scale)), shape)

    def argument(self, trace: Trace) -> Public:
        """The factor inside a block."""
        bound = self.largest + 2.0**-self.scale
        return trace.argument(self.name, self.shape, self.scale, bound)

    def encoded(self, values: Array | float) -> Array:
        """The factor of one call."""
        return public_array(values, self.scale)
