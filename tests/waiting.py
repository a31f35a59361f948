"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds: far longer than anything takes that is on its way."""


def until(true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Return once something is true; `what` is wrong if it does not become true."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)
