"""Drafts are valid schemas of their files, warn loudly, and round outwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.data.draft import draft, outwards
from masque.data.schema import loads
from masque.data.table import LabelInfo
from masque.errors import DataError
from tests.data.files import stream, written


def example(directory: Path) -> Path:
    rows = [
        f"{1000 + row},{20 + row},{-0.0123 * row},{row % 2},{'north' if row % 3 else ''},"
        f"note {row},5,,{'no' if row % 2 else 'yes'},{'M' if row % 2 else 'B'}"
        for row in range(30)
    ]
    header = 'patient_id,age,w,smoker,ward,notes,const,nothing,"odd: name",y'
    return written(directory, "\n".join([header, *rows]) + "\n")


def test_a_draft_says_what_it_saw(tmp_path: Path) -> None:
    text = draft(example(tmp_path), label="y")
    assert text.startswith("# DRAFT")
    assert "REVIEW" in text and "PUBLIC" in text and "PRIVATE" in text
    schema = loads(text)
    assert {name: column.type for name, column in schema.columns.items()} == {
        "patient_id": "ignore",
        "age": "integer",
        "w": "number",
        "smoker": "binary",
        "ward": "category",
        "notes": "ignore",
        "const": "integer",
        "nothing": "ignore",
        "odd: name": "category",
    }
    assert list(schema.columns["age"].span) == [20, 49]
    assert list(schema.columns["w"].span) == [-0.36, 0]
    assert schema.label_info() == LabelInfo(name="y", kind="binary", classes=("B", "M"))


def test_a_draft_fits_its_own_file_once_gaps_are_decided(tmp_path: Path) -> None:
    path = example(tmp_path)
    text = draft(path, label="y").replace("missing: refuse", "missing: zeros")
    assert stream(path, text).info.rows == 30


def test_a_draft_finds_delimiter_and_decimal_sign(tmp_path: Path) -> None:
    path = written(tmp_path, "a;b;y\n1,5;2;1\n2,25;3;0\n")
    text = draft(path, label="y")
    assert loads(text).columns["a"].span == (1.5, 2.3)
    assert stream(path, text).info.columns == 3


def test_labels_are_drafted_by_what_they_hold(tmp_path: Path) -> None:
    for values, kind in ((["10", "9", "2"], "classes"), (["1.5", "2", "3"], "number")):
        path = written(tmp_path, "x,y\n" + "".join(f"1.5,{value}\n" for value in values))
        info = loads(draft(path, label="y")).label_info()
        assert info is not None
        assert info.kind == kind
    assert loads(draft(written(tmp_path, "y\n10\n9\n2\n"), "y")).label_info() == LabelInfo(
        name="y", kind="classes", classes=("2", "9", "10")
    )


def test_a_draft_without_label_can_be_completed(tmp_path: Path) -> None:
    text = draft(written(tmp_path, "x\n1\n2\n"))
    assert "# label: {column: ..." in text
    assert loads(text).label is None


def test_parquet_can_be_drafted(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"x": [1.25, 7.5], "y": [True, False]}), tmp_path / "a.pq")
    text = draft(tmp_path / "a.pq", label="y")
    assert stream(tmp_path / "a.pq", text).info.columns == 2


def test_faults_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, "x,malignant\n1,2\n")
    with pytest.raises(DataError, match=r'Did you mean "malignant"\?'):
        draft(path, label="malignnat")
    with pytest.raises(DataError, match="no such file"):
        draft(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is empty"):
        draft(written(tmp_path, ""))


@given(st.floats(-1e290, 1e290), st.floats(-1e290, 1e290))
def test_ranges_are_rounded_outwards(one: float, other: float) -> None:
    low, high = sorted((one, other))
    below, above = outwards(low, high)
    assert below <= low <= high <= above
    assert below < above
    if below < low and low != high:
        assert low - below <= 0.1 * abs(low) + 5e-324


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=5, unique=True))
def test_any_category_survives_its_draft(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    texts = [text.strip() for text in texts]
    texts = [text for text in texts if text and text.isprintable() and '"' not in text]
    if len(set(texts)) < 2:
        return
    path = tmp_path_factory.mktemp("draft") / "a.parquet"
    pa.parquet.write_table(pa.table({"c": [*texts, "word"]}), path)
    shared = stream(path, draft(path))
    assert shared.info.columns == len({*texts, "word"})


def test_the_example_rounds_as_documented() -> None:
    assert outwards(0.1, 123.4) == (0.1, 130.0)
    assert outwards(-123.4, 9.99) == (-130.0, 10.0)
    assert outwards(0.0, 0.0) == (-1.0, 1.0)
    assert np.all(np.isfinite(outwards(float("inf"), float("-inf"))))


def test_decimal_commas_in_quotes_do_not_make_a_format_of_two_commas(tmp_path: Path) -> None:
    path = written(tmp_path, 'a,b\n"1,2",3\n"4,5",6\n')
    schema = loads(draft(path))
    assert schema.csv.delimiter == "," and schema.csv.decimal == "."
