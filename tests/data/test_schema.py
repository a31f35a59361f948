"""The schema file: every key checked, every fault with its line and a cure."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from masque.data.columns import Column
from masque.data.schema import Schema, load, loads
from masque.data.table import (
    FeatureColumn,
    LabelInfo,
    TableInfo,
    canonical_json,
    describe,
    parse_table,
    schema_digest,
)
from masque.errors import DataError
from tests.data.files import PATIENTS

AGE = "columns:\n  age: {type: number, range: [0, 120]}\n"
FAULTS = [
    ("", None, "no `columns:` and `label:`"),
    ("just text", None, "no `columns:` and `label:`"),
    ("columns: ]", 1, "not valid YAML"),
    (AGE + "  b: 'x\n", 3, "not valid YAML"),
    (AGE + "labl: {}\n", 3, 'Did you mean "label"?'),
    (AGE + "name: x\n", 3, 'Known keys: "table", "csv"'),
    (AGE + "columns: {}\n", 3, '"columns" is given twice'),
    (AGE + "  age: ignore\n", 3, '"age" is given twice'),
    ("columns:\n  age: {tpye: number}\n", 2, 'Did you mean "type"?'),
    ("columns:\n  age: {type: numbr}\n", 2, 'Did you mean "number"?'),
    ("columns:\n  age: {range: [0, 1]}\n", 2, 'column "age" needs the key "type"'),
    ("columns:\n  age: {type: number}\n", 2, "needs `range: [lowest, highest]`"),
    ("columns:\n  age: {type: number, range: [5, 5]}\n", 2, "is empty"),
    ("columns:\n  age: {type: number, range: [9, 5]}\n", 2, "is empty"),
    ("columns:\n  age: {type: number, range: [0]}\n", 2, "two finite numbers"),
    ("columns:\n  age: {type: number, range: [0, ten]}\n", 2, "two finite numbers"),
    ("columns:\n  age: {type: number, range: [0, .inf]}\n", 2, "two finite numbers"),
    ("columns:\n  age: {type: number, range: [0, nan]}\n", 2, "two finite numbers"),
    ("columns:\n  age: {type: number, range: [-1.7e308, 1.7e308]}\n", 2, "too wide"),
    ("columns:\n  x: {type: number, range: [0, 2e6], scaling: none}\n", 2, "within ±1048576"),
    ("columns:\n  x: {type: binary, range: [0, 1]}\n", 2, "`range` does not belong"),
    ("columns:\n  x: {type: binary, categories: [a]}\n", 2, "must list 2 values, not 1"),
    ("columns:\n  x: {type: category}\n", 2, "must list 1 to"),
    ("columns:\n  x: {type: category, categories: [a, b, a]}\n", 2, "lists 'a' twice"),
    ("columns:\n  x: {type: binary, categories: [' a', b]}\n", 2, "blanks at its ends"),
    ("missing_markers: [a]\ncolumns:\n  x: {type: binary, categories: [a, b]}\n", 1, "and a value"),
    ('columns:\n  "x\\e": {type: binary}\n', 2, "printable"),
    ("columns:\n  x: {type: identifier, missing: zeros}\n", 2, "`missing` does not belong"),
    ("columns:\n  x: {type: binary, missing: zeros}\n", 2, "is for categories"),
    ("columns:\n  x: {type: binary, missing: {value: 3}}\n", 2, "not one of the categories"),
    ("columns:\n  x: {type: binary, missing: middle_of_range}\n", 2, "needs a range"),
    ("columns:\n  x: {type: number, range: [0, 1], missing: {value: 3}}\n", 2, "outside the range"),
    ("columns:\n  x: {type: number, range: [0, 1], missing: {value: a}}\n", 2, "is no number"),
    ("columns:\n  x: {type: number, range: [0, 1], missing: {valu: 1}}\n", 2, '"value"?'),
    ("columns:\n  x: {type: number, range: [0, 1], missing: refus}\n", 2, '"refuse"?'),
    ("columns:\n  x: {type: integer, range: [0, 1], missing: {value: 0.5}}\n", 2, "whole number"),
    ("columns:\n  x: ignore\n", 1, "there is nothing to share"),
    ("columns:\n  x: identifier\n  y: identifier\n" + AGE[9:], 1, "only one identifier"),
    ("columns:\n  x: {type: category, categories: [b]}\n  x=b: {type: binary}\n", 1, "'x=b'"),
    ("columns:\n- {name: x, type: binary}\n- {name: x, type: binary}\n", 1, "listed twice"),
    ("columns:\n- {type: binary}\n", 1, "needs a `name`"),
    (AGE + "label: {column: age, type: binary}\n", 1, "must not be under `columns` too"),
    (AGE + "label: {column: y, type: binary, classes: [a, b]}\n", 3, "`positive: b`"),
    (AGE + "label: {column: y, type: binary, positive: 2}\n", 3, "list both"),
    (AGE + "label: {column: y, type: number}\n", 3, "needs `range"),
    (AGE + "label: {column: y, type: classes}\n", 3, "must list 2 to"),
    (AGE + "label: {column: y, type: classes, classes: [a, b], positive: a}\n", 3, "binary only"),
    (AGE + "label: {column: y, type: binary, range: [0, 1]}\n", 3, "type number only"),
    (AGE + "label: malignant\n", 3, "label"),
    (AGE + "csv: {delimiter: x}\n", 3, "csv.delimiter"),
    (AGE + "csv: {delimiter: ',', decimal: ','}\n", 3, "cannot be the same"),
    ("a: &x {}\nb: *x\n", None, "aliases"),
    ("? [a]\n: 3\n", 1, "plain text"),
    ("columns: " + "[" * 40 + "]" * 40, 1, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "line", "said"), FAULTS)
def test_a_fault_is_named_with_its_line(text: str, line: int | None, said: str) -> None:
    with pytest.raises(DataError) as caught:
        loads(text, "patients.yaml")
    message = str(caught.value)
    assert message.startswith("patients.yaml" if line is None else f"patients.yaml, line {line}"), (
        message
    )
    assert said in message
    assert caught.value.where["file"] == "patients.yaml"


def test_missing_and_foreign_schema_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such schema file.*masque schema"):
        load(tmp_path / "none.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        load(tmp_path / "a.yaml")


def test_scalars_mean_what_they_look_like() -> None:
    schema = loads(
        "columns:\n  a: {type: binary, categories: [no, yes]}\n"
        "  b: {type: category, categories: [01, 1, 1.0, null, 2024-01-01]}\n"
        "  c: {type: number, range: [-1e3, 1E3]}\n"
    )
    assert schema.columns["a"].values == ("no", "yes")
    assert schema.columns["b"].values == ("01", "1", "1.0", "null", "2024-01-01")
    assert schema.columns["c"].span == (-1000.0, 1000.0)


def test_columns_may_be_a_list() -> None:
    listed = loads(
        "columns:\n- {name: x, type: number, range: [0, 1]}\n- {name: n, type: ignore}\n"
    )
    assert listed == loads("columns:\n  x: {type: number, range: [0, 1]}\n  n: ignore\n")


CHANGES = [
    ("[0, 120]", "[0, 121]"),
    ("type: integer", "type: number"),
    ("age:", "years:"),
    ("[no, yes]}", "[no, yes]}\n  more: {type: binary}"),
    ("[north, 01]", "[01, north]"),
    ("malignant", "benign"),
    ("type: binary}\n", "type: classes, classes: [0, 1]}\n"),
]
HARMLESS = [
    ("missing: middle_of_range", "missing: {value: 3}"),
    ("notes:   ignore", "remarks: ignore"),
    ("patient: identifier", "id: identifier"),
    ("\ncolumns", "\ntable: hospital-b\ncolumns"),
    ("[0, 120]", "[0.0, 1.2e2]"),
    ("type: binary}\n", "type: binary, classes: [1, 0], positive: 1}\n"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_the_digest_covers_what_must_agree(old: str, new: str) -> None:
    assert old in PATIENTS
    assert loads(PATIENTS).digest != loads(PATIENTS.replace(old, new)).digest


@pytest.mark.parametrize(("old", "new"), HARMLESS)
def test_the_digest_leaves_out_what_may_differ(old: str, new: str) -> None:
    assert old in PATIENTS
    assert loads(PATIENTS).digest == loads(PATIENTS.replace(old, new)).digest


def test_the_digest_never_changes_by_accident() -> None:
    assert loads(PATIENTS).digest == (
        "70b4d68948c37d969a1737570aa5df76514b13ebb594a414faaa76b8902e32b7"
    )


def test_a_table_travels_as_json() -> None:
    info = loads(PATIENTS).describe(569)
    assert parse_table(info.model_dump_json()) == info
    assert info.share_bytes == 569 * info.columns * 8
    assert info.has_identifiers


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"rows":569', '"rows":0'),
        ('"rows":569', '"rows":1e30'),
        ('"rows":569', '"rows":569,"more":1'),
        ('"scale":24', '"scale":16'),
        ('"half":60.0', '"half":61.0'),
        ('"half":60.0', '"half":0.0'),
        ('"bound":1.0', '"bound":1e9'),
        ('"name":"age"', '"name":"weight"'),
        ('"classes":["0","1"]', '"classes":["1","0"]'),
        ("{", "["),
    ],
)
def test_a_forged_description_is_refused(old: str, new: str) -> None:
    text = loads(PATIENTS).describe(569).model_dump_json()
    assert old in text
    with pytest.raises(DataError, match="not valid"):
        parse_table(text.replace(old, new, 1))


def test_impossible_tables_are_refused() -> None:
    one = FeatureColumn(name="x", source="x", kind="number")
    label = LabelInfo(name="x", kind="number")
    for features, target in (((), None), ((one, one), None), ((one,), label)):
        with pytest.raises(ValidationError):
            describe(1, features, target)
    for kind, classes in (("binary", ("a",)), ("number", ("a",)), ("classes", ("a", "a"))):
        with pytest.raises(ValidationError):
            LabelInfo.model_validate({"name": "y", "kind": kind, "classes": classes})


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": -0.0, "a": [1, "é"]}) == b'{"a":[1,"\\u00e9"],"b":0.0}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_any_range_is_mapped_into_one(low: float, high: float) -> None:
    try:
        column = Column.model_validate({"type": "number", "range": [low, high]})
    except ValidationError:
        assert not low < high or (high - low) / 2 == 0
        return
    (feature,) = column.features("x")
    assert feature.half > 0
    for value in (low, high):
        assert abs((value - feature.middle) / feature.half) <= 1 + 1e-9


def test_without_label_keeps_the_features() -> None:
    schema = loads(PATIENTS)
    bare = schema.without_label()
    assert bare.label is None
    assert bare.features() == schema.features()
    assert bare.without_label() is bare
    assert schema_digest(bare.features(), None) == bare.digest
    assert isinstance(bare, Schema)
    assert isinstance(bare.describe(1), TableInfo)
