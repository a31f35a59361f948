"""Data sets on their way out: gone from the store, and not yet noted in the ledger.

    <directory>/<folder>.json    the description of a data set that was deleted or replaced

A description moves there in the step that deletes the data set, and is removed once somebody has
noted the deletion. So a crash neither hides a deletion nor invents one, and a full disk hinders
none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from masque.data.disk import make_directory, sync
from masque.data.upload import Entry
from masque.errors import MasqueError

Note = Callable[[Entry, bool], None]
"""`note(entry, replaced)`: a data set is gone; `replaced` by another of its name."""


class Deletions:
    """What has gone from a store since somebody last heard of it."""

    def __init__(self, directory: Path) -> None:
        make_directory(directory)
        self._directory = directory
        self._note: Note | None = None

    def _path(self, entry: Entry) -> Path:
        return self._directory / f"{entry.folder}.json"

    def _moved(self, description: Path, entry: Entry) -> bool:
        """Whether `take` has come as far as that before."""
        return not description.exists() and self._path(entry).exists()

    def take(self, description: Path, entry: Entry) -> None:
        """Delete the data set of this description, in one step. Errors: OSError.

        Once more, if the disk has failed in between: it is deleted when this returns.
        """
        if not self._moved(description, entry):
            os.rename(description, self._path(entry))
            description.unlink(missing_ok=True)  # it is left if `remember` has linked the two
        sync(description.parent)
        sync(self._directory)

    def remember(self, description: Path, entry: Entry) -> None:
        """The same for one that is about to be replaced. Errors: OSError."""
        if not self._moved(description, entry):
            with contextlib.suppress(FileExistsError):
                os.link(description, self._path(entry))
        sync(self._directory)

    def tell(self, note: Note, present: Mapping[str, Entry]) -> None:
        """From now on, `note` hears of every deletion, first of those before. Errors: its own."""
        self._note = note
        for path in sorted(self._directory.glob("*.json")):
            try:
                entry = Entry.model_validate_json(path.read_bytes())
            except ValidationError:
                continue
            held = present.get(entry.name)
            if held is not None and held.folder == entry.folder:
                path.unlink()  # it was to be replaced, and is still there
            else:
                self.gone(entry, replaced=held is not None)

    def gone(self, entry: Entry, *, replaced: bool) -> None:
        """A data set has gone: say so, or keep it for the next `tell`. Errors: those of `note`."""
        if self._note is not None:
            self._note(entry, replaced)
            self._path(entry).unlink(missing_ok=True)

    def replaced(self, entry: Entry) -> None:
        """The same; a note that cannot be written now is not the uploader's fault, and waits."""
        with contextlib.suppress(MasqueError, OSError):
            self.gone(entry, replaced=True)
