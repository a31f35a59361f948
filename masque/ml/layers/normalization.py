"""Batch normalisation: every feature (or channel) to mean 0 and deviation 1 over a batch."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, inf, log2, prod, sqrt
from typing import ClassVar

from masque.ml.guards import RING_BITS
from masque.ml.layers.base import (
    ACTIVATION_SCALE,
    GRADIENT_SCALE,
    Batch,
    Gradient,
    Gradients,
    Layer,
    Parameter,
    Tape,
)
from masque.mpc.functions import inverse_sqrt
from masque.mpc.secret import Secret, product
from masque.mpc.types import Shape

STATISTIC_SCALE = 16
INVERSE_SCALE = 20
VARIANCE_SCALE = 24
MEAN_SCALE = 24  # of means that are taken from all gradients alike: their errors add up


@dataclass(frozen=True)
class BatchNorm(Layer):
    """z = scale (x - mean) / sqrt(variance + epsilon) + shift.

    In training mean and variance are those of the batch, and running ones follow them, keeping
    `momentum` of what they were; afterwards they are the running ones. S. Ioffe and C. Szegedy,
    "Batch normalization" (ICML 2015).
    """

    momentum: float = 0.9
    epsilon: float = 1e-3
    kind: ClassVar[str] = "batch_norm"

    def output_shape(self, shape: Shape) -> Shape:
        """As it enters."""
        return shape

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        """scale, shift; mean and variance follow the batches. Each [features] or [channels]."""
        one = shape[:1]
        return {
            "scale": Parameter(one, start=1.0),
            "shift": Parameter(one),
            "mean": Parameter(one, trained=False),
            "variance": Parameter(one, trained=False, start=1.0),
        }

    def forward(self, x: Batch, tape: Tape) -> Batch:
        """Rounds: x, the variance, about ten of the inverse root, and two products."""
        scale, shift = tape.weights["scale"], tape.weights["shift"]
        shape = x.value.shape
        normalised = self._by_batch if tape.training else self._by_running
        unit = normalised(tape.reading(x), tape)
        z = _columns(unit.value) * _row(scale.value) + _row(shift.value)
        norm = unit.norm * scale.value.bound + shift.whole * sqrt(prod(shape[2:]))
        return Batch.of(_uncolumns(z, shape), norm)

    def _by_batch(self, x: Batch, tape: Tape) -> Batch:
        """(x - mean) / deviation over the columns of this batch.

        The squares of a column of n numbers x - mean add up to n times their variance, and to no
        more than those of x: so no column of what leaves is longer than the root of n.
        """
        shape = x.value.shape
        root = sqrt(shape[0] * prod(shape[2:]))
        length = min(root * x.value.bound, sqrt(shape[0]) * x.norm)  # of a column
        scale = min(STATISTIC_SCALE, floor(RING_BITS / 2 - log2(length + 1.0) - 0.1))
        flat = _columns(x.at_most(scale).value)
        rounding = 2.0 ** (2 - scale)
        mean = flat.sum(axis=0).scaled(1 / root**2, scale).bounded(length / root + rounding)
        centred = flat - _row(mean)
        length += root * rounding
        squares = product("column_dot", centred, centred, length**2)
        variance = squares.scaled(1 / root**2, VARIANCE_SCALE).bounded((length / root) ** 2 * 1.01)
        inverse = self._inverse(variance)
        places = sqrt(prod(shape[2:]))
        tape.means["mean"] = (mean.bound, x.norm / places + rounding * sqrt(shape[1]))
        tape.means["variance"] = (variance.bound, inf)
        for name, value in (("mean", mean), ("variance", variance)):
            before = tape.weights[name].value
            kept = before.scaled(self.momentum, before.scale)
            tape.updates[name] = kept + value.scaled(1 - self.momentum, before.scale)
        wrong = rounding * inverse.bound + centred.bound * 2.0 ** (1 - INVERSE_SCALE) + 2.0**-12
        length = root * (1.001 + wrong)
        unit = (centred * _row(inverse)).bounded(1.001 * root + wrong).at(ACTIVATION_SCALE)
        tape.kept |= {"unit": unit, "inverse": inverse, "length": length}
        return Batch.of(_uncolumns(unit, shape), length * sqrt(shape[1]))

    def _inverse(self, variance: Secret) -> Secret:
        """1 / deviation."""
        raised = variance + self.epsilon
        inverse = inverse_sqrt(raised, minimum=self.epsilon / 4).at(INVERSE_SCALE)
        return inverse.bounded(1.01 / sqrt(self.epsilon))

    def _by_running(self, x: Batch, tape: Tape) -> Batch:
        """(x - mean) / deviation by the running ones."""
        shape = x.value.shape
        mean, variance = tape.weights["mean"], tape.weights["variance"]
        centre = mean.value.at(min(STATISTIC_SCALE, mean.value.scale))
        inverse = self._inverse(variance.value)
        unit = (_columns(x.value) - _row(centre)) * _row(inverse)
        furthest = x.norm + (mean.whole + 2.0**-12 * sqrt(shape[1])) * sqrt(prod(shape[2:]))
        found = Batch.of(_uncolumns(unit, shape), furthest * inverse.bound)
        limit = tape.activation_limit * sqrt(prod(shape[1:]))
        return found.settled(tape.guards, ACTIVATION_SCALE, limit)

    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """dx = inverse / n (n dz' - sum dz' - unit sum(dz' unit)) with dz' = scale dz.

        But for the factor inverse, n of these make a projection: no column of it is longer than
        that of dz'.
        """
        unit, inverse, length = tape.kept["unit"], tape.kept["inverse"], tape.kept["length"]
        assert isinstance(unit, Secret) and isinstance(inverse, Secret)
        assert isinstance(length, float)
        gradient = tape.returning(gradient)
        shape, dz = gradient.value.shape, _columns(gradient.value)
        count, whole = dz.shape[0], sqrt(shape[0]) * gradient.norm
        column = min(sqrt(count) * dz.bound, whole)
        slope = product("column_dot", unit, dz, length * column)
        total = dz.sum(axis=0)
        total = total.bounded(min(total.bound, sqrt(count) * column))
        found = {
            "scale": Gradient.of(slope, length * whole),
            "shift": Gradient.of(total, sqrt(count) * whole),
        }
        if not inputs:
            return gradient, found
        mean, along = (x.scaled(1 / count, MEAN_SCALE) for x in (total, slope))
        rest = (dz - _row(mean) - unit * _row(along)).at(GRADIENT_SCALE)
        stretch, wrong = 1.05 * max(1.0, length**2 / count), 2.0 ** (3 - GRADIENT_SCALE)
        rest = rest.bounded(min(rest.bound, stretch * column + length * wrong))
        factor = _row(inverse) * _row(tape.weights["scale"].value)
        room = floor(RING_BITS - GRADIENT_SCALE - log2(rest.bound * factor.bound + 1.0))
        factor = factor.at(min(INVERSE_SCALE, room))
        norm = (stretch * whole + length * sqrt(shape[1]) * wrong) * factor.bound
        return Batch.of(_uncolumns(rest * factor, shape), norm), found


def _columns(x: Secret) -> Secret:
    """[rows, features] as it is; [rows, channels, h, w] as [rows h w, channels]."""
    if len(x.shape) == 2:
        return x
    rows, channels, height, width = x.shape
    return x.transpose(0, 2, 3, 1).reshape(rows * height * width, channels)


def _uncolumns(x: Secret, shape: Shape) -> Secret:
    """The reverse of `_columns`."""
    if len(shape) == 2:
        return x
    rows, channels, height, width = shape
    return x.reshape(rows, height, width, channels).transpose(0, 3, 1, 2)


def _row(x: Secret) -> Secret:
    """A number a column, as a row that broadcasts."""
    return x.reshape(1, prod(x.shape))
