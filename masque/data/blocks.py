"""Blocks: slices of rows with the columns that a schema needs; what every reader yields.

CSV cells come as text with nulls for missing ones, Parquet columns in their own types. What the
cells mean is the business of `cells` and `encode`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masque.data.faults import fault, listed, quote, suggestion
from masque.data.schema import Schema
from masque.data.table import MAX_FEATURES, MAX_NAME, MAX_ROWS, first_repeated
from masque.errors import DataError

MAX_HEADER = MAX_FEATURES
"""Columns of a file, used or ignored."""


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
        names = self.schema.needed
        for batch in self._batches():
            if batch.num_rows == 0:
                continue
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


def system_fault(path: Path, error: OSError) -> DataError:
    """What the operating system says about `path`."""
    said = error.strerror or str(error)
    return fault(path, f"cannot be read: {said}.", "Check the path and who may read it.")


def check_header(path: Path, header: list[str]) -> None:
    """Does every column have a name of its own? DataError naming the first that has not."""
    for position, name in enumerate(header, start=1):
        if not name.strip():
            raise fault(
                path,
                f"column {position} has no name.",
                "Name it in the header, or delete it (spreadsheets add empty columns).",
                line=1,
            )
        if len(name) > MAX_NAME or not name.isprintable():
            raise fault(
                path,
                f"the name of column {position}, {quote(name)}, is too long or not plain text.",
                f"Use at most {MAX_NAME} printable characters.",
                line=1,
            )
    if len(header) > MAX_HEADER:
        raise fault(path, f"has {len(header)} columns, more than {MAX_HEADER}.", "Split it.")
    if repeated := first_repeated(header):
        raise fault(
            path,
            f"the column {quote(repeated)} appears twice.",
            "Rename or delete one of them.",
            column=repeated,
        )


def check_names(path: Path, header: list[str], schema: Schema) -> None:
    """Do the file's columns and the schema's agree? DataError with the first difference."""
    check_header(path, header)
    known = [*schema.columns, *([schema.label.column] if schema.label else [])]
    present, known_names = set(header), set(known)
    for name in schema.needed:
        if name not in present:
            raise fault(
                path,
                f"the column {quote(name)} of the schema is not in the file.",
                suggestion(name, header) or f"Its columns are {listed(header)}.",
                column=name,
            )
    for name in header:
        if name not in known_names:
            hint = suggestion(name, [other for other in known if other not in present])
            raise fault(
                path,
                f"the column {quote(name)} is not in the schema.",
                hint or f"Add it there; `{name}: ignore` leaves it out.",
                column=name,
            )
