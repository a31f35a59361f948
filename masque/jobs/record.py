"""The public progress of a job, as streamed to those who watch it. Nothing in it is secret."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from masque.errors import ProtocolError


@dataclass(frozen=True)
class Progress:
    """How far a job is after one event of it.

    `state` is a state of `masque.jobs.states`; `round_name` the training round just finished or
    under way, number `round` (from 1) of `of`; `seconds` since the attempt began; `exchanges` and
    `bytes_sent` so far, of all parties together for bytes; `stopped` if early stopping has said so;
    `reason` and `culprit` once the job has ended badly.
    """

    job: str
    attempt: int
    state: str
    round_name: str = ""
    round: int = 0
    of: int = 0
    seconds: float = 0.0
    exchanges: int = 0
    bytes_sent: int = 0
    stopped: bool = False
    reason: str = ""
    culprit: str = ""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)


def read_progress(text: str | bytes, sender: str) -> Progress:
    """The progress that `sender` sent. Raises ProtocolError naming it if it is not one.

    Control characters are replaced: a peer's text must not steer anybody's terminal.
    """
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    defaults = asdict(Progress("", 0, ""))
    if not isinstance(found, dict) or found.keys() != defaults.keys():
        raise _not_progress(sender)
    for field in fields(Progress):
        value, kind = found[field.name], type(defaults[field.name])
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise _not_progress(sender)
        if isinstance(value, str):
            found[field.name] = "".join(
                c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value
            )
    return Progress(**found)


def _not_progress(sender: str) -> ProtocolError:
    return ProtocolError(
        f"{sender} sent a progress record that cannot be read.",
        hint="Check that both sides run the same version of Masque.",
        peer=sender,
    )
