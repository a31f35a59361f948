"""Networks: layers in a row, the limits that training keeps within, and four networks of the field.

A, B, C and D are those that secure training is measured by: P. Mohassel and Y. Zhang, "SecureML"
(IEEE S&P 2017), with 128 units a layer; J. Liu et al., "MiniONN" (CCS 2017); Y. LeCun et al.,
"Gradient-based learning applied to document recognition" (1998); M. Riazi et al., "Chameleon"
(AsiaCCS 2018); in the form of S. Wagh et al., "SecureNN" (PETS 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from masque.errors import SpecError
from masque.ml.layers import Conv2d, Dense, Flatten, Layer, MaxPool, Parameter, Relu
from masque.mpc import prg
from masque.mpc.types import Shape


@dataclass(frozen=True)
class Sgd:
    """v <- momentum v - rate gradient; w <- w + v."""

    momentum: float = 0.0


@dataclass(frozen=True)
class Adam:
    """D. Kingma and J. Ba, "Adam" (ICLR 2015), with epsilon inside of the root."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-4


Optimizer = Sgd | Adam


@dataclass(frozen=True)
class Network:
    """Layers in a row; rows of a data set enter as `input_shape`, in C order.

    No unit's incoming weights are longer than `weight_bound`, no row's activations larger than
    `activation_bound` in root mean square, no row's gradient longer than `gradient_bound`; a job
    that leaves these bounds ends with an error.
    """

    input_shape: Shape
    layers: tuple[Layer, ...]
    weight_bound: float = 8.0
    activation_bound: float = 16.0
    gradient_bound: float = 64.0

    def shapes(self) -> tuple[Shape, ...]:
        """Of a row before each layer, and after the last.

        Errors: SpecError naming the layer that does not fit.
        """
        found = [self.input_shape]
        for index, layer in enumerate(self.layers):
            try:
                found.append(layer.output_shape(found[-1]))
            except ValueError as error:
                raise SpecError(
                    f"layer {index} does not fit: {error}.",
                    hint="Change it, or the layers or model.input_shape before it.",
                    field=f"model.layers.{index}",
                ) from None
        return tuple(found)

    def parameters(self) -> dict[str, Parameter]:
        """Of all layers: "<index>.<name>", in order."""
        shapes = self.shapes()
        return {
            f"{index}.{name}": parameter
            for index, layer in enumerate(self.layers)
            for name, parameter in layer.parameters(shapes[index]).items()
        }

    def initial(self, seed: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """How each parameter starts, from the public seed of the job."""
        for name, parameter in self.parameters().items():
            if parameter.gain:
                deviation = sqrt(parameter.gain / parameter.fan_in)
                yield name, deviation * normal(seed, f"start of {name}", parameter.shape)
            else:
                yield name, np.full(parameter.shape, parameter.start)


def normal(seed: int, label: str, shape: Shape) -> NDArray[np.float64]:
    """Public, normally distributed numbers, the same on every machine to the last bit.

    Sums of twelve uniform numbers of 16 bits, less their mean: whole numbers until the division.
    """
    count = int(np.prod(shape))
    stream = prg.Stream(prg.derive(bytes(prg.SEED_SIZE), "public numbers", seed, label))
    drawn = stream.expand(0, 24 * count).view("<u2").reshape(count, 12)
    total = drawn.astype(np.int64).sum(axis=1) * 2 - 12 * 65535
    return np.asarray(total.reshape(shape) / 131072.0)


IMAGE: Shape = (1, 28, 28)


def network_a() -> tuple[Shape, tuple[Layer, ...]]:
    """Three dense layers: 784-128-128-10."""
    return (784,), (Dense(128), Relu(), Dense(128), Relu(), Dense(10))


def network_b() -> tuple[Shape, tuple[Layer, ...]]:
    """Two convolutions of 16 channels, two dense layers (MiniONN)."""
    return IMAGE, (
        *(Conv2d(16, (5, 5)), MaxPool((2, 2), (2, 2)), Relu()),
        *(Conv2d(16, (5, 5)), MaxPool((2, 2), (2, 2)), Relu()),
        *(Flatten(), Dense(100), Relu(), Dense(10)),
    )


def network_c() -> tuple[Shape, tuple[Layer, ...]]:
    """LeNet: convolutions of 20 and 50 channels, two dense layers."""
    return IMAGE, (
        *(Conv2d(20, (5, 5)), MaxPool((2, 2), (2, 2)), Relu()),
        *(Conv2d(50, (5, 5)), MaxPool((2, 2), (2, 2)), Relu()),
        *(Flatten(), Dense(500), Relu(), Dense(10)),
    )


def network_d() -> tuple[Shape, tuple[Layer, ...]]:
    """One convolution of 5 channels with stride 2, two dense layers (Chameleon)."""
    return IMAGE, (
        *(Conv2d(5, (5, 5), stride=(2, 2), padding=(2, 2)), Relu()),
        *(Flatten(), Dense(100), Relu(), Dense(10)),
    )


NETWORKS: Mapping[str, tuple[Shape, tuple[Layer, ...]]] = {
    "a": network_a(),
    "b": network_b(),
    "c": network_c(),
    "d": network_d(),
}
"""Input shape and layers, by name."""
