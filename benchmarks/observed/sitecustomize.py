"""Imported by Python itself in services that the benchmark `profile` starts; see account.py.

It notes which thread of the system has which name, and, if asked, profiles the calls of the
threads that compute. Not a module of the package: its directory goes on the path of the services.
"""

from __future__ import annotations

import atexit
import cProfile
import os
import sys
import threading
from pathlib import Path
from types import FrameType

DIRECTORY, CALLS = "MASQUE_BENCH_OBSERVE", "MASQUE_BENCH_CALLS"
COMPUTING = ("job-", "deal-")
"""How the names of the threads begin that compute."""


class Observer:
    """Notes the names of new threads in `<directory>/<pid>.threads`."""

    def __init__(self, directory: Path, *, calls: bool) -> None:
        self._directory, self._calls = directory, calls
        self._profiles: list[tuple[str, cProfile.Profile]] = []
        self._note(threading.get_native_id(), "main")
        atexit.register(self._write)

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """The first event of a new thread."""
        sys.setprofile(None)
        thread = threading.current_thread()
        self._note(threading.get_native_id(), thread.name)
        if self._calls and thread.name.startswith(COMPUTING):
            profile = cProfile.Profile()
            self._profiles.append((thread.name, profile))
            profile.enable()

    def _note(self, number: int, name: str) -> None:
        with (self._directory / f"{os.getpid()}.threads").open("a", encoding="utf-8") as file:
            file.write(f"{number} {name}\n")

    def _write(self) -> None:
        for number, (name, profile) in enumerate(self._profiles):
            profile.dump_stats(self._directory / f"{os.getpid()}.{number}.{name}.calls")


if os.environ.get(DIRECTORY) and any(part.startswith("services.") for part in sys.orig_argv):
    threading.setprofile(Observer(Path(os.environ[DIRECTORY]), calls=CALLS in os.environ))
