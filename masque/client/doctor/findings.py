"""What was found, a line each: fine, doubtful or wrong; if not fine, what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from masque.errors import MasqueError

HERE = "this host"


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Limits:
    """From where on something is doubtful or wrong: seconds that clocks differ, days that a
    certificate is still valid, bytes free. `patience`: seconds for a step; `seconds`: for all.
    """

    clock_warn: float = 2.0
    clock_fail: float = 30.0
    days_warn: float = 14.0
    free_warn: float = 5e9
    free_fail: float = 5e8
    patience: float = 2.5
    seconds: float = 12.0


@dataclass(frozen=True)
class Finding:
    """One line: whom it is about, what was looked at, and how that is. `figures` are measured."""

    about: str
    check: str
    level: Level
    says: str
    cure: str = ""
    exit_code: int = 0
    figures: Mapping[str, float | str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        record: dict[str, Any] = {
            "about": self.about,
            "check": self.check,
            "level": self.level.value,
            "says": self.says,
        }
        if self.level is not Level.OK:
            record |= {"cure": self.cure, "exit_code": self.exit_code}
        return record | ({"figures": dict(self.figures)} if self.figures else {})


def fine(about: str, check: str, says: str, **figures: float | str) -> Finding:
    """Nothing to be done."""
    return Finding(about, check, Level.OK, says, figures=figures)


def doubtful(about: str, check: str, says: str, cure: str, **figures: float | str) -> Finding:
    """Works now, and may not for long, or not well."""
    return Finding(about, check, Level.WARN, says, cure, figures=figures)


def wrong(about: str, check: str, error: MasqueError, **figures: float | str) -> Finding:
    """Jobs would not run."""
    cure = error.hint or "See the log of that service."
    return Finding(about, check, Level.FAIL, error.message, cure, error.exit_code, figures)
