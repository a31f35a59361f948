"""Every fault of a data file is named by file, row, line, column and value."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.data.draft import draft
from masque.errors import DataError
from tests.data.files import GOOD, HEADER, PATIENTS, joined, refused, stream, written

CELLS = [
    # data rows, column, row, line, what the message says
    ("n,p,five,8,yes,north,1\n", "age", 1, 2, '"five" is not a number'),
    (GOOD + "n,p,5.5,8,yes,north,1\n", "age", 2, 3, '"5.5" is not a whole number'),
    (GOOD + "n,p,121,8,yes,north,1\n", "age", 2, 3, '"121" is outside the range [0, 120]'),
    (GOOD + "n,p,-1,8,yes,north,1\n", "age", 2, 3, '"-1" is outside'),
    ("n,p,5,NaN,yes,north,1\n", "weight", 1, 2, '"NaN" is not a number (NaN)'),
    ("n,p,5,-inf,yes,north,1\n", "weight", 1, 2, '"-inf" is infinite'),
    ("n,p,5,1e999,yes,north,1\n", "weight", 1, 2, '"1e999" is infinite'),
    ("n,p,5,1e30,yes,north,1\n", "weight", 1, 2, '"1e30" is outside'),
    ('n,p,5,"80,5",yes,north,1\n', "weight", 1, 2, "decimal: ','"),
    ("n,p,\u22125,8,yes,north,1\n", "age", 1, 2, "plain hyphen"),
    ("n,p,5,0x10,yes,north,1\n", "weight", 1, 2, '"0x10" is not a number'),
    ("n,p,5,8,Yes,north,1\n", "smoker", 1, 2, 'Did you mean "yes"?'),
    ("n,p,5,8,,north,1\n", "smoker", 1, 2, "the cell is empty"),
    ("n,p,5,8,  ,north,1\n", "smoker", 1, 2, "the cell is empty"),
    ("n,p,5,8,yes,west,1\n", "ward", 1, 2, '"west" is not one of the categories "north", "01"'),
    ("n,p,5,8,yes,1,1\n", "ward", 1, 2, '"1" is not one of the categories'),
    ("n,p,5,8,yes,north,2\n", "malignant", 1, 2, '"2" is not one of the classes "0", "1"'),
    ("n,p,5,8,yes,north,\n", "malignant", 1, 2, "Every row needs its label"),
    ("n,,5,8,yes,north,1\n", "patient", 1, 2, "the identifier is empty"),
    (f"n,{'p' * 1001},5,8,yes,north,1\n", "patient", 1, 2, "too long"),
    (f'"a\nb",{GOOD[5:]}\n\nn,p,x,8,yes,north,1\n', "age", 2, 6, '"x" is not a number'),
    ("n,p,\x1b[31m,8,yes,north,1\n", "age", 1, 2, '"\\x1b[31m" is not a number'),
]


@pytest.mark.parametrize(("rows", "column", "row", "line", "said"), CELLS)
def test_a_bad_cell_is_named(
    tmp_path: Path, rows: str, column: str, row: int, line: int, said: str
) -> None:
    path = written(tmp_path, HEADER + rows)
    error = refused(path)
    assert error.where == {"file": str(path), "row": row, "line": line, "column": column}
    assert f'data.csv, row {row} (line {line}), column "{column}": ' in str(error)
    assert said in str(error)


def test_the_fault_is_found_deep_in_a_large_file(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + GOOD * 100_000 + "n,p,5,8,yes,north,3\n" + GOOD * 10)
    error = refused(path)
    assert (error.where["row"], error.where["line"]) == (100_001, 100_002)


FILES = [
    (b"", "is empty"),
    (HEADER.encode(), "no rows"),
    (HEADER.strip().encode(), "no rows"),
    (HEADER.encode() + b"\n\n", "no rows"),
    (b"\n\n", "no header"),
    (b"PK\x03\x04rest", "Excel workbook"),
    (b"\xff\xfea\x00", "UTF-16"),
    (b"\x1f\x8brest", "gzip"),
    ((HEADER + "n,p,5,8,yes,north\n").encode(), "row 1 (line 2): has 6 cells"),
    ((HEADER + GOOD + "n,p,5,8,yes,north,1,2\n").encode(), "row 2 (line 3): has 8 cells"),
    ((HEADER + GOOD + "   \n").encode(), "row 2 (line 3): has 1 cells"),
    (HEADER.encode() + b"n,p,5,8,yes,n\xf6rth,1\n", "line 2: is not UTF-8"),
    (HEADER.encode() + b'n,p,5,"8' + b"\n1,2,3" * 400_000, "line 2: a cell is too long"),
    (HEADER.replace(",", ";").encode(), 'separated by ";"'),
    (HEADER.replace("age", "weight").encode(), 'the column "weight" appears twice'),
    (HEADER.replace("age", " ").encode(), "column 3 has no name"),
    (HEADER.replace("age", '"a\nb"').encode(), "the name of column 3"),
    (HEADER.replace("age", "a" * 257).encode(), "the name of column 3"),
    (b"x" * 200_000, "no readable header"),
    (b",".join(b"%d" % index for index in range(70_000)), "more than 65535"),
    (HEADER.replace("age", "aeg").encode(), 'Did you mean "aeg"?'),
    (HEADER.encode().replace(b"notes", b"n\xf6tes"), "line 1: is not UTF-8"),
    (HEADER.replace("notes", "remarks").encode(), "`remarks: ignore` leaves it out"),
    (HEADER.replace("notes", "note").encode(), 'Did you mean "notes"?'),
]


@pytest.mark.parametrize(("content", "said"), FILES)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = written(tmp_path, content)
    error = refused(path)
    assert error.where["file"] == str(path)
    assert str(error).startswith("data.csv")
    assert said in str(error)
    assert error.exit_code == 3


def test_missing_files_and_directories_are_named(tmp_path: Path) -> None:
    assert "there is no such file" in str(refused(tmp_path / "none.csv"))
    assert "is a directory" in str(refused(tmp_path))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + GOOD)
    path.unlink()
    path.symlink_to(path)
    assert "cannot be read" in str(refused(path))


NUMBER = "columns:\n  x: {type: number, range: [0, 10]}\nlabel: {column: y, type: binary}\n"


def parquet(directory: Path, **columns: pa.Array) -> Path:
    path = directory / "data.parquet"
    pa.parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pa.array([1.0, float("nan")]), '"nan" is not a number (NaN)'),
        (pa.array([1.0, float("inf")]), '"inf" is infinite'),
        (pa.array([1.0, None]), "the cell is empty"),
        (pa.array([1, 11]), '"11" is outside the range [0, 10]'),
        (pa.array(["1", "one"]), '"one" is not a number'),
        (pa.array(["1", "one"]).dictionary_encode(), '"one" is not a number'),
    ],
)
def test_a_bad_cell_of_parquet_is_named(tmp_path: Path, values: pa.Array, said: str) -> None:
    path = parquet(tmp_path, x=values, y=pa.array([0, 1]))
    error = refused(path, NUMBER)
    assert error.where == {"file": str(path), "row": 2, "column": "x"}
    assert said in str(error)


def test_other_faults_of_parquet_are_named(tmp_path: Path) -> None:
    y = pa.array([0, 1])
    nested = parquet(tmp_path, x=pa.array([[1], [2]]), y=y)
    assert "cannot be encoded" in str(refused(nested, NUMBER))
    labels = parquet(tmp_path, x=pa.array([1, 2]), y=pa.array([0, 2]))
    assert '"2" is not one of the classes' in str(refused(labels, NUMBER))
    columns = parquet(tmp_path, x=pa.array([1, 2]), z=y)
    assert 'the column "y" of the schema is not in the file' in str(refused(columns, NUMBER))
    empty = parquet(tmp_path, x=pa.array([], pa.float64()), y=pa.array([], pa.int64()))
    assert "no rows" in str(refused(empty, NUMBER))
    whole = parquet(tmp_path, x=pa.array([1, 2]), y=y).read_bytes()
    assert "not a whole Parquet file" in str(
        refused(written(tmp_path, whole[:-8], "data.parquet"), NUMBER)
    )
    assert "is not a Parquet file" in str(refused(written(tmp_path, "x,y\n", "a.parquet"), NUMBER))


def test_a_parquet_file_damaged_inside_is_named(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).random(10_000)
    path = parquet(tmp_path, x=pa.array(rows), y=pa.array((rows > 0.5).astype(np.int8)))
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    error = refused(written(tmp_path, bytes(content), "data.parquet"), NUMBER)
    assert "damaged" in str(error)


def test_long_values_are_cut_short(tmp_path: Path) -> None:
    error = refused(written(tmp_path, HEADER + f"n,p,{'9x' * 5000},8,yes,north,1\n"), PATIENTS)
    assert len(str(error)) < 300


def test_several_faulty_columns_are_reported_together(tmp_path: Path) -> None:
    rows = GOOD + "n,,x,8,yes,north,1\nn,p,5,8,maybe,north,1\n" + GOOD
    error = refused(written(tmp_path, HEADER + rows))
    assert (error.where["row"], error.where["column"]) == (2, "age")
    lines = str(error).splitlines()
    assert lines[1] == "Other columns have faults too:"
    assert 'row 3 (line 4), column "smoker": "maybe"' in lines[2] + lines[3]
    assert 'row 2 (line 3), column "patient": the identifier is empty' in lines[2] + lines[3]


def test_text_of_parquet_must_be_utf8(tmp_path: Path) -> None:
    buffers = [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")]
    broken = pa.Array.from_buffers(pa.string(), 1, buffers)
    path = parquet(tmp_path, x=broken, y=pa.array([1]))
    assert "damaged" in str(refused(path, NUMBER))


def test_pipes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe or device" in str(refused(tmp_path / "pipe"))


def test_letters_of_all_languages_are_shown_as_they_are(tmp_path: Path) -> None:
    error = refused(written(tmp_path, HEADER + "n,p,5,8,yes,Süd 北,1\n"))
    assert '"Süd 北" is not one of' in str(error)


PIECES = [b",", b"\n", b"\r", b'"', b"1", b"x", b"yes", b"\xff", b"\xc3\xa4", b"\x00", b" ", b"nan"]


@given(st.lists(st.sampled_from([*PIECES, b"\n1,2\n"]), max_size=25), st.booleans())
def test_any_bytes_are_shared_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], header: bool
) -> None:
    content = (b"a,b\n" if header else b"") + b"".join(pieces)
    path = written(tmp_path_factory.mktemp("fuzz"), content)
    schema = "columns: {a: {type: number, range: [0, 9]}, b: {type: category, categories: [x, ä]}}"
    for use in (lambda: joined(stream(path, schema)), lambda: draft(path)):
        said = None
        try:
            use()
        except DataError as error:
            said = error
        if said is not None:
            assert said.where["file"] == str(path)
            assert str(said).isprintable() or "Other columns" in str(said)
