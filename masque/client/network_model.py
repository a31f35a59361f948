"""A trained network as its recipient uses it: parameters as trained, inputs as their owners have
them. What was done to the columns before training is done here to every row that is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from masque.client.forward import forward
from masque.client.predictor import AT_BOUND, Floats, Predictor, Target, shaped
from masque.data.table import FeatureColumn, LabelInfo
from masque.jobs.networks import described
from masque.ml.network import Network


@dataclass(frozen=True)
class Preprocessing:
    """x' = ((x - middle) / half - mean) * inverse_deviation, each [features]."""

    middle: Floats
    half: Floats
    mean: Floats
    inverse_deviation: Floats

    def __call__(self, X: Floats) -> Floats:
        """Rows as the network was trained on them."""
        found: Floats = ((X - self.middle) / self.half - self.mean) * self.inverse_deviation
        return found


@dataclass(frozen=True)
class NetworkModel(Predictor):
    """A network; `parameters` by "<layer index>.<name>", see `masque.ml.network`.

    Scores of a model of numbers are mapped back to `label_middle + label_half * score`.
    """

    network: Network
    preprocessing: Preprocessing = field(repr=False)
    parameters: Mapping[str, Floats] = field(repr=False)
    label_middle: float = 0.0
    label_half: float = 1.0

    @property
    def target(self) -> Target:
        """By the classes and the number of scores."""
        if not self.classes:
            return "number"
        return "binary" if self.network.shapes()[-1] == (1,) else "classes"

    def scores(self, X: Floats) -> Floats:
        """The forward pass, in float64."""
        found = forward(self.network, self.parameters, self.preprocessing(X))
        return found * self.label_half + self.label_middle if self.target == "number" else found

    def arrays(self) -> dict[str, Floats]:
        """Parameters in order, then what `Preprocessing` holds."""
        return {**self.parameters, **vars(self.preprocessing)}

    def description(self) -> dict[str, Any]:
        """The network as a job file has it, and the label's units."""
        return {
            **architecture(self.network),
            "weight_bound": self.network.weight_bound,
            "activation_bound": self.network.activation_bound,
            "gradient_bound": self.network.gradient_bound,
            "label_middle": self.label_middle,
            "label_half": self.label_half,
        }

    def lines(self) -> Iterator[tuple[int, str, str, int]]:
        """Of every layer: index, kind, shape of a row that leaves it, count of its parameters."""
        shapes, all_parameters = self.network.shapes(), self.network.parameters()
        for index, layer in enumerate(self.network.layers):
            own = [p for name, p in all_parameters.items() if name.startswith(f"{index}.")]
            shape = "x".join(map(str, shapes[index + 1]))
            yield index, layer.kind, shape, sum(prod(p.shape) for p in own)


def architecture(network: Network) -> dict[str, Any]:
    """`input_shape` and `layers` as a job file has them, ready for JSON."""
    layers = [described(layer) for layer in network.layers]
    return {"input_shape": list(network.input_shape), "layers": layers}


def network_model(
    network: Network,
    features: Sequence[FeatureColumn],
    label: LabelInfo,
    values: Mapping[str, Floats],
) -> NetworkModel:
    """The model from what a job put out: an array a parameter, and with standardisation mean and
    inverse_deviation [features].

    Raises ProtocolError if shapes do not belong to this network or these columns.
    """
    count = len(features)
    parameters = {
        name: shaped(values, name, parameter.shape)
        for name, parameter in network.parameters().items()
    }
    return NetworkModel(
        kind="sequential",
        features=tuple(feature.name for feature in features),
        label=label.name,
        classes=label.classes,
        network=network,
        preprocessing=Preprocessing(
            middle=np.array([feature.middle for feature in features]),
            half=np.array([feature.half for feature in features]),
            mean=shaped(values, "mean", (count,), np.zeros(count)),
            inverse_deviation=shaped(values, "inverse_deviation", (count,), np.ones(count)),
        ),
        parameters=parameters,
        label_middle=label.middle,
        label_half=label.half,
        warnings=tuple(_warnings(network, parameters)),
    )


def _warnings(network: Network, parameters: Mapping[str, Floats]) -> Iterator[str]:
    """One for the first layer with a unit whose incoming weights are as long as they may be."""
    for index, layer in enumerate(network.layers):
        weight = parameters.get(f"{index}.weight")
        if weight is None:
            continue
        units = weight.T if layer.kind == "dense" else weight
        largest = np.linalg.norm(units.reshape(len(units), -1), axis=1).max()
        if largest >= network.weight_bound * (1 - AT_BOUND):
            yield (
                f"The weights into a unit of layer {index} ({layer.kind}) sit at the weight bound"
                f" ({network.weight_bound:g}): training may have diverged; lower the learning"
                " rate, or raise model.weight_bound."
            )
            return
