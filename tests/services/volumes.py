"""A real volume of a few megabytes, in a mount namespace of the service that uses it."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from pathlib import Path

_MOUNT = 'mount -t tmpfs -o size="$1",mode=700 tmpfs "$2" && shift 2 && exec "$@"'


def entering(size: str, directory: Path) -> tuple[str, ...]:
    """The beginning of a command line whose rest sees an empty volume at `directory`."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    mount = ["--mount", "--propagation", "private", "sh", "-c", _MOUNT, "sh", size]
    return ("unshare", *user, *mount, str(directory))


@functools.cache
def missing(directory: Path) -> str:
    """Why there can be no such volume here, or nothing."""
    try:
        command = [*entering("1m", directory), "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip()


def inside(pid: int, directory: Path) -> Path:
    """`directory` as the process sees it."""
    return Path(f"/proc/{pid}/root{directory}")


def fill(directory: Path) -> Path:
    """A file that takes all that is left of a volume; unlink it to give it back."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return filler
