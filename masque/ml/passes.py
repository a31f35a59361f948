"""Forward and backward passes of a network inside a block, with its parameters and their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod, sqrt

from masque.ml.guards import Guards
from masque.ml.layers.base import Batch, Gradients, Parameter, Tape, Weight
from masque.ml.network import Network
from masque.ml.record import Record
from masque.mpc.program import Ref
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from masque.mpc.types import Shape

FEW = 1 << 15  # elements
FEW_COPIED, ALL_COPIED = 18, 16  # fraction bits at which parameters may be copied to be checked


@dataclass(frozen=True)
class Norms:
    """Of a parameter, at most: into a unit, out of an input, of the whole; of single elements."""

    into: float
    out: float
    whole: float
    element: float

    def plus(self, into: float, out: float, whole: float) -> Norms:
        """After a change of these norms."""
        return Norms(
            self.into + into,
            self.out + out,
            self.whole + whole,
            self.element + min(into, out, whole),
        )


def limits(parameter: Parameter, bound: float) -> Norms:
    """What a trained parameter keeps within: its units' weights `bound`, by norm.

    What leaves an input may be longer as more leaves it than enters a unit; a vector of one number
    a unit is `bound` in root mean square.
    """
    shape = parameter.shape
    if len(shape) == 1:
        whole = bound * sqrt(shape[0])
        return Norms(whole, whole, whole, whole)
    if len(shape) == 4:
        whole = bound * sqrt(shape[0])
        return Norms(bound, whole, whole, bound)
    out = bound * max(1.0, sqrt(shape[1] / shape[0]))
    return Norms(bound, out, min(bound * sqrt(shape[1]), out * sqrt(shape[0])), min(bound, out))


def check(guards: Guards, value: Secret, before: Norms, limit: Norms) -> None:
    """A parameter that is within `before`, against its limits, as far as these are narrower.

    A copy with fewer fraction bits has to be opened as well. Where that is what it takes, a
    parameter has fewer fraction bits itself; but not too few.
    """
    few = prod(value.shape) <= FEW
    coarse = value.scale <= (FEW_COPIED if few else ALL_COPIED)
    if len(value.shape) == 1:
        if before.whole > limit.whole:
            row = value.reshape(1, value.shape[0])
            guards.rows(row, before.whole, limit.whole, coarse=coarse)
        return
    if before.into > limit.into:
        into = guards.rows if len(value.shape) == 4 else guards.columns
        into(value, before.into, limit.into, coarse=coarse)
    if len(value.shape) == 2 and before.out > limit.out:
        guards.rows(value, before.out, limit.out, coarse=coarse)


def register(name: str) -> str:
    """The register of a parameter."""
    return f"parameter {name}"


def refs(network: Network) -> dict[str, Ref]:
    """All parameters, as inputs of a call."""
    return {name: Ref(register(name)) for name in network.parameters()}


class Passes:
    """A network in a block: parameters are read when it is made.

    `before`: norms that parameters are within for sure, by name; those beyond what they are to be
    within are checked. `record`: what was found out about values on the way.
    """

    def __init__(
        self,
        trace: Trace,
        network: Network,
        before: Mapping[str, Norms],
        scale: int,
        *,
        training: bool,
    ) -> None:
        self.trace, self.network, self.scale = trace, network, scale
        self.guards = Guards()
        self.record = Record(trace.graph, self.guards)
        self.weights = {
            name: self._weight(name, parameter, before[name])
            for name, parameter in network.parameters().items()
        }
        self.tapes = [self._tape(index, training=training) for index in range(len(network.layers))]

    def _weight(self, name: str, parameter: Parameter, before: Norms) -> Weight:
        value = self.trace.input(name, parameter.shape, self.scale, before.element)
        index, what = name.split(".")
        with self.record.entry(int(index), what) as add:
            if not parameter.trained:
                add(value, before.whole)
                return Weight(value, before.into, before.out, before.whole)
            limit = limits(parameter, self.network.weight_bound)
            check(self.guards, value, before, limit)
            value = value.bounded(min(before.element, limit.element))
            add(value, min(before.into, limit.into))
        return Weight(
            value,
            min(before.into, limit.into),
            min(before.out, limit.out),
            min(before.whole, limit.whole),
        )

    def _tape(self, index: int, *, training: bool) -> Tape:
        def argument(name: str, shape: Shape, scale: int, bound: float):  # type: ignore[no-untyped-def]
            return self.trace.argument(f"{name} {index}", shape, scale, bound)

        prefix = f"{index}."
        weights = {
            name.removeprefix(prefix): weight
            for name, weight in self.weights.items()
            if name.startswith(prefix)
        }
        network = self.network
        return Tape(
            self.guards,
            weights,
            network.activation_bound,
            network.gradient_bound,
            training=training,
            argument=argument,
        )

    def forward(self, x: Secret, norm: float) -> Batch:
        """Scores of rows x [rows, features], none of them longer than `norm`."""
        batch = Batch.of(x.reshape(x.shape[0], *self.network.input_shape), norm)
        self.record.add(None, "rows", batch.value, batch.norm)
        for index, (layer, tape) in enumerate(zip(self.network.layers, self.tapes, strict=True)):
            with self.record.entry(index, "values") as add:
                batch = layer.forward(batch, tape)
                add(batch.value, batch.norm)
        return batch

    def backward(self, gradient: Batch) -> Gradients:
        """Gradients by all trained parameters, from that by the scores."""
        found: Gradients = {}
        first = self._first_with_parameters()
        for index in range(len(self.network.layers) - 1, first - 1, -1):
            layer, tape = self.network.layers[index], self.tapes[index]
            with self.record.entry(index, "gradient") as add:
                gradient, by_name = layer.backward(gradient, tape, inputs=index > first)
                add(gradient.value, gradient.norm)
            for name, value in by_name.items():
                found[f"{index}.{name}"] = value
                self.record.add(index, f"gradient of {name}", value.value, value.whole)
        return found

    def _first_with_parameters(self) -> int:
        return min(int(name.split(".")[0]) for name in self.network.parameters())

    def updates(self) -> dict[str, Secret]:
        """New values of parameters that are not trained."""
        return {
            f"{index}.{name}": value
            for index, tape in enumerate(self.tapes)
            for name, value in tape.updates.items()
        }

    def means(self) -> dict[str, tuple[float, float]]:
        """Bounds of elements and norms of what parameters that are not trained are means of."""
        return {
            f"{index}.{name}": bound
            for index, tape in enumerate(self.tapes)
            for name, bound in tape.means.items()
        }


def widest(network: Network) -> int:
    """Elements of a row where it has most of them."""
    return max(prod(shape) for shape in network.shapes())
