"""Dense layers: z = x W + b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masque.ml.layers.base import Batch, Gradient, Gradients, Layer, Parameter, Tape
from masque.mpc.secret import product
from masque.mpc.types import Shape


@dataclass(frozen=True)
class Dense(Layer):
    """z = x W + b with W [inputs, units]."""

    units: int
    bias: bool = True
    kind: ClassVar[str] = "dense"

    def output_shape(self, shape: Shape) -> Shape:
        """[units]; rows must be flat."""
        if len(shape) != 1:
            raise ValueError(f"dense reads flat rows, not {shape}: put flatten before it")
        return (self.units,)

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        """weight [inputs, units], bias [units]."""
        found = {"weight": Parameter((shape[0], self.units), gain=2.0, fan_in=shape[0])}
        return found | ({"bias": Parameter((self.units,))} if self.bias else {})

    def forward(self, x: Batch, tape: Tape) -> Batch:
        """x W + b. Rounds: x, and W once a step, are masked."""
        x, w = tape.reading(x), tape.weights["weight"]
        z = product("matmul", x.value, w.value, x.norm * w.into)
        norm = x.norm * w.whole
        if self.bias:
            z, norm = z + tape.weights["bias"].value, norm + tape.weights["bias"].whole
        return Batch.of(z, norm)

    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """dW = x^T dz, db = sum of dz, dx = dz W^T."""
        x, w, dz = tape.x, tape.weights["weight"], tape.returning(gradient)
        largest = dz.rows * x.value.bound * dz.value.bound
        dw = product("matmul", x.value.T, dz.value, largest)
        found = {
            "weight": Gradient.of(
                dw,
                dz.rows * x.norm * dz.norm,
                into=dz.rows * x.norm * dz.value.bound,
                out=dz.rows * x.value.bound * dz.norm,
            )
        }
        if self.bias:
            found["bias"] = Gradient.of(dz.value.sum(axis=0), dz.rows * dz.norm)
        if not inputs:
            return dz, found
        dx = product("matmul", dz.value, w.value.T, dz.norm * w.out)
        return Batch.of(dx, dz.norm * w.whole), found
