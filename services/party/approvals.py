"""Jobs that need a person's yes here, and what has been said of them.

    data/approvals/<job>.json     the bound job, who must say yes, who has said what, has it begun

A yes is for one job as a whole, with all its attempts: it names the job's subject, the digest of
everything but the attempt. What is said is on disk and in the ledger before it counts. It can be
taken back until the job has begun. A case is gone when its coordinator says that the job has ended,
or after a while; a no is not: no job of this id begins any more, for as long as the ledger has it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from masque.data.disk import make_directory
from masque.errors import Conflict, MasqueError, NotFound, Refused
from masque.jobs.bound import BoundJob
from masque.jobs.chain import APPROVED, DENIED
from masque.jobs.ledger import Ledger
from services.party.results import write_whole

MOST = 1000
"""Jobs that may wait for somebody's yes."""


@dataclass
class Case:
    """One job: of each list of `asked` one must say yes; `said`: the last word of each, and why.

    `subject`: hex; `job`: canonical JSON; `begun`: an attempt of it has begun here.
    """

    job_id: str
    subject: str
    coordinator: str
    job: str = field(repr=False)
    asked: list[list[str]]
    said: dict[str, tuple[bool, str]] = field(default_factory=dict)
    begun: bool = False

    def asks(self, who: str) -> bool:
        """May `who` say yes or no?"""
        return any(who in names for names in self.asked)

    @property
    def missing(self) -> list[str]:
        """Who could say the yes that lacks."""
        yes = {name for name, (word, _) in self.said.items() if word}
        lacking = [names for names in self.asked if not yes.intersection(names)]
        return sorted({name for names in lacking for name in names})

    @property
    def settled(self) -> bool:
        """Has it begun, with every yes that it needs?"""
        return self.begun and not self.missing

    @property
    def denied(self) -> tuple[str, str] | None:
        """Who has said no, and why."""
        words = ((who, why) for who, (yes, why) in self.said.items() if not yes)
        return next(((who, why) for who, why in words if self.asks(who)), None)


class Approvals:
    """The cases of the party `name`, below `directory`. Safe in any thread."""

    def __init__(self, directory: Path, ledger: Ledger, name: str) -> None:
        self._directory, self._ledger, self._name = directory, ledger, name
        self._lock = threading.Lock()
        self._no: dict[str, dict[str, str]] = {}  # by job: who has said no last, and why
        make_directory(directory)
        ledger.follow(self._remember)

    def missing(self, job: BoundJob, asked: Sequence[Sequence[str]]) -> list[str]:
        """Who could say the yes that a job still needs; nobody: it may begin.

        `asked`: see `Case`. The job is put before them. Raises Refused if one has said no, or if
        another job has this id.
        """
        if not asked:
            return []
        with self._lock:
            return self._missing(self._case(job, asked))

    def begin(self, job: BoundJob, asked: Sequence[Sequence[str]]) -> list[str]:
        """The same; if nobody is missing, it begins: no word on it is taken any more."""
        if not asked:
            return []
        with self._lock:
            case = self._case(job, asked)
            missing = self._missing(case)
            if not missing and not case.begun:
                case.begun = True
                self._write(case)
            return missing

    def waiting(self, who: str, job_id: str = "") -> list[Case]:
        """What has not begun, and `who` may say yes or no to: all of it, or the job of this id."""
        with self._lock:
            found = (case for case in self._all() if case.asks(who) and not case.settled)
            return [case for case in found if job_id in ("", case.job_id)]

    def say(self, job_id: str, subject: str, who: str, *, yes: bool, reason: str) -> Case:
        """Somebody's word on a job; the last one counts.

        Raises NotFound if nobody has asked `who`, Refused if it is about another job, Conflict once
        the job has begun.
        """
        with self._lock:
            case = self._read(job_id)
            if case is None or not case.asks(who):
                raise NotFound(
                    f"party {self._name!r} has no job {job_id!r} that waits for {who!r}.",
                    hint="`masque approve` lists what waits for you.",
                    job=job_id,
                )
            if case.subject != subject:
                raise Refused(
                    f"job {job_id} at party {self._name!r} is another than the one you have seen.",
                    hint="Look at it again: masque approve.",
                    party=self._name,
                    job=job_id,
                )
            if case.settled:
                raise Conflict(
                    f"job {job_id} has begun at party {self._name!r}: it is too late to say no.",
                    hint="Who has submitted it can end it: masque cancel.",
                    party=self._name,
                    job=job_id,
                )
            if case.said.get(who) != (yes, reason):
                kind = APPROVED if yes else DENIED
                self._ledger.note(kind, job=job_id, subject=subject, by=who, reason=reason)
                case.said[who] = (yes, reason)
                self._write(case)
            return case

    def forget(self, job_id: str, coordinator: str) -> None:
        """`coordinator` says that a job of its own has ended. A no that was said stays."""
        with self._lock:
            case = self._read(job_id)
            if case is not None and case.coordinator == coordinator:
                self._path(job_id).unlink(missing_ok=True)

    def sweep(self, seconds: float) -> None:
        """Forget what is older, but for every no."""
        with self._lock:
            for path in self._directory.glob("*.json"):
                if time.time() - path.stat().st_mtime > seconds:
                    path.unlink(missing_ok=True)

    def _case(self, job: BoundJob, asked: Sequence[Sequence[str]]) -> Case:
        """The case of a job, written down if it is new, or if others are asked than before."""
        case, lists = self._read(job.job_id), [list(names) for names in asked]
        subject = job.subject().hex()
        if case is None:
            for who, why in self._no.get(job.job_id, {}).items():
                raise self._refused(job.job_id, who, why)
            if sum(1 for _ in self._directory.glob("*.json")) >= MOST:
                raise Refused(
                    f"{MOST} jobs wait for somebody's yes at party {self._name!r}.",
                    hint="Ask them to look: masque approve.",
                    party=self._name,
                )
            text = job.canonical().decode("ascii")
            case = Case(job.job_id, subject, job.coordinator, text, lists)
            self._write(case)
        elif case.subject != subject:
            raise Refused(
                f"{self._name} refuses job {job.job_id}: another job of this id was put before "
                "those who must say yes.",
                hint="Submit it under an id of its own.",
                party=self._name,
                rule="approval",
                job=job.job_id,
            )
        elif case.asked != lists:
            case.asked = lists
            self._write(case)
        return case

    def _missing(self, case: Case) -> list[str]:
        if case.denied is None:
            return case.missing
        raise self._refused(case.job_id, *case.denied)

    def _refused(self, job_id: str, who: str, why: str) -> Refused:
        return Refused(
            f"{self._name} refuses job {job_id}: {who!r} has said no"
            + (f": {why.rstrip('.')}." if why else "."),
            hint=f"Ask {who!r}, and submit another job.",
            party=self._name,
            rule="approval",
            by=who,
            job=job_id,
        )

    def _remember(self, entry: Mapping[str, Any]) -> None:
        """An entry of the ledger: there is one for every word, before it counts."""
        if entry["kind"] == DENIED:
            self._no.setdefault(str(entry["job"]), {})[str(entry["by"])] = str(entry["reason"])
        elif entry["kind"] == APPROVED:
            self._no.get(str(entry["job"]), {}).pop(str(entry["by"]), None)

    def _all(self) -> Iterator[Case]:
        for path in sorted(self._directory.glob("*.json")):
            with contextlib.suppress(MasqueError):  # told to who submits that job
                found = self._read(path.stem)
                if found is not None:
                    yield found

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{job_id}.json"

    def _read(self, job_id: str) -> Case | None:
        path = self._path(job_id)
        try:
            return _case(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise MasqueError(
                f"what was said of job {job_id} at party {self._name!r} cannot be read.",
                hint="Submit the job again under another id.",
                file=str(path),
            ) from None

    def _write(self, case: Case) -> None:
        content = json.dumps(asdict(case)).encode()
        write_whole(self._path(case.job_id), content)


def fitting(cases: Sequence[Case], most: int) -> Sequence[Case]:
    """The first of them, whose jobs have `most` bytes together; one at least, if there is any."""
    sizes = accumulate(len(case.job) for case in cases)
    return cases[: max(1, sum(size <= most for size in sizes))]


def _case(found: Any) -> Case:
    """As it was written, or one of the errors that Python has for what is something else."""
    return Case(
        str(found["job_id"]),
        bytes.fromhex(found["subject"]).hex(),
        str(found["coordinator"]),
        str(found["job"]).encode("ascii").decode(),
        [[str(name) for name in names] for names in found["asked"]],
        {str(name): (bool(yes), str(why)) for name, (yes, why) in found["said"].items()},
        bool(found["begun"]),
    )
