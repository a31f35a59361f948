"""The clock of the coordinator's records."""

from __future__ import annotations

import datetime as dt


def now() -> str:
    """The present moment, RFC 3339, UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
