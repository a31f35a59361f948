"""Encoding is exact, decoding its inverse, shares join to what was encoded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.data.encode import decode, from_fixed, read_table, to_fixed
from masque.data.readers import open_table
from masque.data.schema import loads
from masque.data.shares import recut
from masque.errors import RangeError
from masque.mpc import sharing
from tests.data.files import GOOD, HEADER, PATIENTS, joined, stream, written

ONE = 1 << 24
encodable = st.floats(-(2.0**20), 2.0**20)


@given(st.lists(encodable, min_size=1))
def test_fixed_point_rounds_to_nearest_and_back(values: list[float]) -> None:
    given_values = np.array(values)
    back = from_fixed(to_fixed(given_values))
    assert np.all(np.abs(back - given_values) <= 2.0**-25)
    assert np.array_equal(from_fixed(to_fixed(back)), back)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**20 + 1, -(2.0**21)])
def test_what_does_not_fit_is_refused(value: float) -> None:
    with pytest.raises(RangeError, match="scaling"):
        to_fixed(np.array([0.0, value]))


def test_the_edges_of_the_range_fit() -> None:
    words = to_fixed(np.array([2.0**20, -(2.0**20), 0.0, -0.0, 2.0**-24, 2.0**-25, 1.5 * 2.0**-24]))
    signed = words.view(np.int64).tolist()
    assert signed == [2**44, -(2**44), 0, 0, 1, 0, 2]  # ties go to even


@given(
    st.lists(st.floats(-50.0, 1000.0), min_size=1, max_size=20),
    st.integers(2, 5),
)
def test_shares_of_a_column_join_to_it(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], parties: int
) -> None:
    path = written(
        tmp_path_factory.mktemp("join"), "x\n" + "".join(f"{value!r}\n" for value in values)
    )
    shared = stream(path, "columns: {x: {type: number, range: [-50, 1000]}}", parties)
    table = decode(joined(shared), shared.info)
    assert np.allclose(table["x"], values, rtol=0, atol=525 * 2.0**-25 + 1e-12)
    assert all(len(chunk.shares) == parties for chunk in shared.chunks())


def test_every_kind_of_column_is_encoded_as_documented(tmp_path: Path) -> None:
    rows = GOOD + ",p2,,,no,01,0\n x , p3 , 0 , 300 , no , , 1 \n"
    shared = stream(written(tmp_path, HEADER + rows))
    matrix = joined(shared).view(np.int64)
    assert shared.info.feature_names == ("age", "weight", "smoker", "ward=north", "ward=01")
    assert matrix[0, 2:].tolist() == [ONE, ONE, 0, ONE]
    assert matrix[1].tolist() == [0, -ONE // 2, 0, 0, ONE, 0]  # imputed: the middle, 75 of 300
    assert matrix[2].tolist() == [-ONE, ONE, 0, 0, 0, ONE]
    assert matrix[0, 0] == round((50 - 60) / 60 * ONE)


def test_columns_follow_the_schema_and_not_the_file(tmp_path: Path) -> None:
    schema = "columns:\n  b: {type: number, range: [0, 8]}\n  a: {type: number, range: [-1, 1]}"
    one = stream(written(tmp_path, "a,b\n1,0\n", "one.csv"), schema)
    other = stream(written(tmp_path, "b,a\n0,1\n", "other.csv"), schema)
    assert np.array_equal(joined(one), joined(other))
    assert one.info == other.info


def test_labels_come_last(tmp_path: Path) -> None:
    path = written(tmp_path, "y,x\nb,0\nc,1\na,1\n")
    schema = "columns: {x: {type: number, range: [0, 1]}}\nlabel: "
    classes = stream(path, schema + "{column: y, type: classes, classes: [a, b, c]}")
    assert (joined(classes)[:, 1:] // ONE).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert decode(joined(classes), classes.info)["y"].tolist() == ["b", "c", "a"]
    path = written(tmp_path, "y,x\n150,0\n50,1\n")
    number = stream(path, schema + "{column: y, type: number, range: [50, 150]}")
    assert joined(number)[:, 1].view(np.int64).tolist() == [ONE, -ONE]
    assert decode(joined(number), number.info)["y"].tolist() == [150.0, 50.0]


def test_the_positive_class_is_one(tmp_path: Path) -> None:
    path = written(tmp_path, "y\nM\nB\n")
    label = "label: {column: y, type: binary, classes: [M, B], positive: M}"
    shared = stream(path, label)
    assert (joined(shared)[:, 0] // ONE).tolist() == [1, 0]
    assert shared.info.label is not None
    assert shared.info.label.classes == ("B", "M")


def test_clip_markers_scaling_and_decimal_commas(tmp_path: Path) -> None:
    schema = """
csv: {delimiter: ";", decimal: ","}
missing_markers: [NA, "?"]
columns:
  x: {type: number, range: [0, 10], outside: clip, missing: {value: 5}}
  raw: {type: number, range: [-1000, 1000], scaling: none}
"""
    shared = stream(written(tmp_path, "x;raw\n-3;-999,5\nNA;1\n ? ;0\n99;-1\n"), schema)
    values = from_fixed(joined(shared))
    assert values.tolist() == [[-1.0, -999.5], [0.0, 1.0], [0.0, 0.0], [1.0, -1.0]]
    assert [feature.bound for feature in shared.info.features] == [1.0, 1000.0]


def test_parquet_and_csv_encode_alike(tmp_path: Path) -> None:
    rows = "a,p1,50,80.5,yes,north,1\n,p2,,,no,01,0\n"
    text = stream(written(tmp_path, HEADER + rows))
    table = pa.table(
        {
            "age": pa.array([50, None], pa.int8()),
            "weight": pa.array([80.5, None], pa.float32()),
            "smoker": pa.array(["yes", "no"]).dictionary_encode(),
            "ward": ["north", "01"],
            "malignant": [True, False],
            "patient": pa.array(["p1", "p2"], pa.large_string()),
            "notes": pa.array([[1], [2]]),
        }
    )
    pa.parquet.write_table(table, tmp_path / "data.pq")
    binary = stream(tmp_path / "data.pq")
    assert np.array_equal(joined(text), joined(binary))
    assert text.info == binary.info
    assert text.identifiers is not None and binary.identifiers is not None
    assert np.array_equal(sharing.join(text.identifiers), sharing.join(binary.identifiers))


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 7))
def test_recut_keeps_every_row_in_order(sizes: list[int], rows: int) -> None:
    everything = np.arange(2 * sum(sizes), dtype=np.uint64).reshape(-1, 2)
    ends = np.cumsum(sizes)
    pieces = [everything[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    cut = list(recut(pieces, rows))
    assert all(len(piece) == rows for piece in cut[:-1])
    if cut:
        assert 1 <= len(cut[-1]) <= rows
        assert np.array_equal(np.concatenate(cut), everything)


def test_a_whole_table_can_be_read_for_comparisons(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + GOOD * 3)
    info, matrix = read_table(open_table(path, loads(PATIENTS)))
    assert matrix.shape == (3, info.columns)
    assert np.array_equal(matrix, joined(stream(path)))
    bare = loads(PATIENTS).without_label()
    unlabelled, features = read_table(open_table(path, bare))
    assert unlabelled.label is None
    assert np.array_equal(features, matrix[:, :-1])
