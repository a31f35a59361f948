"""How faults in files are told to the person who owns them: place, value, cure.

The values quoted here are the owner's own, in the owner's own process. They must never be sent
on: services report only what `TableInfo` and the store say.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from masque.errors import DataError

SHOWN = 60
"""Longest piece of a cell that a message quotes."""


def quote(value: object) -> str:
    """`value` in quotes, one line, at most `SHOWN` characters."""
    text = str(value)
    shown = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii")
        for sign in text[:SHOWN]
    )
    return f'"{shown}{"..." if len(text) > SHOWN else ""}"'


def listed(names: Iterable[object], most: int = 6) -> str:
    """`names` as a phrase: the first `most` in quotes, and how many more there are."""
    every = list(names)
    shown = ", ".join(quote(name) for name in every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"


def suggestion(word: str, known: Iterable[str]) -> str:
    """`Did you mean "x"?` for the closest of `known`, or the empty string."""
    names = list(known)
    folded = {name.strip().casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(word.strip().casefold(), list(folded), n=1, cutoff=0.6)
    return f"Did you mean {quote(folded[close[0]])}?" if close else ""


def fault(
    path: Path,
    problem: str,
    cure: str,
    *,
    row: int | None = None,
    line: int | None = None,
    column: str | None = None,
    **more: object,
) -> DataError:
    """A DataError about `path`. `row` counts data rows from 1, `line` the file's lines from 1."""
    place = [path.name]
    if row is not None:
        place.append(f"row {row} (line {line})" if line is not None else f"row {row}")
    elif line is not None:
        place.append(f"line {line}")
    if column is not None:
        place.append(f"column {quote(column)}")
    return DataError(
        f"{', '.join(place)}: {problem}",
        hint=cure,
        file=str(path),
        row=row,
        line=line,
        column=column,
        **more,
    )
