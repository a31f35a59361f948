"""Flatten and dropout."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2, prod
from typing import ClassVar

from masque.ml.guards import RING_BITS
from masque.ml.layers.base import GRADIENT_SCALE, Batch, Gradients, Layer, Tape
from masque.mpc.public import Public
from masque.mpc.types import Shape

KEEP_SCALE = 12  # fraction bits of what dropout multiplies by
SPARE_BITS = 6  # left above a product with it, for what it is added to
MASK = "dropout"


@dataclass(frozen=True)
class Flatten(Layer):
    """A row of any shape becomes a flat one, in C order."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, shape: Shape) -> Shape:
        """[elements]."""
        return (prod(shape),)

    def forward(self, x: Batch, tape: Tape) -> Batch:
        """Free."""
        tape.kept["shape"] = x.value.shape[1:]
        return x.reshaped(prod(x.value.shape[1:]))

    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """Free."""
        del inputs
        shape = tape.kept["shape"]
        assert isinstance(shape, tuple)
        return gradient.reshaped(*shape), {}


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, elements that a public mask drops are 0 and the others grow by 1 / (1 - rate).

    The mask is public: it follows from the job's seed, and says nothing about anybody's data.
    """

    rate: float
    kind: ClassVar[str] = "dropout"

    @property
    def factor(self) -> float:
        """What is kept is multiplied by this."""
        return 1.0 / (1.0 - self.rate)

    def output_shape(self, shape: Shape) -> Shape:
        """As it enters."""
        return shape

    def forward(self, x: Batch, tape: Tape) -> Batch:
        """A public product: no rounds of its own."""
        if not tape.training or not self.rate:
            return x
        assert tape.argument is not None
        keep = tape.argument(MASK, x.value.shape, KEEP_SCALE, self.factor)
        tape.kept["keep"] = keep
        return _times(x, keep)

    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """The same elements are dropped."""
        del inputs
        keep = tape.kept.get("keep")
        if keep is None:
            return gradient, {}
        assert isinstance(keep, Public)
        return _times(gradient, keep), {}


def _times(x: Batch, keep: Public) -> Batch:
    """Rows times a public mask, cut to fewer fraction bits first where there is no room for it."""
    room = floor(RING_BITS - SPARE_BITS - KEEP_SCALE - log2(x.value.bound * keep.bound + 1.0))
    x = x.at_most(max(GRADIENT_SCALE, room))
    return Batch.of(x.value * keep, x.norm * keep.bound)
