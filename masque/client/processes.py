"""Services as processes of this machine: start, wait until they serve, stop, look."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import masque
from masque.client import lifeline
from masque.errors import Conflict, MasqueError, Unavailable

STARTING = 180.0
STOPPING = 12.0
"""Seconds a service may take to end after it was told to; then it is killed."""

_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Place:
    """Where a service lives: `role` of `masque.wire.identity`, files below `home`."""

    role: str
    name: str
    home: Path

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.home / self.name / f"{self.role}.yaml"

    @property
    def log(self) -> Path:
        """What it writes to standard error."""
        return self.home / "logs" / f"{self.name}.log"

    @property
    def ready(self) -> Path:
        """Written by the service once it serves, gone when it ends."""
        return self.home / "run" / f"{self.name}.json"

    @property
    def pid_file(self) -> Path:
        """Written when it was started."""
        return self.home / "run" / f"{self.name}.pid"


def start(
    place: Place, *, bound_to_us: bool = False, entering: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start a service. One `bound_to_us` is told to stop when we die, in whatever way.

    `entering`: the beginning of a command line that runs the rest of it elsewhere: `nsenter ...`.
    """
    for directory in (place.log.parent, place.pid_file.parent):
        directory.mkdir(parents=True, exist_ok=True)
    place.ready.unlink(missing_ok=True)
    module = f"services.{place.role}"
    program = [sys.executable, "-m", module, "--config", str(place.config)]
    with place.log.open("ab") as log:
        process = subprocess.Popen(
            [*entering, *_lifeline(bound_to_us), *program],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
    _children[process.pid] = process
    place.pid_file.write_text(f"{process.pid}\n", encoding="ascii")
    return process


def wait_until_ready(
    places: Sequence[Place],
    processes: Sequence[subprocess.Popen[bytes]],
    patience: float = STARTING,
) -> None:
    """Until every service serves. Raises the error of the first that ends instead."""
    end = time.monotonic() + patience
    waiting = list(zip(places, processes, strict=True))
    while waiting:
        for place, process in list(waiting):
            code = process.poll()
            if code is not None:
                raise _died(place, code)
            if place.ready.exists():
                waiting.remove((place, process))
        if waiting and time.monotonic() > end:
            names = ", ".join(f"{place.role} {place.name!r}" for place, _ in waiting)
            raise Unavailable(
                f"{names} did not begin to serve within {patience:.0f} s.",
                hint=f"See {waiting[0][0].log}.",
                service=waiting[0][0].name,
            )
        time.sleep(0.02)


def pid_of(place: Place) -> int | None:
    """The process id of a service that runs, or None."""
    try:
        pid = int(place.pid_file.read_text(encoding="ascii"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    ours = f"services.{place.role}".encode() in command and str(place.config).encode() in command
    return pid if ours and state != "Z" else None


def address_of(place: Place) -> str | None:
    """Where a service says that it answers, or None."""
    try:
        return str(json.loads(place.ready.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def stop(places: Sequence[Place], patience: float = STOPPING) -> dict[str, str]:
    """Tell all of them to end, and wait; returns what became of each: stopped, killed, absent."""
    running = {place.name: pid for place in places if (pid := pid_of(place)) is not None}
    for pid in running.values():
        _signal(pid, signal.SIGTERM)
        _signal(pid, signal.SIGCONT)  # one that is suspended cannot end
    by_name = {place.name: place for place in places}
    became = {place.name: "absent" for place in places if place.name not in running}
    end = time.monotonic() + patience
    while running:
        late = time.monotonic() > end
        for name, pid in list(running.items()):
            _reap(pid)
            if pid_of(by_name[name]) != pid:
                del running[name]
                became.setdefault(name, "stopped")
            elif late and name not in became:
                _signal(pid, signal.SIGKILL)
                became[name] = "killed"
        if running:
            time.sleep(0.02)
    for place in places:
        place.pid_file.unlink(missing_ok=True)
        place.ready.unlink(missing_ok=True)
    return {place.name: became[place.name] for place in places}


def last_error(place: Place) -> str:
    """The last line in a service's log that says what went wrong, or nothing."""
    try:
        lines = place.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), ""
    )


def _died(place: Place, code: int) -> MasqueError:
    said = last_error(place)
    kind = Conflict if code == Conflict.exit_code else Unavailable
    what = f"{place.role.capitalize()} {place.name!r} did not start"
    if said:
        return kind(f"{what}: {said}", service=place.name, log=str(place.log))
    return kind(f"{what} (exit code {code}).", hint=f"See {place.log}.", service=place.name)


def environment() -> dict[str, str]:
    """Ours, with the directory that holds masque and services on the path."""
    root = str(Path(masque.__file__).resolve().parent.parent)
    rest = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, rest] if rest else [root]),
        "PYTHONUNBUFFERED": "1",
    }


def _lifeline(wanted: bool) -> list[str]:
    """The beginning of a command line that asks the kernel to end the program with us."""
    if not wanted:
        return []
    return [sys.executable, "-E", "-S", lifeline.__file__, str(os.getpid())]


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reap(pid: int) -> None:
    """Collect a child of ours that has ended, so that it does not stay as a zombie."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
