"""What a job trains: one of the linear models, or a network of layers; and how it steps."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from masque.jobs.layers import MOST_UNITS, Layers
from masque.jobs.section import Name, Real, Section

LinearKind = Literal["linear_regression", "logistic_regression", "softmax_regression"]
ModelKind = Literal["linear_regression", "logistic_regression", "softmax_regression", "sequential"]
NetworkName = Literal["a", "b", "c", "d"]
Loss = Literal["squared_error", "binary_cross_entropy", "softmax_cross_entropy"]


class LinearSpec(Section):
    """A linear model. Every weight and the intercept stay within +-`weight_bound`."""

    kind: LinearKind = Field(examples=["logistic_regression"])
    l2: Annotated[Real, Field(ge=0, le=100)] = 0.0
    fit_intercept: bool = True
    weight_bound: Annotated[Real, Field(ge=0.125, le=65536)] = 64.0


def _shape(value: Any) -> Any:
    """[features], or [channels, height, width]."""
    found = tuple(value) if isinstance(value, list | tuple) else ()
    if len(found) not in (1, 3) or any(type(x) is not int or x < 1 for x in found):
        raise PydanticCustomError("shape", "one or three whole numbers")
    if max(found) > MOST_UNITS:
        raise PydanticCustomError("shape", "one or three whole numbers")
    return found


InputShape = Annotated[tuple[int, ...], BeforeValidator(_shape)]


class SequentialSpec(Section):
    """A network: layers in a row, given or one of those that the field measures itself by.

    No unit's incoming weights are longer than `weight_bound`; training that goes on in good health
    keeps every row's activations (in root mean square) and gradient within the other two.
    """

    kind: Literal["sequential"]
    network: NetworkName | None = None
    input_shape: InputShape | None = None
    layers: Layers | None = None
    loss: Loss | None = None
    l2: Annotated[Real, Field(ge=0, le=100)] = 0.0
    weight_bound: Annotated[Real, Field(ge=0.125, le=1024)] = 8.0
    activation_bound: Annotated[Real, Field(ge=1, le=1024)] = 16.0
    gradient_bound: Annotated[Real, Field(ge=1, le=65536)] = 64.0
    start_from: Name | None = None


ModelSpec = Annotated[LinearSpec | SequentialSpec, Field(discriminator="kind")]


class SgdSpec(Section):
    """Stochastic gradient descent: v <- momentum v - rate gradient; w <- w + v."""

    kind: Literal["sgd"]
    learning_rate: Annotated[Real, Field(gt=0, le=100)] = Field(examples=["0.1"])
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.0


class AdamSpec(Section):
    """Steps of about `learning_rate` for every weight, by running moments of its gradient."""

    kind: Literal["adam"]
    learning_rate: Annotated[Real, Field(gt=0, le=1)] = Field(examples=["0.001"])
    beta1: Annotated[Real, Field(ge=0, le=0.999)] = 0.9
    beta2: Annotated[Real, Field(ge=0.5, le=0.9999)] = 0.999
    epsilon: Annotated[Real, Field(ge=1e-5, le=1)] = 1e-4


OptimizerSpec = Annotated[SgdSpec | AdamSpec, Field(discriminator="kind")]
