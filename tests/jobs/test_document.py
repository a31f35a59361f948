from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import SpecError
from masque.jobs.document import LARGEST, parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-0.10", -0.1),
        ("010", 10),
        ("+7", 7),
        ("no", "no"),
        ("off", "off"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("true", True),
        ("'true'", "true"),
        ('"12"', "12"),
        ("~", None),
        ("[1, [a]]", [1, ["a"]]),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = parse(f"key: {text}", "job").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_every_field_has_its_line() -> None:
    document = parse("# note\na:\n  b: 1\n  c:\n    - x\n    - y\n", "job")
    assert document.line(("a",)) == 2
    assert document.line(("a", "b")) == 3
    assert document.line(("a", "c", 1)) == 6
    assert document.line(("a", "missing", "deep")) == 2
    assert document.line(("nothing",)) == 2


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\na: 2", 2, "'a' is there twice"),
        ("a: {b: 1, b: 1}", 1, "'b' is there twice"),
        ("a: &x 1\nb: *x", 1, "anchors"),
        ("\n<<: {a: 1}", 2, "a key must be plain text"),
        ("[1]: 2", 1, "a key must be plain text"),
        ("a: !!python/object:os.system x", 1, "tag"),
        ("a: !!int 3", 1, "tag"),
        ("a: 1\n---\nb: 2", 2, "another document"),
        ("a: [1,\nb: ", 2, ""),
        ("\n\n\tb: 1", 3, ""),
        ("[" * 40 + "]" * 40, 1, "nested too deeply"),
    ],
)
def test_what_is_not_our_yaml_is_refused_with_its_line(text: str, line: int, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text, "job.yaml")
    assert part in str(caught.value)
    assert caught.value.where["line"] == line
    assert f"job.yaml, line {line}, column" in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 60_000, "- " * 5_000, '"\\U99999999"', "\x00", "\ud800"])
def test_hostile_texts_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"job\.yaml"):
        parse(text, "job.yaml")


def test_numbers_too_long_for_a_number_stay_text() -> None:
    assert parse("a: " + "9" * 5000, "job").value["a"] == "9" * 5000


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: x\nlabel: größe".encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin\.yaml, line 2: the file is not UTF-8"):
        read(latin)
    with pytest.raises(SpecError, match=r"none\.yaml cannot be read: No such file"):
        read(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        read(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(SpecError, match="larger than"):
        read(large)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\r\n")
    assert read(path).value == {"name": "x"}


@given(st.text() | st.text(alphabet="ab:{}[]&*!|>-?#'\" \n\t,~0.1e"))
def test_no_text_raises_anything_but_spec_error(text: str) -> None:
    with suppress(SpecError):
        parse(text, "job.yaml")


@given(st.binary())
def test_no_file_raises_anything_but_spec_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    with suppress(SpecError):
        read(path)
