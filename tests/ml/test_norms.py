"""The norms that a network's bounds rest on: nothing that keeps within them leaves its bounds.

In the clear every truncation and comparison asserts that what it works on is within the bound that
was planned for it. So parameters as large as they may be and rows that make the most of them are
taken through a step: limits on activations and gradients are so wide here that nothing is checked
but parameters, and every bound has to follow from norms alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, row_bounds
from masque.ml.learning import Learning
from masque.ml.network import Adam, Network, Sgd
from masque.ml.passes import Norms
from masque.ml.task import Task
from masque.mpc.public import public_array
from masque.mpc.types import Ring

from . import examples
from .examples import Reals
from .test_layers import NETWORKS, ROWS

SHORT = 0.95
"""Of a limit: sure to be no violation."""
SLACK = 1 + 2.0**-9


def wide(network: Network) -> Network:
    """The same with limits on activations and gradients that nothing reaches."""
    return replace(network, weight_bound=1.0, activation_bound=1024.0, gradient_bound=65536.0)


def norms(value: Reals) -> Norms:
    """Of a parameter; of weights [inputs, units] or [units, inputs, ...]."""
    whole = float(np.linalg.norm(value))
    flat = value.reshape(len(value), -1)
    if value.ndim == 2:
        flat = flat.T
    into, out = np.linalg.norm(flat, axis=1), np.linalg.norm(flat, axis=0)
    if value.ndim == 1:
        return Norms(whole, whole, whole, float(np.abs(value).max()))
    out_of = whole if value.ndim == 4 else float(out.max())
    return Norms(float(into.max()), out_of, whole, float(np.abs(value).max()))


def shares(found: Norms, limit: Norms) -> list[float]:
    """Of every limit, how much of it is taken."""
    pairs = zip(vars_of(found), vars_of(limit), strict=True)
    return [of / most for of, most in pairs]


def vars_of(found: Norms) -> tuple[float, float, float, float]:
    """In order."""
    return found.into, found.out, found.whole, found.element


def extreme(shape: tuple[int, ...], limit: Norms, draw: np.random.Generator) -> Reals:
    """A parameter that takes all of one of its norms: even, aligned, or in few elements."""
    value: Reals
    match int(draw.integers(4)):
        case 0:
            value = np.ones(shape)
        case 1:
            value = draw.choice([-1.0, 1.0], shape)
        case 2:
            value = draw.normal(size=shape)
        case _:
            value = np.zeros(shape)
            for _ in range(3):
                value[tuple(draw.integers(0, shape))] = draw.choice([-1.0, 1.0])
    return value * SHORT / max(shares(norms(value), limit))


def rows_of(task: Task, draw: np.random.Generator) -> tuple[Reals, Reals]:
    """Rows at the ends of their range, and labels."""
    x = draw.choice([-1.0, 1.0], (ROWS, task.features))
    if draw.integers(2):
        x = np.ones_like(x)
    return x, examples.one_hot(np.arange(ROWS) % 3)


def inputs_of(learning: Learning, draw: np.random.Generator) -> dict[str, Ring]:
    """Parameters within what a check lets pass."""
    found = {}
    for name, parameter in learning.parameters.items():
        value = extreme(parameter.shape, learning.standing(name), draw)
        found[name] = public_array(
            np.abs(value) if not parameter.trained else value, learning.scale
        )
    return found


RULES: list[dict[str, Any]] = [
    {"optimizer": Sgd(0.9), "l2": 0.1},
    {"optimizer": Adam(), "l2": 0.1, "learning_rates": (0.001,)},
    {"gradient_clip": 0.25},
]


CASES = [(name, 0) for name in NETWORKS]
CASES += [(name, 1) for name in ("relu twice", "conv2d with strides", "batch norm")]
CASES += [(name, 2) for name in ("three dense", "max pool that overlaps", "batch norm of channels")]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_parameters_at_their_limits_keep_everything_within_bounds(name: str, number: int) -> None:
    network, draw = wide(NETWORKS[name]), np.random.default_rng(number)
    width = int(np.prod(network.input_shape))
    fields = {"learning_rates": (0.1,)} | RULES[number]
    table = np.zeros((ROWS, width + 3))
    task = examples.task_on(table, "softmax", 3, network=network, batch_size=ROWS, **fields)
    task = replace(task, intercept=False)
    learning = Learning(task, row_bounds(task))
    call = next(learning.calls(0, 0, 1))
    for _ in range(4):
        x, y = rows_of(task, draw)
        values = inputs_of(learning, draw)
        values |= {"X": public_array(x, FEATURE_SCALE), "y": public_array(y, DATA_SCALE)}
        for other, node in call.block.inputs.items():
            values.setdefault(other, np.zeros(call.block.nodes[node].shape, dtype=np.uint64))
        after = examples.run_block(call.block, values, call.arguments)
        assert after["violations"] == 0
        for parameter, limit in learning.before.items():
            if parameter in after:
                found = norms(after[parameter] / 2.0**learning.scale)
                assert max(shares(found, limit)) < SLACK, parameter


@pytest.mark.parametrize("name", ["relu twice", "conv2d of conv2d"])
def test_parameters_between_their_limit_and_what_a_step_may_do_are_found(name: str) -> None:
    network, draw = wide(NETWORKS[name]), np.random.default_rng(9)
    table = np.zeros((ROWS, int(np.prod(network.input_shape)) + 3))
    task = examples.task_on(table, "softmax", 3, network=network, batch_size=ROWS)
    learning = Learning(replace(task, intercept=False), row_bounds(task))
    check = next(learning.checks("check"))
    for wrong in (None, *learning.parameters):
        values, beyond = inputs_of(learning, draw), 0.0
        if wrong:
            value = extreme(learning.parameters[wrong].shape, learning.before[wrong], draw)
            value /= SHORT * SLACK
            values[wrong] = public_array(value, learning.scale)
            beyond = max(shares(norms(value), learning.standing(wrong)))
        values["violations"] = np.zeros(1, dtype=np.uint64)
        found = examples.run_block(check.block, values, check.arguments)
        assert (found["violations"] > 0) == (beyond > 1), wrong
        assert found["within bounds"] == (found["violations"] == 0)
