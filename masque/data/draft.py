"""A first schema for a CSV or Parquet file, to be reviewed by its owner before it is used.

Ranges and categories of a schema are public, and a draft takes them from the private data: its
text says so at the top, and numeric ranges are rounded outwards to two significant digits.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from masque.data.cells import as_text
from masque.data.columns import Column, CsvFormat
from masque.data.faults import fault, listed, suggestion
from masque.data.readers import column_names, open_table
from masque.data.schema import Schema

DELIMITERS: tuple[Literal[",", ";", "\t", "|"], ...] = (",", ";", "\t", "|")
MAX_CATEGORIES = 20
"""More different texts than this are taken for names or notes, not for categories."""

WARNING = """\
# DRAFT, made from {file}. REVIEW EVERY LINE BEFORE SHARING ANYTHING.
#
# What stands in this file becomes PUBLIC: every party and every other owner sees it. The ranges
# and categories below were taken from the PRIVATE data (ranges rounded outwards). Replace them by
# what is known of such data in general: an age is [0, 120], whoever the patients are.
# All owners whose rows are to be stacked must use the same schema.
"""


@dataclass
class _Seen:
    """What one column has shown so far."""

    rows: int = 0
    missing: int = 0
    numeric: bool = True
    whole: bool = True
    low: float = math.inf
    high: float = -math.inf
    texts: set[str] = field(default_factory=set)
    commas: bool = False

    def add(self, array: Any) -> None:
        text = pc.utf8_trim_whitespace(as_text(array))
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, text.type), text)
        self.rows += len(text)
        self.missing += text.null_count
        if len(self.texts) <= MAX_CATEGORIES:
            self.texts.update(text.drop_null().unique().to_pylist())
        if self.numeric:
            self._add_numbers(text)

    def _add_numbers(self, text: Any) -> None:
        if pc.any(pc.match_substring_regex(text, r"^[+-]?\d+,\d+$")).as_py():
            self.commas = True
            text = pc.replace_substring(text, ",", ".")
        try:
            numbers = pc.cast(text, pa.float64()).drop_null()
        except pa.ArrowInvalid:
            self.numeric = False
            return
        numbers = numbers.filter(pc.is_finite(numbers))
        if len(numbers) == 0:
            return
        limits = pc.min_max(numbers)
        self.low = min(self.low, limits["min"].as_py())
        self.high = max(self.high, limits["max"].as_py())
        self.whole = self.whole and bool(pc.all(pc.equal(numbers, pc.round(numbers))).as_py())


def draft(path: str | Path, label: str | None = None, csv: CsvFormat | None = None) -> str:
    """The text of a schema for the file `path`, with `label` as its label.

    The text is itself a valid schema wherever a guess was possible. Errors: DataError for a file
    that cannot be read or has no such label.
    """
    source = Path(path)
    form = csv or guess_format(source)
    names = column_names(source, form)
    if label is not None and label not in names:
        raise fault(
            source,
            f"there is no column {label!r} to be the label.",
            suggestion(label, names) or f"Its columns are {listed(names, 12)}.",
            column=label,
        )
    seen = _look(source, names, form)
    commas = any(one.commas and one.numeric for one in seen.values())
    if csv is None and commas and form.delimiter != ",":
        form = CsvFormat(delimiter=form.delimiter, decimal=",")
    lines = [WARNING.format(file=source.name), f"table: {_scalar(source.stem)}"]
    if form != CsvFormat():
        lines.append(f"csv: {{delimiter: {_quoted(form.delimiter)}, decimal: '{form.decimal}'}}")
    lines.append("columns:" if set(names) != {label} else "columns: {}")
    lines += [f"  {_scalar(name)}: {_guess(name, seen[name])}" for name in names if name != label]
    lines += _label_lines(label, seen)
    return "\n".join(lines) + "\n"


def guess_format(source: Path) -> CsvFormat:
    """The delimiter that cuts the header into most cells; for Parquet just the default."""
    forms = [CsvFormat(delimiter=sign) for sign in DELIMITERS]
    with source.open("rb") if source.is_file() else io.BytesIO() as file:
        header = file.readline(2**16)
    if header.startswith(b"PAR1"):
        return forms[0]
    return max(forms, key=lambda form: header.count(form.delimiter.encode()))


def _look(source: Path, names: list[str], csv: CsvFormat) -> dict[str, _Seen]:
    everything = Schema(
        csv=csv, columns={name: Column(type="category", categories=("?",)) for name in names}
    )
    seen = {name: _Seen() for name in names}
    for block in open_table(source, everything).blocks():
        for name in names:
            seen[name].add(block.columns[name])
    return seen


def _guess(name: str, seen: _Seen) -> str:
    empty = ", missing: refuse" if seen.missing else ""
    note = "  # has empty cells: choose another `missing` rule" if seen.missing else ""
    words = name.casefold().replace("-", "_").replace(" ", "_").split("_")
    if seen.missing == seen.rows:
        return "ignore  # always empty"
    if {"id", "mrn", "uuid", "identifier", "patient"} & set(words):
        return "ignore  # looks like an identifier; `identifier` if owners join columns by it"
    if seen.texts == {"0", "1"}:
        return f"{{type: binary{empty}}}{note}"
    if seen.numeric:
        kind = "integer" if seen.whole else "number"
        low, high = outwards(seen.low, seen.high)
        return f"{{type: {kind}, range: [{low:.15g}, {high:.15g}]{empty}}}{note}"
    if len(seen.texts) <= MAX_CATEGORIES:
        texts = ", ".join(_scalar(text) for text in sorted(seen.texts))
        return f"{{type: category, categories: [{texts}]{empty}}}{note}"
    return "ignore  # text; more than 20 different values"


def _label_lines(label: str | None, seen: dict[str, _Seen]) -> list[str]:
    if label is None:
        return ["# label: {column: ..., type: binary, classes: [0, 1], positive: 1}"]
    found, name = seen[label], _scalar(label)
    texts = sorted(found.texts, key=lambda text: (len(text), text) if found.numeric else (0, text))
    if len(texts) <= MAX_CATEGORIES and (not found.numeric or (found.whole and len(texts) >= 2)):
        classes = ", ".join(_scalar(text) for text in texts)
        if len(texts) == 2:
            return [
                f"label: {{column: {name}, type: binary, classes: [{classes}], "
                f"positive: {_scalar(texts[1])}}}  # is this the class to be found?"
            ]
        return [f"label: {{column: {name}, type: classes, classes: [{classes}]}}"]
    low, high = outwards(found.low, found.high)
    return [f"label: {{column: {name}, type: number, range: [{low:.15g}, {high:.15g}]}}"]


def outwards(low: float, high: float) -> tuple[float, float]:
    """The range [low, high] rounded outwards to two significant digits, never empty."""
    if not low <= high:
        return 0.0, 1.0
    low, high = _rounded(low, ROUND_FLOOR), _rounded(high, ROUND_CEILING)
    if low == high:
        margin = max(1.0, abs(low) / 10)
        return low - margin, high + margin
    return low, high


def _rounded(value: float, direction: str) -> float:
    exact = Decimal(value)
    if not exact:
        return 0.0
    last_digit = Decimal((0, (1,), exact.adjusted() - 1))
    return float(exact.quantize(last_digit, rounding=direction))


def _scalar(text: str) -> str:
    """`text` as YAML inside a flow mapping, quoted whenever that might matter."""
    if not text:
        return "''"
    plain = text.replace("_", "a").replace("-", "a").replace(" ", "a")
    if plain.isalnum() and plain.isascii() and text[0] not in " -" and text[-1] != " ":
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON text is a YAML text
