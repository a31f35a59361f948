"""SQLite on a simulated disk: a commit is a sync, a full disk is SQLite's own error.

The database is the real one, in the disk's directory. What was committed is there after a power cut
if its connection asked for that (`PRAGMA synchronous=FULL`); otherwise the cut takes all that was
committed since it was opened.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from tests.simulation.disks import Disk
from tests.simulation.worlds import World

COMMIT = 0.003
"""Seconds that a commit takes at most."""

_CHANGES = ("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE")


class Connection:
    """A connection of a simulated service."""

    def __init__(self, path: Path, **options: Any) -> None:
        self._database: sqlite3.Connection = sqlite3.connect(path, **options)
        self._path = path
        self._sync(full=False)

    @property
    def in_transaction(self) -> bool:
        return bool(self._database.in_transaction)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.startswith("PRAGMA synchronous"):
            self._sync(full=statement.endswith("FULL"))
        if statement.startswith(_CHANGES):
            self._change(statement)
        return self._database.execute(statement, *values)

    def executescript(self, script: str) -> sqlite3.Cursor:
        self._change("COMMIT")
        return self._database.executescript(script)

    def close(self) -> None:
        self._database.close()

    @property
    def _disk(self) -> Disk | None:
        from tests.simulation import watching

        found = watching._found(self._path)
        return found[0] if found is not None else None

    def _sync(self, *, full: bool) -> None:
        disk = self._disk
        if disk is not None:
            disk.certain = None if full else disk.database()

    def _change(self, statement: str) -> None:
        world, disk = World.current, self._disk
        if disk is None:
            return
        fault = disk.fault("write")
        if fault is not None:
            try:
                fault()
            except OSError:
                raise sqlite3.OperationalError("database or disk is full") from None
        if statement.startswith("COMMIT"):
            world.sleep(COMMIT * disk.random.random())
