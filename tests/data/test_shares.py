"""Sharing: nothing before everything is checked, bounded chunks, bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.data.schema import loads
from masque.data.shares import CHUNK_BYTES, share_stream
from masque.errors import DataError
from masque.mpc import prg, sharing
from tests.data.files import GOOD, HEADER, PATIENTS, stream, written


def test_chunks_cover_the_rows_in_order_and_stay_small(tmp_path: Path) -> None:
    shared = stream(written(tmp_path, HEADER + GOOD * 50_000), parties=3)
    row = 0
    for chunk in shared.chunks():
        assert chunk.first_row == row
        assert [share.shape for share in chunk.shares] == [(chunk.rows, 6)] * 3
        assert len(chunk.payload(1)) == chunk.rows * 6 * 8 <= CHUNK_BYTES
        row += chunk.rows
    assert row == shared.info.rows == 50_000


def test_nothing_is_drawn_for_a_file_with_a_fault_at_its_end(tmp_path: Path) -> None:
    def randomness(size: int) -> bytes:
        raise AssertionError("no share may be made")

    path = written(tmp_path, HEADER + GOOD * 30_000 + "broken\n")
    with pytest.raises(DataError):
        share_stream(path, loads(PATIENTS), 2, randomness)


def test_a_share_alone_says_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + GOOD * 1000)
    first = [np.copy(chunk.shares[0]) for chunk in stream(path).chunks()]
    other = written(tmp_path, HEADER + GOOD.replace("50", "51") * 1000, "other.csv")
    second = [np.copy(chunk.shares[0]) for chunk in stream(other).chunks()]
    assert np.array_equal(np.concatenate(first), np.concatenate(second))


def test_a_second_run_shares_afresh(tmp_path: Path) -> None:
    shared = stream(written(tmp_path, HEADER + GOOD))
    one, two = next(shared.chunks()), next(shared.chunks())
    assert not np.any(one.shares[0] == two.shares[0])
    assert np.array_equal(sharing.join(one.shares), sharing.join(two.shares))


def test_a_file_that_changes_between_the_passes_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + GOOD * 3)
    for later in (GOOD * 2, GOOD * 4, GOOD * 2 + GOOD.replace("p1", "p9")):
        shared = stream(path)
        path.write_text(HEADER + later)
        os.utime(path, ns=(1, 1))
        with pytest.raises(DataError, match="changed while"):
            list(shared.chunks())
        path.write_text(HEADER + GOOD * 3)


def test_progress_counts_rows(tmp_path: Path) -> None:
    said: list[tuple[str, int, int | None]] = []
    path = written(tmp_path, HEADER + GOOD * 10)
    shared = share_stream(
        path, loads(PATIENTS), 2, os.urandom, progress=lambda *step: said.append(step)
    )
    list(shared.chunks())
    assert said == [("check", 10, None), ("share", 10, 10)]


def test_no_share_shows_in_a_repr(tmp_path: Path) -> None:
    shared = stream(written(tmp_path, HEADER + GOOD))
    chunk = next(shared.chunks())
    for word in chunk.shares[0].ravel():
        assert str(word) not in repr(chunk) + repr(shared)


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6), st.data())
def test_identifier_digests_agree_only_for_equal_columns(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("identifiers")
    clean = ["i" + "".join(filter(str.isalnum, name)) for name in names]
    other = data.draw(st.permutations(clean))
    schema = "columns: {id: identifier, x: {type: binary}}"
    digests = []
    for index, column in enumerate((clean, other)):
        body = "id,x\n" + "".join(f"{name},1\n" for name in column)
        shared = stream(written(directory, body, f"{index}.csv"), schema)
        assert shared.identifiers is not None
        digests.append(sharing.join(shared.identifiers).tolist())
    assert (digests[0] == digests[1]) == (clean == other)


def digest(directory: Path, *names: str) -> list[int]:
    body = "id,x\n" + "".join(f"{name},1\n" for name in names)
    path = written(directory, body)
    shared = stream(path, "columns: {id: identifier, x: {type: binary}}")
    assert shared.identifiers is not None
    words: list[int] = sharing.join(shared.identifiers).tolist()
    return words


def test_identifiers_are_normalised_and_unambiguous(tmp_path: Path) -> None:
    assert digest(tmp_path, "é", "b") == digest(tmp_path, " e\u0301", "b ")
    assert digest(tmp_path, "ab", "c") != digest(tmp_path, "a", "bc")
    assert digest(tmp_path, "a", "b") != digest(tmp_path, "b", "a")
    assert digest(tmp_path, "1") != digest(tmp_path, "01")


def test_the_digest_does_not_depend_on_blocks(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    names = [f"patient {index}" for index in range(70_000)]
    text = digest(tmp_path, *names)
    pa.parquet.write_table(
        pa.table({"id": names, "x": pa.array([1] * len(names))}),
        tmp_path / "data.parquet",
        row_group_size=1000,
    )
    shared = stream(tmp_path / "data.parquet", "columns: {id: identifier, x: {type: binary}}")
    assert shared.identifiers is not None
    assert sharing.join(shared.identifiers).tolist() == text


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """200,000 rows more are 92 MiB of shares more; they may not all be in memory."""
    peaks = [_measured(tmp_path / str(rows), rows)["peak_mib"] for rows in (100_000, 300_000)]
    assert peaks[1] - peaks[0] < 46
    assert peaks[1] < 300


def _measured(directory: Path, rows: int) -> dict[str, float]:
    """What sharing `rows` rows of 30 columns takes, in a process of its own."""
    names = [f"x{index}" for index in range(29)]
    path, schema = directory / "data.csv", directory / "schema.yaml"
    directory.mkdir()
    path.write_text(",".join([*names, "y"]) + "\n" + ("47.1234," * 29 + "1\n") * rows)
    columns = "".join(f"  {name}: {{type: number, range: [0, 100]}}\n" for name in names)
    schema.write_text(f"columns:\n{columns}label: {{column: y, type: binary}}\n")
    command = [sys.executable, "-m", "tests.data.measured"]
    command += map(str, (path, schema, directory))
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    assert result["largest_chunk_bytes"] <= CHUNK_BYTES
    return result


def test_shares_are_replayable_from_a_seed(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + GOOD * 100)
    runs = [
        share_stream(path, loads(PATIENTS), 2, prg.reader(b"s" * 32)).chunks() for _ in range(2)
    ]
    for one, two in zip(*runs, strict=True):
        assert np.array_equal(one.shares[0], two.shares[0])


def test_a_description_too_large_for_a_message_is_refused(tmp_path: Path) -> None:
    names = [f"{index:05d}" + "x" * 245 for index in range(6000)]
    path = written(tmp_path, ",".join(names) + "\n" + ",".join("1" * len(names)) + "\n")
    columns = "".join(f"  {name}: {{type: binary}}\n" for name in names)
    with pytest.raises(DataError, match="Shorten the names"):
        stream(path, "columns:\n" + columns)
