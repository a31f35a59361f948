"""The examination as a whole: the host, all services at the same time, and what to expect."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from masque.client.doctor import own
from masque.client.doctor.findings import Finding, Level, Limits, wrong
from masque.client.doctor.forecast import Forecast, forecast, slowest
from masque.client.doctor.peer import Examination
from masque.client.doctor.subject import Subject
from masque.client.machine import Machine
from masque.client.planning import bound_for_planning
from masque.errors import MasqueError, Unavailable
from masque.jobs.fit import SharedTable
from masque.jobs.spec import JobSpec
from masque.version import __version__
from masque.wire.protocol import protocol_digest
from masque.wire.tls import Credentials


@dataclass(frozen=True)
class Report:
    """Who was looked at, what was found, and what jobs take."""

    subject: Subject
    findings: tuple[Finding, ...]
    forecast: Forecast | None

    @property
    def exit_code(self) -> int:
        """That of the first line that failed; 0 if none did."""
        failed = (f.exit_code for f in self.findings if f.level is Level.FAIL)
        return next(failed, 0)

    def count(self, level: Level) -> int:
        """How many lines are of that level."""
        return sum(finding.level is level for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "identity": self.subject.identity.uri,
            "file": str(self.subject.file),
            "version": __version__,
            "protocol": protocol_digest().hex(),
            "ready": self.exit_code == 0,
            "exit_code": self.exit_code,
            "findings": [finding.as_json() for finding in self.findings],
            "forecast": self.forecast.as_json() if self.forecast else None,
        }


def examine(
    subject: Subject,
    machine: Machine,
    *,
    job: JobSpec | None = None,
    tables: Sequence[SharedTable] = (),
    limits: Limits | None = None,
) -> Report:
    """Look at everything; ends within `limits.seconds`, the forecast aside.

    What is wrong with a host or a service is not raised. Raises SpecError for a job that does not
    fit its tables.
    """
    if job is not None:
        bound_for_planning(job, tables, max(2, subject.parties))
    limits = limits or Limits()
    until = time.monotonic() + limits.seconds
    credentials, findings = own.certificate(subject, limits)
    findings += own.port(subject, credentials, limits)
    findings += own.disk(subject, limits, sum(table.info.share_bytes for table in tables))
    findings += _peers(subject, credentials, limits, until)
    link = slowest(subject, findings)
    expected = forecast(subject, link, machine, job, tables) if link else None
    return Report(subject, tuple(findings), expected)


def _peers(
    subject: Subject, credentials: Credentials | None, limits: Limits, until: float
) -> list[Finding]:
    """All at the same time, each in a thread that nobody waits for longer than `until`."""
    turn = threading.Lock()
    runs = []
    for peer in subject.peers:
        examination = Examination(peer, credentials, limits, turn, until)
        found: list[Finding] = []
        thread = threading.Thread(target=_collect, args=(examination, found), daemon=True)
        thread.start()
        runs.append((examination, found, thread))
    findings = []
    for examination, found, thread in runs:
        thread.join(max(0.0, until - time.monotonic()))
        findings += list(found)
        if thread.is_alive():
            late = Unavailable(
                f"It kept us waiting for more than {limits.seconds:.0f} s.",
                hint="Its machine or process hangs, or the network loses much: see its log.",
            )
            findings.append(wrong(examination.about, "answer", late))
    file = f"in {subject.file.name}"
    return [replace(f, cure=f.cure.replace("in the profile", file)) for f in findings]


def _collect(examination: Examination, found: list[Finding]) -> None:
    try:
        for finding in examination.findings():
            found.append(finding)
    except Exception as error:
        told = MasqueError(f"The doctor failed on its own account: {type(error).__name__}: {error}")
        found.append(wrong(examination.about, "answer", told))
