"""What worlds need again and again, computed once: compiled programs, parsed and spelled jobs,
signatures that were verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any
from unittest import mock

from masque.jobs import compile as compiling
from masque.jobs import document, policy
from masque.jobs.bound import BoundJob
from masque.mpc.program import Program
from masque.wire import authorise, statements
from masque.wire.certificates import read_der
from masque.wire.identity import parse_identity
from masque.wire.recipients import verify_signature
from masque.wire.trust import Trust
from tests.services.handmade import compile_handmade

_compiled: dict[Any, Program] = {}
_real_compile = compiling.compile_job


def compiled(job: BoundJob, how: Callable[[BoundJob], Program]) -> Program:
    """The program of a job, which worlds do not compile again and again."""
    tables = tuple((table.name, table.info) for table in job.shared)
    key = how, job.job_id, len(job.parties), job.spec.model_dump_json(), repr(tables)
    if key not in _compiled:
        _compiled[key] = how(job)
        _ = _compiled[key].digest
    return _compiled[key]


@contextmanager
def computed_once() -> Iterator[None]:
    """While it lasts, worlds compute once what follows from its arguments."""
    real = partial(compiled, how=_real_compile)
    with (
        mock.patch.object(compiling, "compile_job", real),
        mock.patch.object(BoundJob, "model_validate_json", _parsed),
        mock.patch.object(BoundJob, "canonical", _once(BoundJob.canonical)),
        mock.patch.object(BoundJob, "subject", _once(BoundJob.subject)),
        mock.patch.object(policy, "load", cache(policy.load)),
        mock.patch.object(document, "_compose", cache(document._compose)),
        mock.patch.object(authorise, "parse_identity", cache(parse_identity)),
        mock.patch.object(statements, "read_signed", _lately(statements.read_signed)),
        mock.patch.object(statements, "read_der", _lately(read_der)),
        mock.patch.object(statements, "verify_signature", _lately(verify_signature)),
        mock.patch.object(Trust, "issuer", _lately(Trust.issuer)),
    ):
        yield


_lately = lru_cache(maxsize=64)
"""Of what follows from its arguments alone: not whether a certificate is valid, or revoked."""

_spelled: dict[str | bytes, BoundJob] = {}
_real_parse = BoundJob.model_validate_json


def _parsed(raw: str | bytes) -> BoundJob:
    """The job of this spelling, which worlds do not parse again and again."""
    if raw not in _spelled:
        _spelled[raw] = _real_parse(raw)
    return _spelled[raw]


_known: dict[tuple[str, int], tuple[BoundJob, bytes]] = {}


def _once(work: Callable[[BoundJob], bytes]) -> Callable[[BoundJob], bytes]:
    """`work`, done once for every job, none of which ever changes."""

    def once(job: BoundJob) -> bytes:
        key = work.__name__, id(job)
        if key not in _known:
            _known[key] = job, work(job)
        return _known[key][1]

    return once


def compile_any(job: BoundJob) -> Program:
    """Handmade, but for jobs that are called `real`."""
    how = _real_compile if job.job_id.startswith("real") else compile_handmade
    return compiled(job, how)


def forget() -> None:
    """A world is over, and so are its jobs; programs are kept."""
    _known.clear()
    _spelled.clear()
