"""What layers have in common: the rows that pass through them, their parameters, their bounds.

Bounds are kept in two ways. `Secret.bound` limits single elements; `norm` the Euclidean length of a
row, of a unit's weights, of a row's gradient. By Cauchy and Schwarz a product of norms bounds a sum
of products far below what its terms bound one by one: |x . w| <= |x| |w|. Where a norm has grown
beyond a limit that training in good health never reaches, `Guards` checks it under MPC and goes on
from the limit; a single bit an epoch tells whether every check held (`masque.ml.guards`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, prod, sqrt
from typing import ClassVar

from masque.ml.guards import Guards
from masque.mpc.public import Public
from masque.mpc.secret import Secret
from masque.mpc.types import Shape

ACTIVATION_SCALE = 14  # fraction bits of what a layer with weights reads
GRADIENT_SCALE = 16  # of gradients by what a layer puts out


@dataclass(frozen=True)
class Batch:
    """Rows [rows, *shape] on their way, forward or back; no row is longer than `norm`."""

    value: Secret
    norm: float

    @classmethod
    def of(cls, value: Secret, norm: float = inf) -> Batch:
        """With the norm that follows from the bound of elements, if that is less."""
        rows_norm = value.bound * sqrt(prod(value.shape[1:]))
        norm = min(norm, rows_norm)
        return cls(value.bounded(min(value.bound, norm)), norm)

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.value.shape[0]

    def at_most(self, scale: int) -> Batch:
        """The same at `scale` fraction bits or fewer, rounded to nearest."""
        if self.value.scale <= scale:
            return self
        value = self.value.at(scale)
        ulp = 2.0 ** (1 - scale)
        return Batch.of(value, self.norm + ulp * sqrt(prod(value.shape[1:])))

    def settled(self, guards: Guards, scale: int, limit: float) -> Batch:
        """At `scale` or fewer fraction bits; no norm above `limit`, checked where it could be."""
        fine = self.at_most(scale)
        if self.norm <= limit:
            return fine
        return Batch.of(guards.rows(fine.value, fine.norm, limit), limit)

    def reshaped(self, *shape: int) -> Batch:
        """The same rows in another shape."""
        return Batch(self.value.reshape(self.rows, *shape), self.norm)


@dataclass(frozen=True)
class Parameter:
    """An array of a layer: its shape, whether it is trained, and how it starts.

    `fan_in`: numbers that a unit sums; weights start normally distributed with variance
    `gain` / `fan_in`, everything else at the constant `start`.
    """

    shape: Shape
    trained: bool = True
    start: float = 0.0
    gain: float = 0.0
    fan_in: int = 1


@dataclass(frozen=True)
class Weight:
    """A parameter inside a step. Norms: into a unit (a column), out of an input (a row)."""

    value: Secret
    into: float
    out: float
    whole: float


@dataclass
class Tape:
    """What a layer's backward pass needs of its forward pass, and what both share.

    `updates`: new values of parameters that are not trained; they are running means of arrays
    whose elements, and whole norm, are within `means`.
    """

    guards: Guards
    weights: Mapping[str, Weight]
    activation_limit: float
    gradient_limit: float
    training: bool = True
    argument: Callable[[str, Shape, int, float], Public] | None = None
    kept: dict[str, object] = field(default_factory=dict)
    updates: dict[str, Secret] = field(default_factory=dict)
    means: dict[str, tuple[float, float]] = field(default_factory=dict)

    def reading(self, x: Batch) -> Batch:
        """What a layer with weights reads, kept for its backward pass."""
        limit = self.activation_limit * sqrt(prod(x.value.shape[1:]))
        x = x.settled(self.guards, ACTIVATION_SCALE, limit)
        self.kept["x"] = x
        return x

    @property
    def x(self) -> Batch:
        """What `reading` kept."""
        x = self.kept["x"]
        assert isinstance(x, Batch)
        return x

    def returning(self, gradient: Batch) -> Batch:
        """A gradient that is about to be multiplied."""
        return gradient.settled(self.guards, GRADIENT_SCALE, self.gradient_limit)


@dataclass(frozen=True)
class Gradient:
    """Of a parameter: a sum over the rows of a batch, at any scale; norms as of `Weight`."""

    value: Secret
    into: float
    out: float
    whole: float

    @classmethod
    def of(cls, value: Secret, whole: float = inf, into: float = inf, out: float = inf) -> Gradient:
        """With the norms that follow from one another and from the bound of elements."""
        whole = min(whole, value.bound * sqrt(prod(value.shape)))
        return cls(value, min(into, whole), min(out, whole), whole)


Gradients = dict[str, Gradient]
"""By parameter."""


class Layer(ABC):
    """A step of a network. Frozen descriptions; all that is computed is passed in and out."""

    kind: ClassVar[str]

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Of a row that leaves, from that of a row that enters. Errors: ValueError, in words."""

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        """Of a layer that rows of `shape` enter; by name."""
        del shape
        return {}

    @abstractmethod
    def forward(self, x: Batch, tape: Tape) -> Batch:
        """What leaves, [rows, *output_shape]; keeps on `tape` what `backward` needs."""

    @abstractmethod
    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """From the gradient of the loss by what left: by what entered, and by the parameters.

        `inputs`: whether the gradient by what entered is wanted; otherwise any batch is returned.
        """
