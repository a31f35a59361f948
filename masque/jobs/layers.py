"""The layers of a network in a job file: a list of them, each a word or a group with its kind.

`masque.jobs.networks` turns them into those that training knows, and back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from masque.jobs.section import Real, Section, listed

WIDEST = 64
"""Largest kernel, window, stride and padding, either way."""

MOST_LAYERS = 64
MOST_UNITS = 65_536
MOST_CHANNELS = 4096


def _pair(least: int) -> Callable[[Any], Any]:
    """A check of two whole numbers, down and right; one of them stands for both."""

    def check(value: Any) -> Any:
        single = isinstance(value, int)
        found = (value, value) if single else tuple(value) if _is_list(value) else ()
        fits = all(type(x) is int and least <= x <= WIDEST for x in found)
        if len(found) != 2 or not fits:
            limits = {"least": least, "most": WIDEST}
            raise PydanticCustomError("pair", "one or two whole numbers", limits)
        return found

    return check


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


Pair = Annotated[tuple[int, int], BeforeValidator(_pair(1))]
Padding = Annotated[tuple[int, int], BeforeValidator(_pair(0))]


class DenseSpec(Section):
    """z = x W + b."""

    kind: Literal["dense"]
    units: Annotated[int, Field(ge=1, le=MOST_UNITS)] = Field(examples=["128"])
    bias: bool = True


class Conv2dSpec(Section):
    """z = x * W + b, a cross-correlation."""

    kind: Literal["conv2d"]
    channels: Annotated[int, Field(ge=1, le=MOST_CHANNELS)] = Field(examples=["16"])
    kernel: Pair = Field(examples=["5"])
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)
    bias: bool = True


class MaxPoolSpec(Section):
    """The largest of every window; windows do not overlap unless `stride` says so."""

    kind: Literal["max_pool"]
    size: Pair = Field(examples=["2"])
    stride: Pair | None = None


class AveragePoolSpec(Section):
    """The mean of every window; windows do not overlap unless `stride` says so."""

    kind: Literal["average_pool"]
    size: Pair = Field(examples=["2"])
    stride: Pair | None = None


class ReluSpec(Section):
    """max(z, 0)."""

    kind: Literal["relu"]


class SigmoidSpec(Section):
    """1 / (1 + exp(-z))."""

    kind: Literal["sigmoid"]


class TanhSpec(Section):
    """tanh(z)."""

    kind: Literal["tanh"]


class FlattenSpec(Section):
    """Channels, rows and columns in a row."""

    kind: Literal["flatten"]


class DropoutSpec(Section):
    """In training, a part of the values is left out; which is public."""

    kind: Literal["dropout"]
    rate: Annotated[Real, Field(ge=0, le=0.9)] = Field(examples=["0.2"])


class BatchNormSpec(Section):
    """Every feature or channel to mean 0 and deviation 1 over a batch."""

    kind: Literal["batch_norm"]
    momentum: Annotated[Real, Field(ge=0, le=0.999)] = 0.9
    epsilon: Annotated[Real, Field(ge=1e-4, le=1)] = 1e-3


def _worded(value: Any) -> Any:
    """A bare word is a layer without fields."""
    return {"kind": value} if isinstance(value, str) else value


LayerSpec = Annotated[
    DenseSpec
    | Conv2dSpec
    | MaxPoolSpec
    | AveragePoolSpec
    | ReluSpec
    | SigmoidSpec
    | TanhSpec
    | FlattenSpec
    | DropoutSpec
    | BatchNormSpec,
    Field(discriminator="kind"),
    BeforeValidator(_worded),
]
Layers = Annotated[
    tuple[LayerSpec, ...],
    BeforeValidator(listed),
    Field(min_length=1, max_length=MOST_LAYERS),
]
