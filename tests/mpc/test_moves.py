"""Moves of secrets: any order of axes, sums over several, the adjoint of indexing, pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from masque.mpc import functions
from masque.mpc.graph import Kind
from masque.mpc.indexing import indexed, key_of
from masque.mpc.secret import Secret, concatenate, place
from masque.mpc.trace import Trace
from tests.mpc.harness import PARTIES, Clear, Outcome, block_of, encode, evaluate

SHAPE = (2, 3, 4, 6)


def images(seed: int = 0) -> Clear:
    """Values of SHAPE at scale 16, a row an image."""
    draws = np.random.default_rng(seed).uniform(-100.0, 100.0, (2, 72))
    return Clear(encode(draws, 16), 16, 100.0)


def ran(function: Callable[[Secret], Secret], parties: int = 2) -> Outcome:
    """`function` of images."""
    return evaluate(lambda x: function(x.reshape(*SHAPE)), [images()], parties)


def exactly(function: Callable[[Secret], Secret], expected: object, parties: int = 2) -> None:
    np.testing.assert_array_equal(ran(function, parties).got["y"], expected)


X = images().values.reshape(SHAPE)
WINDOW = np.s_[:, :, 1::2, ::3]


@pytest.mark.parametrize("axes", [(), (0, 1, 2, 3), (3, 1, 0, 2), (0, 2, 3, 1), (-1, 0, 2, -3)])
@pytest.mark.parametrize("parties", PARTIES)
def test_axes_go_into_any_order(axes: tuple[int, ...], parties: int) -> None:
    exactly(lambda x: x.transpose(*axes), X.transpose(axes or None), parties)
    exactly(lambda x: (x + x.transpose(*axes).sum()).at(16), X + X.sum(), parties)


@pytest.mark.parametrize("axes", [(0, 1), (0, 1, 2, 4), (0, 1, 2, 2)])
def test_axes_that_there_are_not_are_refused(axes: tuple[int, ...]) -> None:
    x = Trace("test", 2).input("x", SHAPE, 16, 8.0)
    with pytest.raises(ValueError, match="ax"):
        x.transpose(*axes)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [(0, 2, 3), (1,), (-1, 0), ()])
def test_sums_go_over_several_axes(axis: tuple[int, ...], keepdims: bool) -> None:
    exactly(lambda x: x.sum(axis, keepdims=keepdims), X.sum(axis, keepdims=keepdims))
    x = Trace("test", 2).input("x", SHAPE, 16, 2.0)
    assert x.sum(axis).bound == 2.0 * X.size / X.sum(axis).size


INDICES: tuple[Any, ...] = (
    WINDOW,
    np.s_[0],
    np.s_[..., -1],
    np.s_[::-1, 2, :2],
    np.s_[:, np.array([2, 0])],
    np.s_[1, :, np.array([[0], [3]]), np.array([5, 1])],
)


def adjoint(values: np.ndarray, index: Any) -> np.ndarray:
    zeros = np.zeros(SHAPE, dtype=np.int64)
    zeros[index] = values[index]
    return zeros


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_what_was_taken_is_placed_again(index: Any, parties: int) -> None:
    expected = adjoint(X, index)
    exactly(lambda x: x[index].placed(SHAPE, index), expected, parties)
    product = ran(lambda x: x[index].placed(SHAPE, index) * x.broadcast(*SHAPE), parties)
    np.testing.assert_array_equal(product.got["y"], expected * X)
    cut = ran(lambda x: x[index].placed(SHAPE, index).at(5), parties)
    np.testing.assert_array_equal(cut.got["y"][expected == 0], 0)
    assert np.abs(cut.got["y"] - expected / 2**11).max() < 2
    sign = ran(lambda x: functions.less(x[index].placed(SHAPE, index)).value(), parties)
    np.testing.assert_array_equal(sign.got["y"], expected < 0)


def test_parts_are_placed_beside_each_other() -> None:
    def both(x: Secret) -> Secret:
        parts = [x[WINDOW].at(8), x[:, :, ::2] * 0.5]
        return place(parts, [WINDOW, np.s_[:, :, ::2]], SHAPE)

    outcome = ran(both)
    scale = outcome.program.outputs["y"].scale
    expected = adjoint(X, WINDOW) + adjoint(X, np.s_[:, :, ::2]) / 2
    assert np.abs(outcome.got["y"] / 2.0 ** (scale - 16) - expected).max() < 1.5 * 2**8


def test_placing_opens_only_what_is_placed() -> None:
    """The mask of a placed value is that of what was placed: zeros need none."""
    outcome = ran(lambda x: x[WINDOW].placed(SHAPE, WINDOW) * x[WINDOW].placed(SHAPE, WINDOW))
    sizes = [n.size for n in block_of(outcome.program).nodes.values() if n.op == "mask"]
    assert sizes == [X[WINDOW].size] * 2


@pytest.mark.parametrize(
    ("index", "what"),
    [
        (np.s_[:, :, 1::2], "cannot be placed"),
        (np.s_[:, :, np.array([1, 1]), ::3], "one place"),
    ],
)
def test_places_that_do_not_fit_are_refused(index: Any, what: str) -> None:
    x = Trace("test", 2).input("x", SHAPE, 16, 2.0)
    with pytest.raises(AssertionError, match=what):
        x[WINDOW].placed(SHAPE, index)


def test_two_parts_at_one_place_are_refused() -> None:
    x = Trace("test", 2).input("x", SHAPE, 16, 2.0)
    with pytest.raises(AssertionError, match="one place"):
        place([x[WINDOW], x[0]], [WINDOW, 0], SHAPE)


def test_an_index_is_read_as_it_was_written() -> None:
    for index in INDICES:
        shape, params = indexed(SHAPE, index)
        np.testing.assert_array_equal(X[key_of(params)], X[index])
        assert X[index].shape == shape
        assert hash(params) == hash(indexed(SHAPE, index)[1])
        assert repr(params) == repr(indexed(SHAPE, index)[1])


# -- what pooling takes --------------------------------------------------------------------------


def windows(x: Secret, size: int, stride: int) -> list[Secret]:
    """The elements of all windows, one place in them at a time: views."""
    ends = [(side - size) // stride * stride + 1 for side in x.shape[2:]]
    return [
        x[:, :, i : i + ends[0] : stride, j : j + ends[1] : stride]
        for i in range(size)
        for j in range(size)
    ]


def pools(values: np.ndarray, size: int, stride: int) -> np.ndarray:
    view = np.lib.stride_tricks.sliding_window_view(values, (size, size), axis=(2, 3))
    return view[:, :, ::stride, ::stride]


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 1), (3, 2), (2, 3)])
def test_average_pooling_of_any_windows(size: int, stride: int) -> None:
    def pool(x: Secret) -> Secret:
        first, *rest = windows(x, size, stride)
        for other in rest:
            first = first + other
        return first

    exactly(pool, pools(X, size, stride).sum(axis=(-2, -1)))


def test_average_pooling_of_windows_side_by_side_is_one_sum() -> None:
    def pool(x: Secret) -> Secret:
        return x.reshape(2, 3, 2, 2, 3, 2).sum(axis=(3, 5))

    exactly(pool, pools(X, 2, 2).sum(axis=(-2, -1)))


@pytest.mark.parametrize("masked", [False, True])
def test_max_pooling_by_tournament_and_its_gradient(masked: bool) -> None:
    """Winners of windows of four, and ones given back to where they were."""

    def pool(x: Secret) -> Secret:
        if masked:
            x.masked()
        parts = [part.reshape(1, *part.shape) for part in windows(x, 2, 2)]
        one, other = concatenate(parts[:2], axis=0), concatenate(parts[2:], axis=0)
        first = functions.less(one - other)
        best = functions.where(first, other, one)
        second = functions.less(best[0] - best[1])
        left, won = first.value(), second.value()
        shares = [(1 - left[0]) * (1 - won), (1 - left[1]) * won]
        shares += [left[0] * (1 - won), left[1] * won]
        places = [np.s_[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return place(shares, places, SHAPE)

    view = pools(X, 2, 2)
    expected = np.repeat(np.repeat(view.max(axis=(-2, -1)), 2, axis=2), 2, axis=3) == X
    exactly(pool, expected)


def test_views_of_masked_values_open_nothing() -> None:
    def views(x: Secret) -> Secret:
        x = x * x
        kept = (x.transpose(0, 2, 3, 1).reshape(2, -1)[:, ::2], x[WINDOW].placed(SHAPE, WINDOW))
        x.masked()
        return (kept[0] * kept[0]).sum() + (kept[1] * kept[1]).sum() + x.sum((0, 1, 2, 3)) * 0.0

    small = Clear(images().values >> 12, 4, 100.0)
    outcome = evaluate(lambda x: views(x.reshape(*SHAPE)), [small], 2)
    nodes = block_of(outcome.program).nodes.values()
    assert [n.op for n in nodes].count("mask") == 2, "x, and its square"
    assert all(n.kind is Kind.MASKED for n in nodes if n.op in ("place", "index", "transpose"))
