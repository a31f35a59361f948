"""What every container of a service is in compose: how it is confined, and how it runs and ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

LABEL = "org.masque.configuration"
"""A digest of what a service reads once: a container with other files is made anew by compose."""


def confined() -> dict[str, Any]:
    """Nothing to write to but `/tmp`, no capability, and no way to gain one."""
    return {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp:size=64m,mode=1777,noexec,nosuid,nodev"],
    }


def lasting() -> dict[str, Any]:
    """Started again when it dies, given the time that a service takes to end."""
    return {
        "init": True,
        "pids_limit": 1024,
        "restart": "unless-stopped",
        "stop_grace_period": "15s",
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }


def digest(files: Iterable[bytes]) -> str:
    """What `LABEL` says of the files that a service reads once."""
    found = hashlib.sha256()
    for content in files:
        found.update(content)
    return found.hexdigest()[:16]
