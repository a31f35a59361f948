"""What `check-config` looks at for a coordinator alone: its store."""

from __future__ import annotations

from collections.abc import Iterator

from masque.jobs.complaints import Complaint
from masque.wire.checking import writable
from services.coordinator.settings import CoordinatorSettings

_MAGIC = b"SQLite format 3\0"


def examine(settings: CoordinatorSettings) -> Iterator[Complaint]:
    """Mistakes in what the file names."""
    where, store = ("store",), settings.store
    yield from writable(where, store.parent)
    if store.exists() and store.is_dir():
        yield Complaint(where, f"cannot be used: {store} is a directory", "Name a file.")
    elif store.exists():
        with store.open("rb") as file:
            if file.read(len(_MAGIC)) not in (b"", _MAGIC):
                cure = "Move it away to begin an empty store, or name another file."
                yield Complaint(where, f"cannot be used: {store} is no job store", cure)
