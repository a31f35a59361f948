"""Convolutions against their definition, at every stride and padding; what they cost and bound."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.mpc.bilinear import BILINEAR, multiplications, multiply, multiply_add
from masque.mpc.convolution import Pair, positions
from masque.mpc.cost import cost
from masque.mpc.kernels import LANES
from masque.mpc.secret import Secret, product
from masque.mpc.trace import Trace
from masque.mpc.types import Ring, Shape
from tests.mpc.harness import PARTIES, Clear, block_of, evaluate
from tests.mpc.references import exact

KINDS = ("conv2d", "conv2d_input", "conv2d_weights")


@dataclass(frozen=True)
class Case:
    """A convolution: images [n, c, *size], weights [o, c, *kernel]."""

    images: int
    channels: int
    size: Pair
    outputs: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    @property
    def x(self) -> Shape:
        return (self.images, self.channels, *self.size)

    @property
    def w(self) -> Shape:
        return (self.outputs, self.channels, *self.kernel)

    @property
    def z(self) -> Shape:
        found = map(positions, self.size, self.kernel, self.stride, self.padding)
        return (self.images, self.outputs, *found)

    def product(self, kind: str) -> tuple[tuple[Any, ...], Shape, Shape, Shape]:
        """Parameters of a node, shapes of its operands and of its result."""
        common = (kind, self.stride, self.padding)
        return {
            "conv2d": (common, self.x, self.w, self.z),
            "conv2d_input": ((*common, self.size), self.z, self.w, self.x),
            "conv2d_weights": ((*common, self.kernel), self.x, self.z, self.w),
        }[kind]


@st.composite
def cases(draw: st.DrawFn, largest: int = 9) -> Case:
    """Any convolution with at least one position."""
    pair = st.tuples(st.integers(1, 5), st.integers(1, 5))
    kernel, stride = draw(pair), draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    spare = draw(st.tuples(st.integers(0, largest), st.integers(0, largest)))
    size = [max(1, k - 2 * p) + more for k, p, more in zip(kernel, padding, spare, strict=True)]
    few = st.integers(1, 3)
    return Case(
        draw(few), draw(few), (size[0], size[1]), draw(st.integers(1, 10)), kernel, stride, padding
    )


FIXED = (
    Case(1, 1, (1, 1), 1, (1, 1)),
    Case(2, 1, (9, 9), 20, (5, 5)),
    Case(2, 5, (6, 6), 3, (5, 5)),
    Case(1, 1, (7, 8), 5, (5, 5), (2, 2), (2, 2)),
    Case(1, 2, (5, 11), 9, (3, 2), (3, 4), (1, 5)),
    Case(1, 1, (3, 3), 2, (2, 2), (5, 5), (1, 1)),
    Case(1, 1, (2, 2), 1, (6, 6), (1, 1), (2, 2)),
    Case(1, 2, (9, 4), 8, (1, 1), (2, 3)),
)
# Beyond what one slab, one panel, one packed block hold.
LARGE = (
    Case(1, 300, (9, 9), 20, (3, 3), (1, 1), (1, 1)),
    Case(2, 7, (10, 9), 300, (3, 3)),
    Case(1, 2, (60, 700), 2, (3, 3), (2, 2), (1, 1)),
    Case(1, 3, (200, 130), 10, (5, 5)),
    Case(1, 2, (40, 40), 3, (20, 20), (7, 5), (3, 2)),
    Case(3, 20, (12, 12), 50, (5, 5)),
    Case(1, 40, (33, 33), 17, (1, 1), (2, 2)),
)
NAMES = {"ids": lambda case: "-".join(map(str, vars(case).values()))}


def words(shape: Shape, seed: int) -> Ring:
    """Uniform words, a third of them around zero."""
    generator = np.random.default_rng(seed)
    large = generator.integers(0, 2**64, shape, dtype=np.uint64)
    small = generator.integers(-3, 4, shape).view(np.uint64)
    return np.where(generator.random(shape) < 1 / 3, small, large)


def layouts(array: Ring) -> Iterator[Ring]:
    """The same array in other orders, strided, reversed, read-only, not aligned."""
    yield array
    yield np.asfortranarray(array)
    yield np.ascontiguousarray(array.transpose(2, 0, 3, 1)).transpose(1, 3, 0, 2)
    wide = np.repeat(np.repeat(array, 2, axis=3), 3, axis=2)
    yield wide[:, :, 1::3, ::2]
    yield array[::-1, :, ::-1, ::-1].copy()[::-1, :, ::-1, ::-1]
    yield np.frombuffer(array.tobytes(), dtype=np.uint64).reshape(array.shape)
    unaligned = np.frombuffer(b"-" + array.tobytes(), dtype=np.uint8)[1:]
    yield unaligned.view(np.uint64).reshape(array.shape)


def check(case: Case, kind: str, seed: int) -> None:
    params, left, right, shape = case.product(kind)
    x, y = words(left, seed), words(right, seed + 1)
    result = multiply(params, x, y)
    assert result.dtype == np.uint64 and result.shape == shape
    assert result.flags.c_contiguous and result.flags.writeable
    expected = exact(params, x, y)
    np.testing.assert_array_equal(result, expected)
    total = words(shape, seed + 2)
    expected = total + expected
    assert multiply_add(params, x, y, total) is total
    np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(case=cases(), seed=st.integers(0, 2**32))
def test_they_are_what_their_definition_says(kind: str, case: Case, seed: int) -> None:
    check(case, kind, seed)


@pytest.mark.parametrize("case", FIXED, **NAMES)  # type: ignore[arg-type]
def test_odd_ones_are_right(case: Case) -> None:
    for kind in KINDS:
        check(case, kind, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_they_read_any_layout(kind: str) -> None:
    params, left, right, _ = Case(2, 3, (9, 8), 5, (3, 2), (2, 1), (1, 2)).product(kind)
    x, y = words(left, 1), words(right, 2)
    expected = exact(params, x, y)
    for one in layouts(x):
        for other in layouts(y):
            np.testing.assert_array_equal(multiply(params, one, other), expected)


@pytest.mark.parametrize("case", FIXED + LARGE, **NAMES)  # type: ignore[arg-type]
def test_they_are_adjoint(case: Case) -> None:
    x, w, dz = words(case.x, 1), words(case.w, 2), words(case.z, 3)
    z, dx, dw = (
        multiply(case.product(kind)[0], one, other)
        for kind, one, other in zip(KINDS, (x, dz, x), (w, w, dz), strict=True)
    )
    products = {int(np.sum(a * b)) for a, b in ((z, dz), (dx, x), (dw, w))}
    assert len(products) == 1


@pytest.mark.parametrize("case", LARGE, **NAMES)  # type: ignore[arg-type]
def test_large_ones_are_right(case: Case) -> None:
    x, w = words(case.x, 4), words(case.w, 5)
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in case.padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, case.kernel, axis=(2, 3))
    windows = windows[:, :, :: case.stride[0], :: case.stride[1]]
    z = multiply(case.product("conv2d")[0], x, w)
    np.testing.assert_array_equal(z, np.einsum("ncyxij,ocij->noyx", windows, w))
    dw = multiply(case.product("conv2d_weights")[0], x, z)
    np.testing.assert_array_equal(dw, np.einsum("ncyxij,noyx->ocij", windows, z))


@pytest.mark.parametrize("kind", KINDS)
def test_they_may_be_empty(kind: str) -> None:
    for case in (Case(0, 2, (5, 5), 3, (2, 2)), Case(2, 2, (5, 5), 0, (2, 2))):
        check(case, kind, 1)
    check(Case(2, 0, (5, 5), 3, (2, 2)), kind, 1)


def test_they_leave_their_operands_alone() -> None:
    for kind in KINDS:
        params, left, right, _ = FIXED[3].product(kind)
        x, y = words(left, 1), words(right, 2)
        before = x.copy(), y.copy()
        multiply(params, x, y)
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(y, before[1])


def test_they_run_in_several_threads() -> None:
    jobs = [(case.product(kind), seed) for seed, case in enumerate(FIXED[1:4]) for kind in KINDS]

    def run(job: Any) -> Ring:
        (params, left, right, _), seed = job
        return multiply(params, words(left, seed), words(right, seed))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, jobs * 3))
    for job, result in zip(jobs * 3, results, strict=True):
        np.testing.assert_array_equal(result, run(job))


@settings(max_examples=200, deadline=None)
@given(case=cases(largest=12))
def test_terms_are_the_most_that_an_element_sums(case: Case) -> None:
    """A product of ones counts them."""
    for kind in KINDS:
        params, left, right, _ = case.product(kind)
        ones = multiply(params, np.ones(left, np.uint64), np.ones(right, np.uint64))
        terms = BILINEAR[kind].terms(left, right, *params[1:])
        assert terms == ones.max(), kind


def test_all_three_cost_the_same_multiplications() -> None:
    case = Case(4, 3, (12, 12), 8, (5, 5), (2, 2), (2, 2))
    work = {multiplications(*case.product(kind)[:3]) for kind in KINDS}
    assert work == {4 * 8 * 6 * 6 * 3 * 25}


WRONG: tuple[tuple[str, str, tuple[Pair, ...], Shape, Shape], ...] = (
    ("needs four axes", "conv2d", ((1, 1), (0, 0)), (1, 5, 5), (1, 1, 2, 2)),
    ("different channels", "conv2d", ((1, 1), (0, 0)), (1, 2, 5, 5), (1, 1, 2, 2)),
    ("larger than", "conv2d", ((1, 1), (1, 0)), (1, 1, 5, 5), (1, 1, 2, 6)),
    ("stride", "conv2d", ((0, 1), (0, 0)), (1, 1, 5, 5), (1, 1, 2, 2)),
    ("empty kernel", "conv2d", ((1, 1), (0, 0)), (1, 1, 5, 5), (1, 1, 0, 2)),
    ("cannot be", "conv2d_input", ((1, 1), (0, 0), (5, 5)), (1, 1, 4, 5), (1, 1, 2, 2)),
    ("cannot be", "conv2d_weights", ((1, 1), (0, 0), (2, 2)), (2, 1, 5, 5), (1, 1, 4, 4)),
)


@pytest.mark.parametrize(("what", "kind", "params", "left", "right"), WRONG)
def test_shapes_that_do_not_meet_are_refused(
    what: str, kind: str, params: tuple[Pair, ...], left: Shape, right: Shape
) -> None:
    for size in (BILINEAR[kind].shape, BILINEAR[kind].terms):
        with pytest.raises(AssertionError, match=what):
            size(left, right, *params)


# -- on shares ---------------------------------------------------------------------------------


def clear(shape: Shape, seed: int) -> Clear:
    """Negative and positive values at scale 8, as rows of a data set."""
    values = np.random.default_rng(seed).integers(-1024, 1025, (shape[0], int(np.prod(shape[1:]))))
    return Clear(values, 8, 4.0)


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize("kind", KINDS)
def test_parties_compute_them_exactly(kind: str, parties: int) -> None:
    for case in FIXED[2:5]:
        params, left, right, shape = case.product(kind)
        x, y = clear(left, 1), clear(right, 2)

        def run(
            a: Secret, b: Secret, left: Shape = left, right: Shape = right, params: Any = params
        ) -> Secret:
            return product(kind, a.reshape(*left), b.reshape(*right), params=params[1:])

        outcome = evaluate(run, [x, y], parties)
        expected = exact(params, x.values.reshape(left), y.values.reshape(right))
        got = outcome.got["y"].reshape(shape).view(np.uint64)
        np.testing.assert_array_equal(got, expected)
        dealt = 8 * int(np.prod(shape))
        assert sum(cost(outcome.program).corrections) == dealt, "one correlation of the result"
        work = 2 * multiplications(params, left, right)
        assert cost(outcome.program).multiplications == work


def test_one_convolution_and_its_gradients_mask_each_value_once() -> None:
    case = Case(2, 1, (6, 6), 2, (3, 3), (1, 1), (1, 1))

    def step(x: Secret, w: Secret) -> Secret:
        x, w = x.reshape(*case.x), w.reshape(*case.w)
        dz = product("conv2d", x, w, params=(case.stride, case.padding)).at(8)
        common = (case.stride, case.padding)
        dw = product("conv2d_weights", x, dz, params=(*common, case.kernel))
        dx = product("conv2d_input", dz, w, params=(*common, case.size))
        return dw.sum() + dx.sum()

    outcome = evaluate(step, [clear(case.x, 1), clear(case.w, 2)], 2)
    nodes = block_of(outcome.program).nodes.values()
    masks = [node for node in nodes if node.op == "mask"]
    assert len(masks) == 4, "x, w, z for its division, dz"
    assert [node.shape for node in masks[:2]] == [(2, 36), (2, 9)]


def test_bounds_follow_the_taps() -> None:
    trace = Trace("test", 2)
    x, w = trace.input("x", (2, 3, 8, 8), 8, 2.0), trace.input("w", (4, 3, 5, 5), 8, 3.0)
    z = product("conv2d", x, w, params=((2, 2), (2, 2)))
    assert (z.shape, z.scale, z.bound) == ((2, 4, 4, 4), 16, 6.0 * 75)
    dx = product("conv2d_input", z, w, params=((2, 2), (2, 2), (8, 8)))
    assert dx.bound == z.bound * 3.0 * 4 * 9, "of 5 x 5 taps at a stride of 2, 3 x 3 hit"
    assert product("conv2d", x, w, 5.0, params=((2, 2), (2, 2))).bound == 5.0


OTHER_PROCESSOR = """
import llvmlite.binding
import numba
import numpy as np

numba.njit("int64(int64)")(lambda x: x)  # numba itself has seen the processor it runs on
features = {{name: name in {features} for name in ("avx2", "avx512dq")}}
llvmlite.binding.get_host_cpu_features = lambda: features
from masque.mpc import kernels
assert kernels.LANES == {lanes}
from tests.mpc import test_convolution as tests
for case in tests.FIXED:
    for kind in tests.KINDS:
        tests.check(case, kind, 1)
for case in tests.LARGE[-4:]:
    tests.test_large_ones_are_right(case)
    tests.test_they_are_adjoint(case)
print("right")
"""


PROCESSORS: list[tuple[list[str], int]] = [([], 2), (["avx2"], 4), (["avx2", "avx512dq"], 8)]
"""What processors can, and how many numbers they take at a time."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("features", "lanes"),
    [each for each in PROCESSORS if each[1] != LANES],  # all other tests are of this one
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_code_for_other_processors_is_right(
    features: list[str], lanes: int, tmp_path: Path
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESSOR.format(features=features, lanes=lanes)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.stdout.strip() == "right", run.stderr
