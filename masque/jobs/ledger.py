"""What a party has disclosed: an append-only file of one JSON line an opening.

The line is on disk before the opening happens (`record` returns after fsync), so a crash can leave
an entry for something not opened, never the reverse. A line torn by a crash is ignored when
reading and completed by a line break when writing goes on. No line holds a value, only its name,
its size and who saw it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from masque.errors import MasqueError

_FIELDS = {"time": float, "job": str, "attempt": int, "what": str, "bits": int, "to": list}


@dataclass(frozen=True)
class Disclosure:
    """One opening: when (seconds since 1970), in which job, what, how many bits, to whom."""

    time: float
    job: str
    attempt: int
    what: str
    bits: int
    to: tuple[str, ...]


class Ledger:
    """The disclosure ledger at `path`; `clock` gives seconds since 1970. Thread-safe."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()

    def record(self, job: str, attempt: int, what: str, bits: int, to: Iterable[str]) -> Disclosure:
        """Write one disclosure and wait until it is on disk. Raises MasqueError if it cannot be."""
        entry = Disclosure(float(self._clock()), job, attempt, what, bits, tuple(to))
        line = json.dumps(asdict(entry), sort_keys=True, allow_nan=False).encode("ascii") + b"\n"
        try:
            with self._lock:
                self._append(line)
        except OSError as error:
            raise MasqueError(
                f"the disclosure ledger {self._path} cannot be written: {error.strerror}.",
                hint="Nothing is opened until it can.",
                file=str(self._path),
            ) from None
        return entry

    def entries(self) -> list[Disclosure]:
        """All disclosures, oldest first, without lines that a crash has torn."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return []
        found = (_entry(line) for line in raw.split(b"\n"))
        return [entry for entry in found if entry is not None]

    def _append(self, line: bytes) -> None:
        fresh = not self._path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # the last line is torn: leave it alone
            while line:
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            _sync_folder(self._path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry(line: bytes) -> Disclosure | None:
    """The disclosure of a line, or None if it is torn or not one."""
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != _FIELDS.keys():
        return None
    if any(type(found[field]) is not kind for field, kind in _FIELDS.items()):
        return None
    if not all(isinstance(name, str) for name in found["to"]):
        return None
    return Disclosure(**{**found, "to": tuple(found["to"])})
