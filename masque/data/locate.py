"""Where in a CSV file is the fault? Slow and exact, for error messages only.

The fast reader knows data rows; people look for lines. Blank lines and quoted line breaks make the
two differ, so the file is read once more with Python's own csv module, up to the fault.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """A data row (from 1; 0 is the header), the line it starts on (from 1), its cells."""

    row: int
    line: int
    cells: list[str]


def rows(path: Path, delimiter: str) -> Iterator[Place]:
    """Every row of the file, header first, blank lines left out. Raises csv.Error."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        row = 0
        end = 0
        for cells in reader:
            start, end = end + 1, reader.line_num
            if cells:
                yield Place(row, start, cells)
                row += 1


def line_of(path: Path, delimiter: str, row: int) -> int | None:
    """The line that data row `row` starts on, or None if it cannot be found."""
    try:
        for place in rows(path, delimiter):
            if place.row == row:
                return place.line
    except csv.Error:
        pass
    return None


def ragged(path: Path, delimiter: str, width: int) -> Place | None:
    """The first row that has not `width` cells, if there is one."""
    try:
        for place in rows(path, delimiter):
            if len(place.cells) != width:
                return place
    except csv.Error:
        pass
    return None


def endless(path: Path, delimiter: str) -> int | None:
    """The line on which a cell starts that is too long to be one: a quote never closed."""
    last = 0
    try:
        for place in rows(path, delimiter):
            last = place.line + sum(cell.count("\n") for cell in place.cells)
    except csv.Error:
        return last + 1
    return None


def undecodable(path: Path) -> int | None:
    """The first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return None
