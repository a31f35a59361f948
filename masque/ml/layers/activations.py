"""Activations: a = f(z), element by element."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import prod, sqrt
from typing import ClassVar

from masque.ml.layers.base import ACTIVATION_SCALE, GRADIENT_SCALE, Batch, Gradients, Layer, Tape
from masque.mpc import functions
from masque.mpc.bits import Bit
from masque.mpc.secret import Secret
from masque.mpc.types import Shape

RESOLUTION = 12  # fraction bits of z that relu decides by


@dataclass(frozen=True)
class Elementwise(Layer):
    """Leaves shapes as they are."""

    def output_shape(self, shape: Shape) -> Shape:
        """As it enters."""
        return shape


@dataclass(frozen=True)
class Relu(Elementwise):
    """a = max(z, 0); for z within 2^-12 below 0 it may be z itself."""

    kind: ClassVar[str] = "relu"

    def forward(self, x: Batch, tape: Tape) -> Batch:
        """b z with b = [z >= 0], z opened once for both. Rounds: z, pairs (1 or 2), b."""
        scale = min(ACTIVATION_SCALE, x.value.scale)
        a, bit = functions.relu_and_bit(x.value, scale, resolution=RESOLUTION)
        tape.kept["bit"] = bit
        return Batch.of(a, x.norm + 2.0 ** (1 - scale) * sqrt(prod(a.shape[1:])))

    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """dz = b da. Rounds: da."""
        del inputs
        bit, da = tape.kept["bit"], gradient.value
        assert isinstance(bit, Bit)
        scale = min(GRADIENT_SCALE, da.scale)
        dz = bit.times_at(da, scale)
        return Batch.of(dz, gradient.norm + 2.0 ** (1 - scale) * sqrt(prod(dz.shape[1:]))), {}


@dataclass(frozen=True)
class Smooth(Elementwise):
    """a = f(z) within +-1, and its slope a function of a. Rounds: z, pairs, bits, a truncated."""

    steepest: ClassVar[float]

    @staticmethod
    @abstractmethod
    def function(z: Secret) -> Secret:
        """f(z)."""

    @staticmethod
    @abstractmethod
    def slope(a: Secret) -> Secret:
        """f'(z) by a = f(z), up to `steepest`."""

    def forward(self, x: Batch, tape: Tape) -> Batch:
        """f(z)."""
        a = self.function(x.value).at(ACTIVATION_SCALE).bounded(1.01)
        tape.kept["a"] = a
        return Batch.of(a)

    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """dz = f'(z) da."""
        del inputs
        a = tape.kept["a"]
        assert isinstance(a, Secret)
        slope = self.slope(a).at(ACTIVATION_SCALE).bounded(self.steepest)
        da = gradient.at_most(GRADIENT_SCALE)
        return Batch.of(slope * da.value, self.steepest * da.norm), {}


@dataclass(frozen=True)
class Sigmoid(Smooth):
    """a = 1 / (1 + exp(-z)), da/dz = a (1 - a)."""

    kind: ClassVar[str] = "sigmoid"
    steepest: ClassVar[float] = 0.26

    @staticmethod
    def function(z: Secret) -> Secret:
        """1 / (1 + exp(-z))."""
        return functions.sigmoid(z)

    @staticmethod
    def slope(a: Secret) -> Secret:
        """a (1 - a)."""
        return a * (1 - a)


@dataclass(frozen=True)
class Tanh(Smooth):
    """a = tanh(z), da/dz = 1 - a^2."""

    kind: ClassVar[str] = "tanh"
    steepest: ClassVar[float] = 1.01

    @staticmethod
    def function(z: Secret) -> Secret:
        """tanh(z)."""
        return functions.tanh(z)

    @staticmethod
    def slope(a: Secret) -> Secret:
        """1 - a^2."""
        return 1 - a * a
