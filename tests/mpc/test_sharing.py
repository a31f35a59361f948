"""Shares add up to the value, and say nothing about it without the last one."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.errors import ProtocolError
from masque.mpc import prg, sharing
from masque.mpc.types import Ring

SEED = bytes(range(32))


def words(*shape: int) -> Ring:
    return np.random.default_rng(1).integers(0, 2**64, shape, dtype=np.uint64)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.integers(0, 2**64 - 1), max_size=20),
    parties=st.integers(2, 6),
    seed=st.binary(min_size=32, max_size=32),
)
def test_shares_add_up_to_the_value(values: list[int], parties: int, seed: bytes) -> None:
    shares = sharing.split(np.array(values, dtype=np.uint64), parties, prg.reader(seed))
    assert len(shares) == parties
    sums = [sum(map(int, row)) % 2**64 for row in zip(*shares, strict=True)]
    assert sums == values
    assert sharing.join(shares).tolist() == values


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (0, 4), (2, 3, 4)])
@pytest.mark.parametrize("source", [os.urandom, prg.reader(SEED)], ids=["system", "stream"])
def test_shares_keep_the_shape(shape: tuple[int, ...], source: sharing.Randomness) -> None:
    values = words(*shape)
    shares = sharing.split(np.asarray(values, dtype=np.uint64), 3, source)
    for share in shares:
        assert share.shape == shape and share.dtype == np.uint64 and share.flags.writeable
    np.testing.assert_array_equal(sharing.join(shares), values)


def test_values_of_any_stride_are_left_alone() -> None:
    values = words(6, 8)
    before = values.copy()
    for view in (values.T, values[::2, 1::3], values[::-1]):
        np.testing.assert_array_equal(sharing.join(sharing.split(view, 2, prg.reader(SEED))), view)
    np.testing.assert_array_equal(values, before)


def test_randomness_decides_all_shares_but_the_last() -> None:
    ones, others = (sharing.split(v, 4, prg.reader(SEED)) for v in (words(9), words(9) * 3))
    for first, second in zip(ones[:-1], others[:-1], strict=True):
        np.testing.assert_array_equal(first, second)
    expected = [prg.Stream(SEED).words(position, 9) for position in range(3)]
    np.testing.assert_array_equal(ones[:-1], expected)


def test_shares_of_a_constant_are_uniform() -> None:
    shares = sharing.split(np.zeros(40_000, dtype=np.uint64), 3, prg.reader(SEED))
    for share in shares:  # the last one too: it is minus the sum of the others
        counts = np.bincount(share.view(np.uint8), minlength=256)
        expected = share.nbytes / 256
        assert ((counts - expected) ** 2 / expected).sum() < 360  # 255 expected; 1 in 10^5


def test_golden_vector() -> None:
    shares = sharing.split(np.array([1, 2**64 - 1], dtype=np.uint64), 2, prg.reader(SEED))
    assert [[f"{word:016x}" for word in share] for share in shares] == GOLDEN


GOLDEN = [["d09f492ab60090f2", "80772edd6a9af3a9"], ["2f60b6d549ff6f0f", "7f88d12295650c56"]]


def test_a_source_that_gives_too_little_is_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        sharing.split(words(4), 2, lambda size: bytes(size - 8))
    with pytest.raises(AssertionError):
        sharing.split(words(4), 1, os.urandom)


@pytest.mark.parametrize(
    "shares",
    [[], [words(3)], [words(3), words(4)], [words(3), words(3, 1)], [words(3), np.zeros(3)]],
    ids=["none", "one", "lengths", "shapes", "types"],
)
def test_shares_that_do_not_belong_together_are_refused(shares: list[Ring]) -> None:
    with pytest.raises(ProtocolError):
        sharing.join(shares)
