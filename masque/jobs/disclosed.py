"""How much is disclosed of a data set: by one attempt of a job, and by several together.

What counts is what a party's ledger counts: every declared opening, and every share of an output
that is sealed to a recipient, with all its bits. Epsilon and delta add up (basic composition); they
are endless where anything is disclosed without noise. Sums are exact: decimals as people write
them, so that ten jobs of 0.1 are 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from typing import TYPE_CHECKING, Protocol

from masque.jobs.spec import EVERYBODY, PrivacySpec

if TYPE_CHECKING:
    from masque.mpc.program import Program

ENDLESS = Decimal("Infinity")


class Opening(Protocol):
    """An opening of an unmasked value that a program declares."""

    @property
    def name(self) -> str:
        """What is opened."""

    @property
    def bits(self) -> int:
        """How many bits of it."""

    @property
    def to(self) -> Sequence[str]:
        """Who sees it."""


@dataclass(frozen=True)
class Disclosed:
    """Bits, and what they say of a row at most: (epsilon, delta)-differential privacy."""

    bits: int = 0
    epsilon: Decimal = Decimal(0)
    delta: Decimal = Decimal(0)

    def __add__(self, other: Disclosed) -> Disclosed:
        return Disclosed(
            self.bits + other.bits, self.epsilon + other.epsilon, self.delta + other.delta
        )


NOTHING = Disclosed()


def by_program(program: Program, privacy: PrivacySpec | None) -> Disclosed:
    """The most that an attempt with this program discloses."""
    opened = sum(opening.bits for opening in program.openings)
    sealed = sum(
        64 * prod(output.shape) * len(output.to)
        for output in program.outputs.values()
        if output.to != (EVERYBODY,)
    )
    bits = opened + sealed
    return (
        Disclosed(bits, *price(None if privacy is None else privacy.model_dump()))
        if bits
        else NOTHING
    )


def price(privacy: Mapping[str, object] | None) -> tuple[Decimal, Decimal]:
    """(epsilon, delta) of an attempt that discloses anything, of a job with this `privacy`."""
    if privacy is None:
        return ENDLESS, ENDLESS
    return _exact(privacy["epsilon"]), _exact(privacy["delta"])


def _exact(number: object) -> Decimal:
    """The number as it is written."""
    return Decimal(repr(number))
