"""Where a network starts: at public numbers, or at a model that its owner has shared."""

from __future__ import annotations

from math import prod, sqrt

from masque.ml.bounds import DATA_SCALE
from masque.ml.guards import Guards
from masque.ml.layers.base import Parameter
from masque.ml.passes import Norms, check
from masque.ml.task import Table
from masque.mpc.functions import clip
from masque.mpc.program import Input, Ref
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace

SHARED_BOUND = 1024.0
"""No number of a shared model is larger; their range is public, and the same for all."""


def shared(table: Table) -> dict[str, Input]:
    """The inputs of a program that starts from a shared model: a number a row."""
    return {table.name: Input(table.name, table.rows, 1, DATA_SCALE)}


def places(table: Table, parameters: dict[str, Parameter]) -> dict[str, Ref]:
    """Where each parameter lies in a shared model, one after the other."""
    found, start = {}, 0
    for name, parameter in parameters.items():
        stop = start + prod(parameter.shape)
        found[name] = Ref(table.name, slice(start, stop))
        start = stop
    assert start == table.rows, "the model has as many numbers as the network"
    return found


class SharedStart:
    """The parameters of a shared model inside a block, checked against their limits.

    Numbers beyond what a parameter may hold are limited, so that all squares are sure to fit; as
    their norm is then at its limit, the check finds it.
    """

    def __init__(self, trace: Trace, scale: int) -> None:
        self.trace, self.scale, self.guards = trace, scale, Guards()

    def parameter(self, name: str, parameter: Parameter, limit: Norms) -> Secret:
        """One parameter, its elements within `limit`."""
        size, shape = prod(parameter.shape), parameter.shape
        given = self.trace.input(f"start of {name}", (size, 1), DATA_SCALE, SHARED_BOUND)
        value = clip(given.at(self.scale), -limit.element, limit.element).reshape(*shape)
        if parameter.trained:
            within = _within(shape, limit.element)
            check(self.guards, value, within, limit)
        return value


def _within(shape: tuple[int, ...], element: float) -> Norms:
    """Norms of an array whose elements are within +-`element`."""
    size = prod(shape)
    into = size if len(shape) == 1 else size / (shape[1] if len(shape) == 2 else shape[0])
    out = size / shape[0] if len(shape) == 2 else size
    return Norms(element * sqrt(into), element * sqrt(out), element * sqrt(size), element)
