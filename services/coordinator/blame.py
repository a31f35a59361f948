"""Whose fault it is that an attempt broke, from what several services say of it."""

from __future__ import annotations

from collections.abc import Mapping

from masque.errors import MasqueError
from masque.jobs.conducting import ConductedJob


def culprit(error: MasqueError, asked: str, everybody: Mapping[str, str] | frozenset[str]) -> str:
    """Whom an error that `asked` returned blames: another service of the job, or `asked`."""
    for field in ("peer", "party", "dealer", "service"):
        value = str(error.where.get(field, ""))
        for name in everybody:
            if value == name or value.endswith(repr(name)):
                return name
    return asked


def blame(
    first: str, failures: Mapping[str, MasqueError], everybody: frozenset[str]
) -> tuple[str, MasqueError]:
    """The service at the end of the chain of accusations that begins at `first`, and the error.

    A party that loses the dealer blames it, and leaves; another then blames the party that left.
    """
    at, seen = first, {first}
    error = failures[first]
    while at in failures:
        error = failures[at]
        accused = culprit(error, at, everybody)
        if accused == at or accused in seen:
            return accused, error
        seen.add(accused)
        at = accused
    return at, error


def bare(text: str, job: ConductedJob) -> str:
    """What a peer says, without that the job has failed: we say that ourselves."""
    head = f"job {job.job_id}, attempt {job.attempt}, has failed"
    return text.removeprefix(head).partition(": ")[2] if text.startswith(head) else text
