"""Files that commands write for their user."""

from __future__ import annotations

from pathlib import Path

from masque.errors import Conflict, InputError


def write_new(path: Path, text: str) -> None:
    """Write a text file that must not exist yet. Raises Conflict, InputError."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(
            f"{path} exists already.", hint="Choose another name.", file=str(path)
        ) from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}.",
            hint="Choose another place, or mend its permissions.",
            file=str(path),
        ) from None
