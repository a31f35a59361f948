"""What commands print: one JSON object or text on standard output, errors on standard error.

An error is one red line and a hint, never a traceback; MASQUE_DEBUG=1 adds it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

DEBUG = "MASQUE_DEBUG"
INTERRUPTED = 130
LOOKED_UP = (1, 5, 7, 10)
"""Exit codes of errors whose cause is in a service's log, under the request that is shown."""


def emit(data: Any) -> None:
    """One JSON value on standard output."""
    print(json.dumps(data, indent=2, default=str))


def line(text: str = "") -> None:
    """A line of text on standard output."""
    print(text, flush=True)


def note(text: str) -> None:
    """A line beside the result, on standard error."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A yellow line on standard error."""
    note(_coloured(f"warning: {text}", "33"))


def fail(error: BaseException, *, as_json: bool) -> int:
    """Tell of an error; returns the exit code."""
    from masque.errors import MasqueError

    if os.environ.get(DEBUG, "") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, MasqueError):
        message, hint, code, where = error.message, error.hint, error.exit_code, error.where
    else:
        message = f"Masque failed on its own account: {type(error).__name__}: {error}"
        hint, code, where = f"Run it again with {DEBUG}=1 to see where.", 1, {}
    note(_coloured(f"error: {message}", "31"))
    if hint:
        note(f"hint: {hint}")
    if code in LOOKED_UP and "request" in where:
        note(f"request: {where['request']}")
    if as_json:
        record = {
            "kind": type(error).__name__,
            "message": message,
            "hint": hint,
            "where": where,
            "exit_code": code,
        }
        emit({"error": record})
    return code


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns that line up; numbers to the right."""
    cells = [list(map(str, headings)), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(headings))]
    right = [
        len(cells) > 1 and all(_numeric(row[at]) for row in cells[1:])
        for at in range(len(headings))
    ]
    for row in cells:
        parts = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ]
        line("  ".join(parts).rstrip())


def size(count: float) -> str:
    """Bytes for a person: `1.7 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """A time for a person: `0.35 s`, `2 min 5 s`, `3 h 2 min`."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _numeric(text: str) -> bool:
    return text.strip() == "" or text.replace(",", "").split(" ")[0].replace(".", "").isdigit()


def coloured(text: str, code: str) -> str:
    """`text` in a colour, if standard output is a terminal."""
    return _coloured(text, code, sys.stdout)


def _coloured(text: str, code: str, where: TextIO | None = None) -> str:
    if "NO_COLOR" in os.environ or not (where or sys.stderr).isatty():
        return text
    first, newline, rest = text.partition("\n")
    return f"\033[{code}m{first}\033[0m{newline}{rest}"
