"""How a service uses its memory: what a step has freed, the next one takes again.

By default the C library returns every large array to the system at once, and the kernel clears its
pages anew for the next: a third of a network's training. Here memory stays with the process while a
job runs, and goes back when it is over.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # parameters of glibc's mallopt
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
KEPT = (1 << 31) - 1
"""Bytes of free heap that a process keeps: as many as can be said."""


@cache
def _library() -> Any:
    """The C library, if it is one that understands; other systems have others."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
        library.mallopt, library.malloc_trim  # noqa: B018 (are they there?)
    except (OSError, AttributeError):
        return None
    return library


def keep_freed() -> bool:
    """From now on, keep what is freed; whether the C library understood."""
    library = _library()
    if library is None:
        return False
    # One arena: those of other threads return memory as soon as it is free, whatever is asked.
    asked = {_MMAP_MAX: 0, _TRIM_THRESHOLD: KEPT, _ARENA_MAX: 1}
    return all([bool(library.mallopt(name, wanted)) for name, wanted in asked.items()])


def of_this_machine() -> int:
    """Bytes of memory that there are: the machine's, or its container's if that is less."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _LIMITS:
        try:
            text = Path(path).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            found = min(found, int(text))
    return found


def give_back_soon(seconds: float = 2.0) -> None:
    """Return what is free to the system, once what a job held has been let go."""
    library = _library()
    if library is not None:
        timer = threading.Timer(seconds, library.malloc_trim, (0,))
        timer.daemon = True
        timer.start()
