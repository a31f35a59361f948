"""Compile all kernels once, into numba's cache on disk: `python -m masque.mpc.warm`.

To be run when Masque is installed, so that no service compiles at its first job. The cache is
kept beside the modules (or where NUMBA_CACHE_DIR says) and is valid for this kind of processor.
`--fresh` discards what is there first, for after a change in a file that others inline.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MODULES = ("masque.mpc.packing", "masque.mpc.ring", "masque.mpc.comparison", "masque.mpc.trig")
"""The modules with kernels; each has a function `warm()`."""


def warm(modules: Sequence[str] = MODULES) -> Iterator[tuple[str, float]]:
    """Import each module and call its `warm()`; yields its name and the seconds that took."""
    for name in modules:
        start = time.perf_counter()
        importlib.import_module(name).warm()
        yield name, time.perf_counter() - start


def discard(package: Path) -> int:
    """Delete numba's cache files beside the modules of `package`; how many there were."""
    files = [file for ending in ("nbi", "nbc") for file in package.rglob(f"__pycache__/*.{ending}")]
    for file in files:
        file.unlink(missing_ok=True)
    return len(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; prints one line for each module. Exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m masque.mpc.warm", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="discard cached kernels first")
    if parser.parse_args(arguments).fresh:
        count = discard(Path(__file__).parents[1])
        sys.stdout.write(f"discarded {count} cached files\n")
    for name, seconds in warm():
        sys.stdout.write(f"{name:<24} {seconds:6.1f} s\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
