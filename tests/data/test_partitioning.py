"""Which data sets fit together, and what is said about those that do not."""

from __future__ import annotations

import numpy as np
import pytest

from masque.data.partitioning import join, stack
from masque.data.schema import loads
from masque.data.table import TableInfo
from masque.errors import SpecError

X = "x: {type: number, range: [0, 10]}"
Z = "z: {type: integer, range: [0, 10]}"
Y = "\nlabel: {column: y, type: binary}"


def table(columns: str, label: str = "", rows: int = 10) -> TableInfo:
    return loads(f"columns: {{{columns}}}{label}").describe(rows)


def test_stacked_rows_follow_one_another() -> None:
    combined = stack({"a": table(X, Y, 10), "b": table(X, Y, 5), "c": table(X, Y, 1)})
    assert combined.how == "rows"
    assert combined.info == table(X, Y, 16)
    assert [part.rows for part in combined.parts] == [slice(0, 10), slice(10, 15), slice(15, 16)]
    assert all(part.features == slice(0, 1) and part.label for part in combined.parts)


def test_stacked_identifiers_need_no_check() -> None:
    infos = {"a": table("id: identifier, " + X, Y), "b": table(X, Y)}
    assert not stack(infos).identifiers


DIFFERENCES = [
    (table(X + ", " + Z, Y), 'column "z" is only in "b"'),
    (table(Z, Y), 'column "x" is only in "a"'),
    (table(X.replace("number", "integer"), Y), 'column "x" is number in "a" and integer in "b"'),
    (table(X.replace("10", "12"), Y), 'column "x" has the range [0, 10] in "a" and [0, 12] in "b"'),
    (table(X.replace("]", "], scaling: none"), Y), "±10 (not scaled)"),
    (table(X), '"a" has a label and "b" has none'),
    (table(X, Y.replace("column: y", "column: w")), 'the label is "y" in "a" and "w" in "b"'),
    (table(X, Y.replace("y}", "y}")[:-1] + ", classes: [n, p], positive: p}"), "the classes of"),
    (table(X, "\nlabel: {column: y, type: number, range: [0, 1]}"), "is binary"),
]


@pytest.mark.parametrize(("other", "said"), DIFFERENCES)
def test_what_does_not_stack_is_named(other: TableInfo, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        stack({"a": table(X, Y), "same": table(X, Y), "b": other})
    assert said in str(caught.value)
    assert caught.value.where == {"field": "data.rows", "datasets": ("a", "b")}


def test_other_differences_are_named() -> None:
    with pytest.raises(SpecError, match='column 1 is "x" in "a" and "z" in "b"'):
        stack({"a": table(f"{X}, {Z}"), "b": table(f"{Z}, {X}")})
    label = "\nlabel: {column: y, type: number, range: [0, 1]}"
    with pytest.raises(SpecError, match=r"the label has the range \[0, 1\] in .* and \[0, 2\]"):
        stack({"a": table(X, label), "b": table(X, label.replace("1]", "2]"))})


def test_joined_columns_stand_beside_one_another() -> None:
    infos = {"a": table(X), "b": table("", Y), "c": table(Z)}
    combined = join(infos)
    assert combined.info.feature_names == ("x", "z")
    assert combined.info.label == infos["b"].label
    assert combined.info.rows == 10
    assert [part.features for part in combined.parts] == [slice(0, 1), slice(1, 1), slice(1, 2)]
    assert [part.label for part in combined.parts] == [False, True, False]
    assert not combined.identifiers
    columns = np.arange(2)
    assert [columns[part.features].tolist() for part in combined.parts] == [[0], [], [1]]


def test_joined_identifiers_must_be_compared() -> None:
    infos = {"a": table("id: identifier, " + X), "b": table("nr: identifier, " + Z, Y)}
    combined = join(infos)
    assert combined.identifiers and combined.info.has_identifiers


REFUSED = [
    ({"a": table(X), "b": table(Z, Y, 11)}, '"a" has 10 rows and "b" has 11'),
    ({"a": table(X), "b": table(Z)}, 'none of "a", "b" has the label'),
    ({"a": table(X, Y), "b": table(Z, Y)}, '"a", "b" have a label each'),
    ({"a": table(X, Y), "b": table(X)}, '"a" and "b" both have a column "x"'),
    ({"a": table(X, Y), "b": table(Z + ", y: {type: binary}")}, 'both have a column "y"'),
    (
        {
            "a": table("c: {type: category, categories: [p]}", Y),
            "b": table("c: {type: category, categories: [q]}"),
        },
        'both have a column "c"',
    ),
    ({"a": table("id: identifier, " + X), "b": table(Z, Y)}, "with identifiers"),
]


@pytest.mark.parametrize(("infos", "said"), REFUSED)
def test_what_does_not_join_is_named(infos: dict[str, TableInfo], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        join(infos)
    assert said in str(caught.value)
    assert caught.value.where["field"] == "data.columns"
    assert caught.value.where["datasets"] == ("a", "b")


def test_nothing_cannot_be_combined() -> None:
    for combine in (stack, join):
        with pytest.raises(SpecError, match="no data set"):
            combine({})


def test_a_table_can_be_stacked_out_of_reach() -> None:
    huge = table(X, Y, 2**31)
    with pytest.raises(SpecError, match="at most"):
        stack({"a": huge, "b": huge})
