"""Compile all kernels once, into numba's cache on disk: `python -m masque.mpc.warm`.

To be run when Masque is installed, so that no service compiles at its first job. The cache is
kept beside the modules (or where NUMBA_CACHE_DIR says) and is valid for this kind of processor.

numba notices by itself when the file of a kernel has changed, but not when a file has whose code
was inlined into it; what is older than one of those (`INLINED`) is discarded here first.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MODULES = (
    "masque.mpc.packing",
    "masque.mpc.ring",
    "masque.mpc.convolution",
    "masque.mpc.comparison",
    "masque.mpc.trig",
    "masque.mpc.truncation",
)
"""The modules with kernels; each has a function `warm()`."""

INLINED = ("kernels.py", "blocks.py", "slabs.py")
"""The files beside this one whose code ends up in the kernels of others."""


def warm(modules: Sequence[str] = MODULES) -> Iterator[tuple[str, float]]:
    """Import each module and call its `warm()`; yields its name and the seconds that took."""
    for name in modules:
        start = time.perf_counter()
        importlib.import_module(name).warm()
        yield name, time.perf_counter() - start


def discard_stale(folder: Path) -> int:
    """Delete what numba cached for the modules in `folder` before an inlined file changed.

    Returns how many files that were. Looks in the default place of the cache only.
    """
    changed = max((folder / name).stat().st_mtime for name in INLINED)
    cache = folder / "__pycache__"
    stale = [file for file in cache.glob("*.nb[ic]") if file.stat().st_mtime < changed]
    for file in stale:
        file.unlink(missing_ok=True)
    return len(stale)


def main() -> int:
    """The command; prints one line for each module. Exit code 0."""
    count = discard_stale(Path(__file__).parent)
    if count:
        sys.stdout.write(f"discarded {count} cached files from before a change\n")
    for name, seconds in warm():
        sys.stdout.write(f"{name:<24} {seconds:6.1f} s\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
