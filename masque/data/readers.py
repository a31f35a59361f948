"""CSV and Parquet files as a stream of blocks, in bounded memory, strict about everything.

A block is a slice of rows with the columns that the schema needs: CSV cells as text with nulls
for missing ones, Parquet columns in their own types. What the cells mean is `encode`'s business.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from masque.data import locate
from masque.data.faults import fault, listed, quote, suggestion
from masque.data.schema import Schema
from masque.data.table import MAX_ROWS, first_repeated
from masque.errors import DataError

BLOCK_BYTES = 2**20
WIDE_BLOCK_BYTES = 2**24
WIDE = 1000
"""Columns from which a CSV row may need the larger block."""

PARQUET_CELLS = 2**17
"""Cells in one block of a Parquet file: 1 MiB of numbers."""

_FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


@dataclass(frozen=True)
class Block:
    """Rows `first_row`.. (from 0) of the file; `columns` maps names to Arrow arrays."""

    first_row: int
    rows: int
    columns: dict[str, Any]


class Reader(ABC):
    """One data file under one schema. `blocks` can be run several times; each reads anew."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self.schema = schema

    def blocks(self) -> Iterator[Block]:
        """All rows in order. Errors: DataError for a file that breaks off, has no rows, ..."""
        total = 0
        for batch in self._batches():
            if batch.num_rows == 0:
                continue
            names = self.schema.needed
            columns = {name: batch.column(index) for index, name in enumerate(names)}
            yield Block(total, batch.num_rows, columns)
            total += batch.num_rows
            if total > MAX_ROWS:
                raise fault(self.path, f"has more than {MAX_ROWS} rows.", "Split the file.")
        if total == 0:
            raise fault(self.path, "has a header but no rows.", "Export the data again.")

    @abstractmethod
    def _batches(self) -> Iterator[Any]: ...

    def fault_at(self, row: int, column: str, problem: str, cure: str) -> DataError:
        """A DataError about the cell of data row `row` (from 0) in `column`."""
        return fault(
            self.path, problem, cure, row=row + 1, line=self.line_of(row + 1), column=column
        )

    def line_of(self, row: int) -> int | None:
        """The line on which data row `row` (from 1) starts, where there are lines."""
        return None


class CsvReader(Reader):
    """UTF-8 text with one header line; cells come as text, missing ones as null."""

    def __init__(self, path: Path, schema: Schema) -> None:
        super().__init__(path, schema)
        self.delimiter = schema.csv.delimiter
        self.header = self._read_header()
        check_names(path, self.header, schema)

    def line_of(self, row: int) -> int | None:
        """See Reader."""
        return locate.line_of(self.path, self.delimiter, row)

    def _read_header(self) -> list[str]:
        try:
            for place in locate.rows(self.path, self.delimiter):
                self._check_delimiter(place.cells)
                return place.cells
        except csv.Error as error:
            raise fault(self.path, f"has no readable header: {error}.", "Is it a CSV?") from None
        raise fault(self.path, "has no header line.", "The first line must name the columns.")

    def _check_delimiter(self, header: list[str]) -> None:
        if len(header) > 1 or len(self.schema.needed) < 2:
            return
        for other in (";", "\t", "|", ","):
            if other != self.delimiter and other in header[0]:
                raise fault(
                    self.path,
                    f"its cells seem to be separated by {quote(other)}, not "
                    f"{quote(self.delimiter)}.",
                    f"Add `csv: {{delimiter: {quote(other)}}}` to the schema.",
                    line=1,
                )

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
            raise _system_fault(self.path, error) from None

    def _unreadable(self, said: str) -> DataError:
        """Arrow's complaint, with the place looked up by the slow reader."""
        if "UTF8" in said:
            return fault(
                self.path,
                "is not UTF-8 text.",
                'Save it as "CSV UTF-8" (iconv -f LATIN1 -t UTF-8 converts old exports).',
                line=locate.undecodable(self.path),
            )
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


class ParquetReader(Reader):
    """A Parquet file; nested, date and binary columns are refused where they are needed."""

    def __init__(self, path: Path, schema: Schema) -> None:
        super().__init__(path, schema)
        with self._open() as file:
            layout = file.schema_arrow
        check_names(path, layout.names, schema)
        for name in schema.needed:
            self._check_type(name, layout.field(name).type)

    def _open(self) -> Any:
        try:
            return pa.parquet.ParquetFile(str(self.path), buffer_size=BLOCK_BYTES)
        except pa.ArrowInvalid:
            raise fault(
                self.path, "is not a whole Parquet file.", "It may be cut short; copy it again."
            ) from None
        except OSError as error:
            raise _system_fault(self.path, error) from None

    def _check_type(self, name: str, kind: Any) -> None:
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
        number = (
            pa.types.is_integer(inner)
            or pa.types.is_floating(inner)
            or pa.types.is_decimal(inner)
            or pa.types.is_boolean(inner)
        )
        if not (text or number or pa.types.is_null(inner)):
            raise fault(
                self.path,
                f"holds {kind}, which cannot be encoded.",
                "Convert it to numbers or text, or give it `type: ignore` in the schema.",
                column=name,
            )

    def _batches(self) -> Iterator[Any]:
        needed = self.schema.needed
        with self._open() as file:
            size = max(1, PARQUET_CELLS // len(needed))
            try:
                for batch in file.iter_batches(size, columns=needed, use_threads=False):
                    yield batch.select(needed)
            except (pa.ArrowInvalid, OSError) as error:
                raise fault(
                    self.path,
                    "is damaged and cannot be read to its end.",
                    f"Copy or export it again. The reader says: {str(error)[:200]}",
                ) from None


def open_table(path: str | Path, schema: Schema) -> Reader:
    """The reader for the file `path`, its header checked against the schema."""
    source = Path(path)
    start = _first_bytes(source)
    if start.startswith(b"PAR1"):
        return ParquetReader(source, schema)
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise fault(source, f"is {what}.", 'Save it as "CSV UTF-8" or as Parquet.')
    if source.suffix.lower() in (".parquet", ".pq"):
        raise fault(source, "is not a Parquet file, whatever its name.", "Export it again.")
    return CsvReader(source, schema)


def _first_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise fault(path, "is a directory.", "Name one CSV or Parquet file in it.")
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise fault(path, f"there is no such file: {path}.", "Check the path.") from None
    except OSError as error:
        raise _system_fault(path, error) from None
    if not start:
        raise fault(path, "is empty.", "Export the data again.")
    return start


def _system_fault(path: Path, error: OSError) -> DataError:
    said = error.strerror or str(error)
    return fault(path, f"cannot be read: {said}.", "Check the path and who may read it.")


def check_names(path: Path, header: list[str], schema: Schema) -> None:
    """Do the file's columns and the schema's agree? DataError with the first difference."""
    for position, name in enumerate(header, start=1):
        if not name.strip():
            raise fault(
                path,
                f"column {position} has no name.",
                "Name it in the header, or delete it (spreadsheets add empty columns).",
                line=1,
            )
    if repeated := first_repeated(header):
        raise fault(
            path,
            f"the column {quote(repeated)} appears twice.",
            "Rename or delete one of them.",
            column=repeated,
        )
    known = [*schema.columns, *([schema.label.column] if schema.label else [])]
    for name in schema.needed:
        if name not in header:
            raise fault(
                path,
                f"the column {quote(name)} of the schema is not in the file.",
                suggestion(name, header) or f"Its columns are {listed(header)}.",
                column=name,
            )
    for name in header:
        if name not in known:
            hint = suggestion(name, [other for other in known if other not in header])
            raise fault(
                path,
                f"the column {quote(name)} is not in the schema.",
                hint or f"Add it there; `{name}: ignore` leaves it out.",
                column=name,
            )
