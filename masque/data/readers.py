"""Opening a data file: what kind is it, and does it hold what the schema says?"""

from __future__ import annotations

from pathlib import Path

from masque.data.blocks import Block, Reader, check_header, system_fault
from masque.data.columns import CsvFormat
from masque.data.csv_files import CsvReader, read_header
from masque.data.faults import fault
from masque.data.parquet_files import ParquetReader, read_layout
from masque.data.schema import Schema

__all__ = ["Block", "Reader", "column_names", "open_table"]

_FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


def open_table(path: str | Path, schema: Schema) -> Reader:
    """The reader for the file `path`, its header checked against the schema."""
    source = Path(path)
    return ParquetReader(source, schema) if _is_parquet(source) else CsvReader(source, schema)


def column_names(path: str | Path, form: CsvFormat) -> list[str]:
    """The names of the file's columns; DataError if one has no name or appears twice."""
    source = Path(path)
    if _is_parquet(source):
        names = list(read_layout(source).names)
    else:
        names = read_header(source, form.delimiter)
    check_header(source, names)
    return names


def _is_parquet(source: Path) -> bool:
    start = _first_bytes(source)
    if start.startswith(b"PAR1"):
        return True
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise fault(source, f"is {what}.", 'Save it as "CSV UTF-8" or as Parquet.')
    if source.suffix.lower() in (".parquet", ".pq"):
        raise fault(source, "is not a Parquet file, whatever its name.", "Export it again.")
    return False


def _first_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise fault(path, "is a directory.", "Name one CSV or Parquet file in it.")
        if path.exists() and not path.is_file():
            raise fault(path, "is a pipe or device.", "It is read twice: save it as a file.")
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise fault(path, f"there is no such file: {path}.", "Check the path.") from None
    except OSError as error:
        raise system_fault(path, error) from None
    if not start:
        raise fault(path, "is empty.", "Export the data again.")
    return start
