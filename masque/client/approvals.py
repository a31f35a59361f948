"""Jobs that wait for our yes at the parties: what they would do, and our word on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from masque.client.services import BRIEF, Peer
from masque.errors import InputError, NotFound, ProtocolError, Refused
from masque.jobs.bound import BoundJob, read_bound
from masque.jobs.disclosed import by_program
from masque.jobs.fit import SharedTable
from masque.v1 import party_pb2 as messages
from masque.wire.conditions import read_statement
from masque.wire.failures import clean

SHORTEST, SHOWN = 8, 32
"""Digits of a job's digest: that tell jobs apart, at least, and that are shown."""

LONGEST = 300
"""Characters that are shown of what somebody has said."""


@dataclass(frozen=True)
class Waiting:
    """A job that we may say yes or no to at `parties`, all of which know it as this very job.

    `waits_for`: who could say the yes that lacks, by party; `said`: what was said so far, in words.
    """

    job: BoundJob = field(repr=False)
    waits_for: dict[str, list[str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @property
    def parties(self) -> tuple[str, ...]:
        """Where it waits."""
        return tuple(self.waits_for)


def waiting(parties: Sequence[Peer], job_id: str = "") -> tuple[list[Waiting], int]:
    """Those that a list has room for, by job id, and how many more there are; or this one.

    Raises ProtocolError naming a party whose job is not what it says, or another than at the
    other parties: somebody has told them different things.
    """
    found: dict[str, Waiting] = {}
    more, request = 0, messages.ListApprovalsRequest(job_id=job_id)
    for party in parties:
        with party.calling() as stub:
            reply = stub.ListApprovals(request, timeout=BRIEF)
        more = max(more, reply.more)
        for item in reply.jobs:
            job = read_bound(item.bound_job, party.name)
            if job.job_id != item.job_id or job.subject() != item.subject:
                raise _differ(party.name, item.job_id)
            known = found.setdefault(job.job_id, Waiting(job))
            if known.job.subject() != job.subject():
                raise _differ(party.name, job.job_id)
            known.waits_for[party.name] = [clean(name, LONGEST) for name in item.waits_for]
            known.said.extend(_said(word, party.name) for word in item.said)
    return [found[job_id] for job_id in sorted(found)], more


def find(parties: Sequence[Peer], job_id: str) -> Waiting:
    """The one with this id. Raises NotFound."""
    for each in waiting(parties, job_id)[0]:
        if each.job.job_id == job_id:
            return each
    raise NotFound(
        f"No job {job_id!r} waits for your yes at any party.",
        hint="`masque approve` lists those that do.",
        job=job_id,
    )


def check_digest(digest: str) -> str:
    """The first digits of a job's digest, as they are compared. Raises InputError."""
    if not re.fullmatch(f"[0-9a-f]{{{SHORTEST},64}}", digest.lower()):
        raise InputError(
            f"{digest[:80]!r} is no digest of a job.",
            hint=f"Give --digest at least {SHORTEST} of the digits that `masque approve` shows.",
        )
    return digest.lower()


def check_same(what: Waiting, digest: str) -> None:
    """Is it the job that somebody has read, of whose digest these are the first digits?

    Raises Refused. A coordinator can put another job under an id that waits.
    """
    job = what.job
    if not job.subject().hex().startswith(digest):
        raise Refused(
            f"Job {job.job_id} is another now than the one with the digest {digest}.",
            hint=f"Nothing was said. Look at it again: masque approve {job.job_id}",
            job=job.job_id,
            digest=digest,
        )


def say(parties: Sequence[Peer], what: Waiting, *, yes: bool, reason: str = "") -> dict[str, Any]:
    """Our word on a job, at every party that waits for it; who must still say yes, by party."""
    still = {}
    for party in parties:
        if party.name in what.parties:
            request = messages.ApproveRequest(
                job_id=what.job.job_id, subject=what.job.subject(), yes=yes, reason=reason
            )
            with party.calling() as stub:
                still[party.name] = list(stub.Approve(request, timeout=BRIEF).waits_for)
    return still


def described(waiting: Waiting) -> dict[str, Any]:
    """What a job would do, for JSON and for people. It is compiled here, and nobody is asked."""
    from masque.jobs.compile import compile_job

    job = waiting.job
    spec, training, program = job.spec, job.spec.training, compile_job(job)
    openings = [{"name": o.name, "bits": o.bits, "to": list(o.to)} for o in program.openings]
    return {
        "job": job.job_id,
        "digest": job.subject().hex()[:SHOWN],
        "subject": job.subject().hex(),
        "client": job.client,
        "datasets": [_dataset(table) for table in job.shared],
        "model": spec.model.kind,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "metrics": list(spec.reveal.metrics),
        "metrics_to": list(spec.reveal.to),
        "output": spec.model_output.kind,
        "output_to": list(spec.model_output.sealed_to or ()),
        "privacy": program.release.promise if program.release else None,
        "bits": by_program(program, spec.privacy).bits,
        "waits_for": waiting.waits_for,
        "said": waiting.said,
        "openings": openings,
        "opened_bits": sum(int(str(each["bits"])) for each in openings),
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The same in words."""
    yield f"Job {found['job']}, submitted by {found['client']}"
    yield f"  digest {found['digest']}"
    for table in found["datasets"]:
        owner = f" of {table['owner']}" if table["owner"] else ""
        yield f"  reads {table['name']}{owner}: {table['rows']:,} rows"
        if table["rules"]:
            yield f"    on conditions: {table['rules']}"
    yield (
        f"  trains {found['model']}: {found['epochs']} epochs in batches of {found['batch_size']}"
    )
    if found["metrics"]:
        yield f"  tells {', '.join(found['metrics'])} to {', '.join(found['metrics_to'])}"
    ends = {
        "sealed": f"is sealed to {', '.join(found['output_to'])}",
        "kept": "stays with the parties as shares",
        "open": "is opened to everybody",
    }
    yield f"  its model {ends.get(found['output'], found['output'])}"
    privacy = found["privacy"]
    yield (
        f"  with differential privacy: epsilon {privacy['epsilon']:g}, delta {privacy['delta']:g},"
        f" sensitivity {privacy['sensitivity']:.4g}"
        if privacy
        else "  without differential privacy"
    )
    yield f"  opens {found['opened_bits']:,} bits" + (":" if found["openings"] else "")
    for to, names, bits in _grouped(found["openings"]):
        yield f"    {names}: {bits:,} bits, to {', '.join(to)}"
    yield f"  discloses {found['bits']:,} bits in all, with what is sealed"
    for party, names in found["waits_for"].items():
        yield f"  {party} waits for a yes of {' or '.join(names)}" if names else f"  {party}: yes"
    for word in found["said"]:
        yield f"  said: {word}"


def _grouped(openings: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """Openings by whom they are for: to whom, the first names, bits together."""
    by: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for each in openings:
        by.setdefault(tuple(each["to"]), []).append(each)
    for to, group in by.items():
        more = f" and {len(group) - 3} more" if len(group) > 3 else ""
        names = ", ".join(each["name"] for each in group[:3]) + more
        yield to, names, sum(each["bits"] for each in group)


def _said(word: Any, party: str) -> str:
    why = f" ({clean(word.reason, LONGEST)})" if word.reason else ""
    return f"{'yes' if word.yes else 'no'} by {clean(word.by, LONGEST)} at {party}{why}"


def _dataset(table: SharedTable) -> dict[str, Any]:
    statement = read_statement(table.conditions) if table.conditions else None
    return {
        "name": table.name,
        "upload": table.upload,
        "rows": table.info.rows,
        "owner": statement.owner if statement else None,
        "conditions": statement.conditions.given if statement else None,
        "rules": statement.conditions.in_words() if statement else "",
    }


def _differ(party: str, job_id: str) -> ProtocolError:
    return ProtocolError(
        f"Party {party!r} knows another job {job_id!r} than it says, or than other parties.",
        hint="Say yes to nothing; ask the operators of coordinator and parties.",
        peer=party,
        job=job_id,
    )
