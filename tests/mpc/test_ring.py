"""Ring products against Python's own whole numbers, at every shape and stride."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.mpc import ring
from masque.mpc.kernels import LANES
from masque.mpc.types import Ring

EDGES = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 0xFFFFFFFF00000000, 0x8000000080000000]


def draw(rows: int, columns: int, seed: int = 1) -> Ring:
    """Uniform words, a third of them from the edges of the ring and of its halves."""
    generator = np.random.default_rng(seed)
    words = generator.integers(0, 2**64, (rows, columns), dtype=np.uint64)
    edges = generator.choice(np.array(EDGES, dtype=np.uint64), (rows, columns))
    return np.where(generator.random((rows, columns)) < 1 / 3, edges, words)


def exact(a: Ring, b: Ring) -> Ring:
    """The product by Python's whole numbers."""
    (m, _), n = a.shape, b.shape[1]
    left, right = a.tolist(), b.T.tolist()
    rows = [[sum(map(int.__mul__, x, y)) % 2**64 for y in right] for x in left]
    return np.array(rows, dtype=np.uint64).reshape(m, n)


def layouts(matrix: Ring) -> Iterator[Ring]:
    """The same matrix: rows contiguous, columns contiguous, strided, reversed, read-only, odd."""
    m, n = matrix.shape
    yield matrix
    yield np.asfortranarray(matrix)
    wide = draw(2 * m + 1, 3 * n + 2, seed=2)[1 : 1 + 2 * m : 2, 2 : 2 + 3 * n : 3]
    wide[...] = matrix
    yield wide
    part = draw(m + 1, n + 3, seed=3)[1:, 2 : 2 + n]
    part[...] = matrix
    yield part
    yield matrix[::-1, ::-1].copy()[::-1, ::-1]
    yield np.frombuffer(matrix.tobytes(), dtype=np.uint64).reshape(m, n)
    unaligned = np.frombuffer(b"-" + matrix.tobytes(), dtype=np.uint8)[1:]
    yield unaligned.view(np.uint64).reshape(m, n)


SHAPES = [
    (1, 1, 1), (0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (2, 3, 4), (4, 2, 9), (3, 4, 8),
    (8, 8, 8), (9, 9, 9), (16, 16, 16), (17, 13, 11), (31, 37, 41), (3, 256, 8), (5, 257, 9),
    (7, 300, 13), (49, 1, 17), (48, 10, 16), (20, 9, 7), (9, 100, 33), (10, 30, 1100),
    (60, 520, 20), (1, 300, 300), (300, 300, 1), (300, 1, 300), (1, 1, 3000), (3000, 1, 1),
    (1, 3000, 1), (1, 7, 500), (1, 3, 500), (500, 3, 1), (500, 3, 2), (2, 2, 700), (700, 3, 3),
    (3, 40, 70), (70, 40, 3), (3, 1000, 3), (2, 900, 2), (128, 30, 1), (30, 128, 1), (8, 33, 6),
    (4, 35, 34), (6, 31, 5), (2, 70, 1030),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_matmul_is_exact_at_every_shape_and_layout(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = draw(m, k, seed=4), draw(k, n, seed=5)
    expected = exact(a, b)
    for left in layouts(a):
        for right in layouts(b):
            product = ring.matmul(left, right)
            assert product.dtype == np.uint64 and product.shape == (m, n)
            assert product.flags.c_contiguous and product.flags.writeable
            np.testing.assert_array_equal(product, expected)


@settings(max_examples=150, deadline=None)
@given(
    m=st.integers(0, 70),
    k=st.integers(0, 70),
    n=st.integers(0, 70),
    left=st.integers(0, 6),
    right=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_matmul_is_exact(m: int, k: int, n: int, left: int, right: int, seed: int) -> None:
    a, b = draw(m, k, seed), draw(k, n, seed + 1)
    chosen = list(layouts(a))[left], list(layouts(b))[right]
    np.testing.assert_array_equal(ring.matmul(*chosen), exact(a, b))


def test_matmul_is_a_ring_homomorphism_at_full_size() -> None:
    # Freivalds: a product is right if it agrees on random vectors; blocks of every kind in it.
    a, b = draw(300, 1030, seed=6), draw(1030, 1050, seed=7)
    product, vector = ring.matmul(a, b), draw(1050, 3, seed=8)
    expected = exact(a, exact(b, vector))
    np.testing.assert_array_equal(exact(product, vector), expected)


@pytest.mark.parametrize("shape", [(2, 3), (200, 300), (4, 1000)])
def test_matmul_refuses_shapes_that_do_not_meet(shape: tuple[int, int]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        ring.matmul(draw(*shape), draw(shape[1] + 1, 2))


def test_matmul_leaves_its_factors_alone() -> None:
    a, b = draw(40, 50), draw(50, 60)
    before = a.copy(), b.copy()
    ring.matmul(a, b)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


def test_matmul_in_several_threads() -> None:
    pairs = [(draw(60, 70, seed), draw(70, 50, seed + 1)) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        products = list(pool.map(lambda pair: ring.matmul(*pair), pairs))
    for (a, b), product in zip(pairs, products, strict=True):
        np.testing.assert_array_equal(product, exact(a, b))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (1, 7), (7, 1), (33, 5), (128, 100)])
def test_column_dot(shape: tuple[int, int]) -> None:
    x, y = draw(*shape, seed=9), draw(*shape, seed=10)
    columns = zip(x.T.tolist(), y.T.tolist(), strict=True)
    expected = [sum(map(int.__mul__, *pair)) % 2**64 for pair in columns]
    for left in layouts(x):
        for right in layouts(y):
            total = ring.column_dot(left, right)
            assert total.dtype == np.uint64
            assert total.tolist() == expected


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (1, 7), (7, 1), (33, 5), (100, 128)])
def test_row_dot(shape: tuple[int, int]) -> None:
    x, y = draw(*shape, seed=9), draw(*shape, seed=10)
    rows = zip(x.tolist(), y.tolist(), strict=True)
    expected = [sum(map(int.__mul__, *pair)) % 2**64 for pair in rows]
    for left in layouts(x):
        for right in layouts(y):
            total = ring.row_dot(left, right)
            assert total.dtype == np.uint64
            assert total.tolist() == expected


OTHER_PROCESSOR = """
import llvmlite.binding
import numba
import numpy as np

numba.njit("int64(int64)")(lambda x: x)  # numba itself has seen the processor it runs on
features = {{name: name in {features} for name in ("avx2", "avx512dq")}}
llvmlite.binding.get_host_cpu_features = lambda: features
from masque.mpc import kernels, ring
assert kernels.LANES == {lanes}
generator = np.random.default_rng(1)
for m, k, n in [(1, 50, 60), (60, 50, 1), (2, 9, 40), (7, 40, 33), (9, 300, 23), (60, 33, 50)]:
    a = generator.integers(0, 2**64, (m, k), dtype=np.uint64)
    b = generator.integers(0, 2**64, (k, n), dtype=np.uint64)
    for x in (a, np.asfortranarray(a)):
        for y in (b, np.asfortranarray(b)):
            assert (ring.matmul(x, y) == a @ b).all(), (m, k, n)
print("right")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("features", "lanes"),
    [each for each in (([], 2), (["avx512dq"], 8)) if each[1] != LANES],  # all others are of this
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_code_for_other_processors_is_right(
    features: list[str], lanes: int, tmp_path: Path
) -> None:
    # It is right here too, if slow: what this processor lacks is translated.
    run = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESSOR.format(features=features, lanes=lanes)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.stdout.strip() == "right", run.stderr
