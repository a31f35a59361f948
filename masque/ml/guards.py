"""Checks under MPC that norms keep within the limits that all bounds of a network rest on.

A norm is checked by its square, which a value that is masked already gives for the price of one
dealt number a row. Everything up to a check follows from limits that were checked before it; so
the first check that fails still sees a true value, and whatever goes wrong after it is never handed
out: violations are counted in secret, and one declared bit an epoch tells whether there were any.
"""

from __future__ import annotations

from math import ceil, floor, log2, prod, sqrt

from masque.errors import RangeError
from masque.mpc.functions import less
from masque.mpc.secret import Secret, concatenate, product

RING_BITS = 61.9
FINENESS = 4  # bits, of the square of the limit, that a check looks at; and one a carry


class Guards:
    """The checks of one block.

    `checks`: (norm, limit) of each; `coarse`: which of the graph's magnitudes belong to checks that
    take a coarser copy if need be, so that they say nothing of how tight it is.
    """

    def __init__(self) -> None:
        self.checks: list[tuple[float, float]] = []
        self.coarse: set[int] = set()
        self._exceeded: list[Secret] = []

    def rows(self, x: Secret, norm: float, limit: float, *, coarse: bool = True) -> Secret:
        """x [rows, ...], no row longer than `norm`: checked to be no longer than `limit`.

        `coarse`: where its squares would not fit the ring, a copy with fewer fraction bits may be
        checked instead, against as much less as it may be off: no more than a 32nd of the limit.
        """
        flat = x.reshape(x.shape[0], prod(x.shape[1:]))
        self._check("row_dot", flat, flat.shape[1], (norm, limit), coarse=coarse)
        return x.bounded(min(x.bound, limit))

    def columns(self, x: Secret, norm: float, limit: float, *, coarse: bool = True) -> None:
        """Of x [rows, columns], no column longer than `norm`: checked against `limit`."""
        self._check("column_dot", x, x.shape[0], (norm, limit), coarse=coarse)

    def _check(
        self, kind: str, x: Secret, count: int, norms: tuple[float, float], *, coarse: bool
    ) -> None:
        """Dot products of x, each of `count` elements, with itself: from a norm to a limit."""
        self.checks.append(norms)
        made, (norm, limit) = len(x.graph.magnitudes), norms
        if coarse:
            x, norm, limit = _squarable(x, norm, limit, count)
        self.squares(product(kind, x, x, norm**2), limit)
        if coarse:
            self.coarse.update(range(made, len(x.graph.magnitudes)))

    def squares(self, squares: Secret, limit: float) -> None:
        """Squares [n] of norms: checked to be below limit^2, looking at its upper bits only.

        A sum of limit^2 or more is always found; one below limit^2 (1 - 3 / 32) never is: with
        u = 2^-resolution, [x < t] is sure to be 0 from t + (n - 1) u and 1 below t - u.
        """
        parties = squares.graph.parties
        resolution = FINENESS + ceil(log2(parties)) - floor(2 * log2(limit))
        unit = 2.0**-resolution
        threshold = (floor(limit**2 / unit) - (parties - 1)) * unit
        exceeded = ~less(squares, threshold, resolution=resolution)
        self._exceeded.append(exceeded.value())

    def violations(self) -> Secret | None:
        """How many checks failed, [1] at scale 0; None without any check."""
        if not self._exceeded:
            return None
        return concatenate(self._exceeded, axis=0).sum().reshape(1)


def _squarable(x: Secret, norm: float, limit: float, count: int) -> tuple[Secret, float, float]:
    """x, or a copy of it whose squares fit the ring; its norm, over `count` elements; the limit."""
    room = floor(RING_BITS / 2 - log2(norm + 1.0))
    if x.scale <= room:
        return x, norm, limit
    wrong = 2.0 ** (1 - room) * sqrt(count)
    if wrong > limit / 32:
        raise RangeError(
            f"a norm of {norm:.6g} that is to be below {limit:.6g} cannot be checked in the ring.",
            hint="Use tighter bounds, or a lower learning rate.",
        )
    return x.at(room), norm + wrong, limit - wrong
