"""Secrets as values of a program: they refuse to be looked at, and a value is masked once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from masque.errors import RangeError
from masque.mpc import functions
from masque.mpc.public import constant
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from tests.mpc.harness import PARTIES, Clear, block_of, encode, evaluate


@pytest.fixture
def x() -> Secret:
    return Trace("test", 2).input("x", (3, 2), 16, 8.0)


LOOKS: dict[str, Callable[[Any], object]] = {
    "bool": bool,
    "not": lambda x: not x,
    "if": lambda x: 1 if x else 0,
    "int": int,
    "float": float,
    "complex": complex,
    "index": lambda x: [1, 2, 3][x],
    "round": round,
    "iter": list,
    "unpack": lambda x: [*x],
    "in": lambda x: 1 in x,
    "sum": sum,
    "len": len,
    "equal": lambda x: x == 0,
    "not equal": lambda x: x != 0,
    "equal secret": lambda x: x == x,  # noqa: PLR0124
    "less": lambda x: x < 0,
    "at least": lambda x: x >= 0,
    "abs": abs,
    "range": range,
    "numpy array first": lambda x: np.ones((3, 2)) < x,
    "ufunc": np.sqrt,
    "ufunc of two": lambda x: np.maximum(x, 0),
    "secret index": lambda x: np.arange(3)[x],
    "where": lambda x: np.where(x, 1, 0),
    "format": lambda x: f"{x:.3f}",
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_secret_cannot_be_looked_at(x: Secret, name: str) -> None:
    with pytest.raises((TypeError, IndexError, ValueError)):
        LOOKS[name](x)


def test_a_secret_bit_cannot_be_looked_at(x: Secret) -> None:
    bit: Any = functions.less(x)
    with pytest.raises(TypeError, match="where"):
        bool(bit)
    for look in (int, float, list, len):
        with pytest.raises(TypeError):
            look(bit)
    with pytest.raises(TypeError):
        bit == bit  # noqa: B015, PLR0124


def test_numpy_does_not_take_a_secret_apart(x: Secret) -> None:
    for made in (np.ones((3, 2)) + x, np.float64(2.0) * x, np.ones((3, 2)) - x):
        assert isinstance(made, Secret)
        assert made.shape == (3, 2)


def test_a_secret_shows_its_shape_only(x: Secret) -> None:
    assert repr(x) == "Secret(shape=(3, 2), scale=16, bound=8)"


def opened(function: Callable[[Secret], Secret], parties: int = 2) -> list[str]:
    """Runs `function` and returns the operations of its openings."""
    rng = np.random.default_rng(1)
    clear = Clear(encode(rng.uniform(-8, 8, (20, 5)), 16), 16, 8.0)
    outcome = evaluate(function, [clear], parties)
    block = block_of(outcome.program)
    return [node.op for step in block.steps for node in step.opened]


def test_a_value_is_masked_once() -> None:
    uses: list[Callable[[Secret], Secret]] = [
        lambda x: x * x + x.at(8) * x,
        lambda x: x.T @ x + (x.T @ x),
        lambda x: x[1:] * x[:-1],
        lambda x: functions.less(x).value() * (-x),
        lambda x: (x + x) * (x - 3.0) * constant(x.graph, 0.5, 1),
        lambda x: x.bounded(4.0) * x,
        lambda x: x.halved(2) * x.bounded(2.0),
    ]
    for use, masks in zip(uses, (2, 1, 2, 2, 2, 1, 1), strict=True):
        assert opened(use).count("mask") == masks


@pytest.mark.parametrize("parties", PARTIES)
def test_the_same_number_under_another_name(parties: int) -> None:
    """`bounded` and `halved` read the same ring elements: one mask, one set of its bits."""

    def compare(x: Secret) -> Secret:
        names = [x, x.bounded(7.99), x.halved(1), x.halved(2)]
        bits = [functions.less(name).value() for name in names]
        return bits[0] + bits[1] * 2.0 + bits[2] * 4.0 + bits[3] * 8.0

    rng = np.random.default_rng(2)
    clear = Clear(encode(rng.uniform(-7.9, 7.9, (20, 5)), 16), 16, 8.0)
    outcome = evaluate(compare, [clear], parties)
    np.testing.assert_array_equal(outcome.got["y"], np.where(clear.values < 0, 15, 0))
    block = block_of(outcome.program)
    assert [node.op for node in block.nodes.values()].count("mask") == 1


def test_what_could_leave_the_ring_is_refused(x: Secret) -> None:
    with pytest.raises(RangeError, match="leaves the ring"):
        _ = x * x * x * x
    with pytest.raises(RangeError, match="leaves the ring"):
        x.graph, _ = x.graph, x.at(60)
    with pytest.raises(RangeError, match="takes"):
        functions.less(x, 1e30)
    with pytest.raises(RangeError, match="fewer first"):
        functions.sigmoid(x.at(56))
    with pytest.raises(RangeError, match="below the resolution"):
        functions.reciprocal(x, 2.0**-20)


def test_bounds_follow_values(x: Secret) -> None:
    assert (x + x).bound == 16.0
    assert (x - 2.0).bound == 10.0
    assert (x * x).bound == 64.0
    assert (x.T @ x).bound == 192.0
    assert x.sum(axis=0).bound == 24.0
    assert x.sum().bound == 48.0
    assert x.at(4).bound == 8.0 + 2.0**-3
    assert x.column_dot(x).bound == 192.0
