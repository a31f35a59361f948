"""Rows in a file without a name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from masque.data.spool import FileRows
from masque.errors import Refused

FIXTURE = [HealthCheck.function_scoped_fixture]


@settings(deadline=None, suppress_health_check=FIXTURE)
@given(
    columns=st.integers(1, 5),
    written=st.lists(st.lists(st.integers(0, 11), unique=True, max_size=12), max_size=4),
    read=st.lists(st.integers(0, 11), max_size=20),
)
def test_it_holds_what_was_written(
    tmp_path: Path, columns: int, written: list[list[int]], read: list[int]
) -> None:
    rows, kept = FileRows(tmp_path, (12, columns)), np.zeros((12, columns), np.uint64)
    random = np.random.default_rng(1)
    for numbers in written:
        values = random.integers(0, 2**64, (len(numbers), columns), dtype=np.uint64)
        chosen = np.array(numbers, dtype=np.int64)
        rows[chosen] = values
        kept[chosen] = values
    rows[slice(2, 5)] = kept[2:5].copy(order="F")
    np.testing.assert_array_equal(rows[np.array(read, dtype=np.int64)], kept[read])
    np.testing.assert_array_equal(rows[slice(None)], kept)
    assert list(tmp_path.iterdir()) == []  # no name: gone with the process
    assert repr(rows) == f"FileRows(shape=(12, {columns}))"


def test_a_full_disk_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Refused, match=r"no room .* for 96 bytes of a job: No space left"):
        FileRows(tmp_path, (4, 3))
