"""What the cells of one column mean: numbers or category codes, or a fault with its row.

The fast path handles whole columns in Arrow and numpy; only a column with something odd in it
(blanks around a value, or a real fault) is looked at a second time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from masque.data.faults import listed, quote, suggestion
from masque.data.readers import Block, Reader
from masque.errors import DataError

MAX_TEXT = 1000
"""Characters in one text cell that is used."""

_MISSING_CURE = (
    "Fill it in, or choose a `missing` rule for this column in the schema "
    "(middle_of_range, {value: X}; zeros for categories)."
)


def numbers(
    reader: Reader,
    block: Block,
    name: str,
    limits: tuple[float, float],
    *,
    integer: bool = False,
    clip: bool = False,
    fill: float | None = None,
) -> NDArray[np.float64]:
    """Column `name` of the block as float64 [rows], all within `limits`, missing cells filled.

    Errors: DataError for text, NaN, infinity, fractions in an integer column, a number outside
    the limits (unless `clip`), a missing cell (unless `fill`).
    """
    array = _as_floats(reader, block, name)
    empty = _nulls(array)
    filled = array if empty is None else pc.fill_null(array, 0.0)
    values: NDArray[np.float64] = filled.to_numpy(zero_copy_only=False)
    if empty is not None:
        if fill is None:
            raise _missing(reader, block, name, empty)
        values = np.where(empty, fill, values)
    low, high = limits
    fits = (values >= low) & (values <= high)
    if not fits.all():
        _check_finite(reader, block, name, values)
        if not clip:
            row = int(np.argmin(fits))
            raise reader.fault_at(
                block.first_row + row,
                name,
                f"{quote(_shown(block, name, row))} is outside the range "
                f"[{low:.15g}, {high:.15g}] of the schema.",
                "Correct it, widen the (public) range for all data sets, or add `outside: clip`.",
            )
        values = np.clip(values, low, high)
    if integer:
        whole = values == np.rint(values)
        if not whole.all():
            row = int(np.argmin(whole))
            raise reader.fault_at(
                block.first_row + row,
                name,
                f"{quote(_shown(block, name, row))} is not a whole number.",
                "Correct it, or use `type: number` in the schema.",
            )
    return values


def _check_finite(reader: Reader, block: Block, name: str, values: NDArray[np.float64]) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    row = int(np.argmin(finite))
    what = "not a number (NaN)" if np.isnan(values[row]) else "infinite"
    raise reader.fault_at(
        block.first_row + row,
        name,
        f"{quote(_shown(block, name, row))} is {what}.",
        "Correct it; if it stands for a missing value, list it under `missing_markers` in the "
        "schema and choose a `missing` rule.",
    )


def _as_floats(reader: Reader, block: Block, name: str) -> Any:
    array = block.columns[name]
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not _is_text(array):
        return _parquet_floats(reader, array)
    comma = reader.schema.csv.decimal == ","
    try:
        return _parse(array, comma)
    except pa.ArrowInvalid:
        tidy = _tidy(reader, array)
    try:
        return _parse(tidy, comma)
    except pa.ArrowInvalid:
        raise _no_number(reader, block, name, tidy, comma) from None


def _parquet_floats(reader: Reader, array: Any) -> Any:
    if pa.types.is_boolean(array.type):
        array = pc.cast(array, pa.uint8())
    array = pc.cast(array, pa.float64(), safe=False)
    if any(marker.casefold() == "nan" for marker in reader.schema.missing_markers):
        return pc.if_else(pc.is_nan(array), pa.scalar(None, pa.float64()), array)
    return array


def _parse(array: Any, comma: bool) -> Any:
    if comma:
        if pc.any(pc.match_substring(array, ".")).as_py():
            raise pa.ArrowInvalid("a point where the decimal sign is a comma")
        array = pc.replace_substring(array, ",", ".")
    return pc.cast(array, pa.float64())


def _tidy(reader: Reader, array: Any) -> Any:
    """Text without blanks around it; what then is nothing, or a marker, is missing."""
    trimmed = pc.utf8_trim_whitespace(array)
    markers = pa.array(["", *reader.schema.missing_markers], trimmed.type)
    return pc.if_else(pc.is_in(trimmed, markers), pa.scalar(None, trimmed.type), trimmed)


def _no_number(reader: Reader, block: Block, name: str, array: Any, comma: bool) -> DataError:
    start, stop = 0, len(array)
    while stop - start > 1:  # the first half that cannot be parsed holds the first culprit
        middle = (start + stop) // 2
        try:
            _parse(array.slice(start, middle - start), comma)
            start = middle
        except pa.ArrowInvalid:
            stop = middle
    text = str(array[start].as_py())
    cure = "Correct it; if it stands for a missing value, list it under `missing_markers`."
    if not comma and "," in text and text.replace(",", "").replace(".", "").strip("+-").isdigit():
        cure = "Write it with a decimal point and no thousands sign, or add `csv: {decimal: ','}`."
    elif text[:1] in "−–—":  # U+2212 and two dashes
        cure = "Write the minus sign as a plain hyphen (-)."
    elif comma and "." in text:
        cure = "The schema says that the decimal sign is a comma; remove the point."
    return reader.fault_at(block.first_row + start, name, f"{quote(text)} is not a number.", cure)


def category_codes(
    reader: Reader,
    block: Block,
    name: str,
    values: tuple[str, ...],
    *,
    fill: str | None = None,
    allow_missing: bool = False,
    what: str = "category",
) -> NDArray[np.int64]:
    """Column `name` as int64 [rows] of positions in `values`; -1 for missing cells if allowed.

    Errors: DataError for a cell that is none of `values`, or missing without `fill`.
    """
    known = pa.array(values, pa.string())
    text = as_text(block.columns[name], values)
    codes = pc.index_in(text, value_set=known)
    if codes.null_count > text.null_count:
        text = _tidy(reader, text)
        codes = pc.index_in(text, value_set=known)
    empty = _nulls(text)
    found: NDArray[np.int64] = (
        pc.fill_null(codes, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    unknown = found < 0 if empty is None else (found < 0) & ~empty
    if unknown.any():
        row = int(np.argmax(unknown))
        raise _unknown_category(reader, block, name, text[row].as_py(), row, values, what)
    if empty is not None and not allow_missing:
        if fill is None:
            raise _missing(reader, block, name, empty)
        found[empty] = values.index(fill)
    return found


def _unknown_category(
    reader: Reader,
    block: Block,
    name: str,
    given: str,
    row: int,
    values: tuple[str, ...],
    what: str,
) -> DataError:
    key = "classes" if what == "class" else "categories"
    plural = "classes" if what == "class" else "categories"
    meant = suggestion(given, values)
    return reader.fault_at(
        block.first_row + row,
        name,
        f"{quote(given)} is not one of the {plural} {listed(values)}.",
        f"{meant} Otherwise correct it, or add it to `{key}` in the schemas of all data "
        "sets.".strip(),
    )


def as_text(array: Any, values: tuple[str, ...] = ()) -> Any:
    """An Arrow array of any scalar type as text: whole numbers without a point.

    Booleans are `true` and `false`, or 1 and 0 where `values` says 0 or 1.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_boolean(array.type) and {"0", "1"} & set(values):
        array = pc.cast(array, pa.uint8())
    if pa.types.is_decimal(array.type) and array.type.scale != 0:
        array = pc.cast(array, pa.float64())
    if pa.types.is_floating(array.type):
        small = pc.less(pc.abs(array), 2.0**53)
        whole = pc.and_(small, pc.equal(array, pc.round(array)))
        if pc.all(whole).as_py() in (True, None):
            array = pc.cast(array, pa.int64(), safe=False)
    return pc.cast(array, pa.string())


def _is_text(array: Any) -> bool:
    return bool(pa.types.is_string(array.type) or pa.types.is_large_string(array.type))


def _nulls(array: Any) -> NDArray[np.bool_] | None:
    if array.null_count == 0:
        return None
    mask: NDArray[np.bool_] = pc.is_null(array).to_numpy(zero_copy_only=False)
    return mask


def _shown(block: Block, name: str, row: int) -> object:
    return block.columns[name][row].as_py()


def _missing(reader: Reader, block: Block, name: str, empty: NDArray[np.bool_]) -> DataError:
    row = int(np.argmax(empty))
    label = reader.schema.label is not None and reader.schema.label.column == name
    cure = "Every row needs its label: fill it in or leave the row out." if label else _MISSING_CURE
    return reader.fault_at(block.first_row + row, name, "the cell is empty.", cure)
