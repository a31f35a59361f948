"""Why a job has failed, in words for everybody: the service to blame, or an incident's number."""

from __future__ import annotations

import secrets

import structlog

from masque.errors import MasqueError

_log = structlog.get_logger("masque.party")


def culprit(error: MasqueError) -> str:
    """The service that an error names, or ""."""
    for field_name in ("party", "service", "peer"):
        name = error.where.get(field_name)
        if isinstance(name, str):
            return name
    return ""


def accident(job_id: str, error: Exception) -> MasqueError:
    """What may be told of a failure that nobody foresaw; the log has the rest."""
    incident = secrets.token_hex(4)
    _log.error("incident", incident=incident, job=job_id, exc_info=error)
    return MasqueError(
        f"this party failed on its own account (incident {incident}).",
        hint="Its log has the reason under that number.",
    )


def sentence(text: str) -> str:
    """A message without its full stop, to be put into another."""
    return text.strip().rstrip(".")
