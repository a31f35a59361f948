"""Convolutions: z = x * W + b, a cross-correlation as in every framework."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod, sqrt
from typing import ClassVar

from masque.ml.layers.base import Batch, Gradient, Gradients, Layer, Parameter, Tape
from masque.mpc.secret import product
from masque.mpc.types import Shape

Pair = tuple[int, int]


@dataclass(frozen=True)
class Conv2d(Layer):
    """z = x * W + b with x [channels, height, width], W [channels out, channels in, kh, kw]."""

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    bias: bool = True
    kind: ClassVar[str] = "conv2d"

    def output_shape(self, shape: Shape) -> Shape:
        """[channels, height', width']."""
        if len(shape) != 3:
            raise ValueError(f"conv2d reads [channels, height, width], not {shape}")
        if any(p >= k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(f"a padding of {self.padding} is not below the kernel {self.kernel}")
        sizes = zip(shape[1:], self.kernel, self.stride, self.padding, strict=True)
        out = [(size + 2 * p - k) // s + 1 for size, k, s, p in sizes]
        if min(out) < 1:
            raise ValueError(f"a kernel of {self.kernel} is larger than rows of {shape}")
        return (self.channels, *out)

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        """weight [channels out, channels in, kh, kw], bias [channels out]."""
        weight = (self.channels, shape[0], *self.kernel)
        found = {"weight": Parameter(weight, gain=2.0, fan_in=prod(weight[1:]))}
        return found | ({"bias": Parameter((self.channels,))} if self.bias else {})

    @property
    def _spread(self) -> float:
        """Root of the windows that an element lies in: how far a row's norm may grow by it."""
        return sqrt(prod(ceil(k / s) for k, s in zip(self.kernel, self.stride, strict=True)))

    def forward(self, x: Batch, tape: Tape) -> Batch:
        """x * W + b. Rounds: x, and W once a step, are masked."""
        x, w = tape.reading(x), tape.weights["weight"]
        params = (self.stride, self.padding)
        z = product("conv2d", x.value, w.value, x.norm * w.into, params)
        norm = x.norm * self._spread * w.whole
        if self.bias:
            bias = tape.weights["bias"]
            z = z + bias.value.reshape(1, self.channels, 1, 1)
            norm += bias.whole * sqrt(prod(z.shape[2:]))
        return Batch.of(z, norm)

    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """dW, db, dx: the other two bilinear functions of the same convolution."""
        x, w, dz = tape.x, tape.weights["weight"], tape.returning(gradient)
        params = (self.stride, self.padding)
        places = prod(dz.value.shape[2:])
        largest = dz.rows * min(
            x.norm * dz.norm,
            places * x.value.bound * dz.value.bound,
            sqrt(places) * x.value.bound * dz.norm,
        )
        dw = product("conv2d_weights", x.value, dz.value, largest, (*params, self.kernel))
        found = {"weight": Gradient.of(dw, dz.rows * self._spread * x.norm * dz.norm)}
        if self.bias:
            db = dz.value.sum(axis=0).sum(axis=-1).sum(axis=-1)
            found["bias"] = Gradient.of(db, dz.rows * sqrt(places) * dz.norm)
        if not inputs:
            return dz, found
        params = (*params, x.value.shape[2:])  # type: ignore[assignment]
        dx = product("conv2d_input", dz.value, w.value, dz.norm * w.whole, params)
        return Batch.of(dx, dz.norm * self._spread * w.whole), found
