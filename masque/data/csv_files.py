"""CSV files: UTF-8, one header line, strict about the number of cells and about quotes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from masque.data import locate
from masque.data.blocks import Reader, check_names, system_fault
from masque.data.faults import fault, quote
from masque.data.schema import Schema
from masque.errors import DataError

BLOCK_BYTES = 2**20
WIDE_BLOCK_BYTES = 2**24
WIDE = 1000
"""Columns from which a CSV row may need the larger block."""


class CsvReader(Reader):
    """UTF-8 text with one header line; cells come as text, missing ones as null."""

    def __init__(self, path: Path, schema: Schema) -> None:
        super().__init__(path, schema)
        self.delimiter = schema.csv.delimiter
        self.header = read_header(path, self.delimiter)
        if len(schema.needed) > 1:
            _check_delimiter(path, self.delimiter, self.header)
        check_names(path, self.header, schema)

    def line_of(self, row: int) -> int | None:
        """See Reader."""
        return locate.line_of(self.path, self.delimiter, row)

    def _batches(self) -> Iterator[Any]:
        block = BLOCK_BYTES if len(self.header) < WIDE else WIDE_BLOCK_BYTES
        needed = self.schema.needed
        try:
            reader = pa.csv.open_csv(
                str(self.path),
                read_options=pa.csv.ReadOptions(block_size=block),
                parse_options=pa.csv.ParseOptions(
                    delimiter=self.delimiter, newlines_in_values=True
                ),
                convert_options=pa.csv.ConvertOptions(
                    include_columns=needed,
                    column_types=dict.fromkeys(needed, pa.string()),
                    null_values=["", *self.schema.missing_markers],
                    strings_can_be_null=True,
                ),
            )
            yield from reader
        except pa.ArrowInvalid as error:
            raise self._unreadable(str(error)) from None
        except OSError as error:
            raise system_fault(self.path, error) from None

    def _unreadable(self, said: str) -> DataError:
        """Arrow's complaint, with the place looked up by the slow reader."""
        if "UTF8" in said:
            return _not_utf8(self.path, locate.undecodable(self.path))
        place = locate.ragged(self.path, self.delimiter, len(self.header))
        if place is not None:
            more = "more" if len(place.cells) > len(self.header) else "fewer"
            return fault(
                self.path,
                f"has {len(place.cells)} cells where the header has {len(self.header)}.",
                f"{more.capitalize()} cells than columns: look for a stray or missing "
                f"{quote(self.delimiter)}, or quote cells that contain one.",
                row=place.row,
                line=place.line,
            )
        endless = locate.endless(self.path, self.delimiter)
        if endless is not None or "straddling" in said:
            return fault(
                self.path,
                "a cell is too long: a quotation mark is opened and never closed.",
                'Close it, or write "" for a quotation mark inside a cell.',
                line=endless,
            )
        if "Empty CSV" in said:
            return fault(self.path, "has a header but no rows.", "Export the data again.")
        return fault(self.path, "cannot be read as CSV.", f"The reader says: {quote(said)}.")


def read_header(path: Path, delimiter: str) -> list[str]:
    """The cells of the first line that is not blank. Errors: DataError if there is none."""
    try:
        for place in locate.rows(path, delimiter):
            if any("\ufffd" in cell for cell in place.cells):
                _check_encoding(path)
            return place.cells
    except csv.Error as error:
        raise fault(path, f"has no readable header: {error}.", "Is it a CSV?") from None
    raise fault(path, "has no header line.", "The first line must name the columns.")


def _check_delimiter(path: Path, delimiter: str, header: list[str]) -> None:
    for other in (";", "\t", "|", ","):
        if len(header) == 1 and other != delimiter and other in header[0]:
            raise fault(
                path,
                f"its cells seem to be separated by {quote(other)}, not {quote(delimiter)}.",
                f"Add `csv: {{delimiter: {quote(other)}}}` to the schema.",
                line=1,
            )


def _check_encoding(path: Path) -> None:
    line = locate.undecodable(path)
    if line is not None:
        raise _not_utf8(path, line)


def _not_utf8(path: Path, line: int | None) -> DataError:
    return fault(
        path,
        "is not UTF-8 text.",
        'Save it as "CSV UTF-8" (iconv -f LATIN1 -t UTF-8 converts old exports).',
        line=line,
    )
