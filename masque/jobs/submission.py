"""What a client signs when it submits a job: which job, for whom, by whom, and where.

It is part of the bound job, so that dealer and parties see with their own eyes that the client
wants this very job, whatever a coordinator says; `masque.wire.submissions` signs and believes it.

What is not in it: the uploads that the coordinator finds for the names of data sets, which each
party holds against its own store; the dealer, which each party knows; attempts, which come later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field

from masque.data.table import canonical_json
from masque.jobs import document
from masque.jobs.bound import BoundJob, Key
from masque.jobs.complaints import refusal, validated
from masque.jobs.section import Name, Names, Section
from masque.jobs.spec import JobSpec

_WORDS = {
    "project": "for another project",
    "client": "in the name of another client",
    "job_id": "under another id",
    "coordinator": "for another coordinator",
    "parties": "for other parties",
    "spec": "with other content",
    "recipients": "with other recipients or keys",
}


class Submission(Section):
    """`spec`: SHA-256 of the canonical job file; `parties`: sorted; `recipients`: their keys.

    `time`: when it was signed, in seconds since 1970.
    """

    format: Literal["masque submission 1"] = "masque submission 1"
    project: Annotated[str, Field(max_length=300)]
    client: Name
    job_id: Name
    coordinator: Name
    parties: Names
    spec: Key
    recipients: dict[Name, Key]
    time: float

    def difference(self, due: Submission) -> str:
        """How what was signed differs from what is `due`, in words; empty if it does not."""
        for key, words in _WORDS.items():
            if getattr(self, key) != getattr(due, key):
                return words
        return ""


def submission(
    spec: JobSpec,
    keys: Mapping[str, str],
    *,
    project: str,
    client: str,
    job_id: str,
    coordinator: str,
    parties: Iterable[str],
    time: float = 0.0,
) -> Submission:
    """What is to be signed for a job; `keys`: recipients' public keys, hex.

    Raises SpecError for an id or a key that is none.
    """
    values = {
        "project": project,
        "client": client,
        "job_id": job_id,
        "coordinator": coordinator,
        "parties": tuple(sorted(parties)),
        "spec": hashlib.sha256(canonical_json(spec.model_dump(mode="json"))).hexdigest(),
        "recipients": {name: keys[name] for name in spec.recipients if name in keys},
        "time": time,
    }
    source = document.Document(f"job {spec.name!r}", values, {})
    found, complaints = validated(Submission, source)
    if found is None:
        raise refusal(source, complaints)
    return found


def submission_of(job: BoundJob, project: str) -> Submission:
    """What the client of a bound job must have signed."""
    return submission(
        job.spec,
        job.keys,
        project=project,
        client=job.client,
        job_id=job.job_id,
        coordinator=job.coordinator,
        parties=job.parties,
    )
