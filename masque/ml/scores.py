"""Scores of rows by a trained model, inside a block: what metrics and early stopping look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from masque.mpc.program import Ref
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace


class Scores(Protocol):
    """How a block scores rows, and what its calls are given and keep for that."""

    @property
    def bound(self) -> float:
        """No score is larger."""

    @property
    def columns(self) -> int:
        """Elements of a row where it has most of them on its way."""

    def of(self, trace: Trace, x: Secret) -> Secret:
        """Scores [rows, classes] of rows x [rows, features] of the design matrix."""

    def inputs(self) -> dict[str, Ref]:
        """Inputs that `of` adds to a block."""

    def outputs(self) -> dict[str, Ref]:
        """Outputs that `of` adds to a block."""


@dataclass(frozen=True)
class LinearScores:
    """X w with the weights of a register."""

    columns: int
    classes: int
    register: str
    scale: int
    weight: float
    feature: float
    masked: bool = False

    @property
    def bound(self) -> float:
        """The sum of all terms at their largest."""
        return self.columns * self.feature * self.weight

    def of(self, trace: Trace, x: Secret) -> Secret:
        """X w."""
        shape = (self.columns, self.classes)
        return x @ trace.input("w", shape, self.scale, self.weight, masked=self.masked)

    def inputs(self) -> dict[str, Ref]:
        """The weights."""
        return {"w": Ref(self.register)}

    def outputs(self) -> dict[str, Ref]:
        """Nothing."""
        return {}
