"""Masks of large registers: expanded again where they are read, the same as if they were kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.mpc import dealer, party, prg
from masque.mpc.regenerated import Regenerated
from masque.mpc.types import Ring
from tests.ml.examples import dataset, task, together

SEEDS = [prg.derive(bytes(32), "regenerated", index) for index in range(2)]


def streams() -> list[prg.Stream]:
    return [prg.Stream(seed) for seed in SEEDS]


def drawn(position: int, offset: int, shape: tuple[int, int]) -> Ring:
    """What the streams hold there, in sum."""
    size = 8 * shape[0] * shape[1]
    parts = [prg.expand(seed, position, offset + size)[offset:] for seed in SEEDS]
    total: Ring = parts[0].copy().view(np.uint64) + parts[1].copy().view(np.uint64)
    return total.reshape(shape)


@settings(deadline=None)
@given(
    columns=st.integers(1, 9),
    offsets=st.lists(st.integers(0, 40), min_size=3, max_size=3),
    rows=st.lists(st.integers(0, 19), max_size=30),
)
def test_rows_are_read_as_they_were_put(columns: int, offsets: list[int], rows: list[int]) -> None:
    register, kept = Regenerated((20, columns), streams()), np.zeros((20, columns), np.uint64)
    for position, (start, stop) in enumerate([(0, 7), (7, 12), (5, 9)]):
        value = drawn(position, 8 * offsets[position], (stop - start, columns))
        register.put(slice(start, stop), value, position, 8 * offsets[position])
        kept[start:stop] = value
    own = np.arange(3 * columns, dtype=np.uint64).reshape(3, columns)
    register.put(slice(14, 17), own, 9, None)  # a mask of no single place
    kept[14:17] = own
    chosen = np.array(rows, dtype=np.int64)
    np.testing.assert_array_equal(register[chosen], kept[chosen])
    np.testing.assert_array_equal(register[slice(3, 18)], kept[3:18])
    np.testing.assert_array_equal(register[slice(None)], kept)


def test_its_repr_shows_no_mask() -> None:
    assert repr(Regenerated((2, 3), streams())) == "Regenerated(shape=(2, 3))"


@pytest.mark.parametrize("standardize", [False, True])
def test_a_job_is_the_same_with_and_without_them(
    monkeypatch: pytest.MonkeyPatch, *, standardize: bool
) -> None:
    job = task("breast_cancer", standardize=standardize, metrics=("accuracy",), batch_size=100)
    table = dataset("breast_cancer")
    kept, _ = together(job, table)
    monkeypatch.setattr(party, "LARGE", 0)
    monkeypatch.setattr(dealer, "LARGE", 0)
    again, run = together(job, table)
    assert any("Held" in type(value).__name__ for value in run.parties[0].registers.values())
    for name, value in kept.outputs.items():
        np.testing.assert_array_equal(again.outputs[name], value)
