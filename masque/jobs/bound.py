"""A job tied to data sets, uploads, parties, keys and an attempt: what everyone agrees on.

The coordinator binds a job and sends its canonical JSON to dealer and parties. Each of them checks
it again from the text alone, compiles the program from it and compares digests with the others, so
that nothing the coordinator says beside it matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from masque.data.table import FeatureColumn, LabelInfo, canonical_json, first_repeated
from masque.errors import ProtocolError, SpecError
from masque.jobs import document, fit
from masque.jobs.complaints import KEY_PATTERN, Complaint, refusal, suggestion, validated
from masque.jobs.fit import SharedTable, Split
from masque.jobs.models import SequentialSpec
from masque.jobs.rules import complaints_about
from masque.jobs.section import Name, Section, listed
from masque.jobs.spec import EVERYBODY, JobSpec

FEWEST_PARTIES = 2

LARGEST_SUBMISSION = 32_768
"""Characters of what a client has signed, with its certificate and the signature."""

Key = Annotated[str, Field(pattern=KEY_PATTERN)]


class Recipient(Section):
    """Somebody who is promised a result: name and X25519 public key, 64 hex digits.

    `proof` is the line of text by which the recipient's certificate vouches for the key. It is not
    judged here: a service must check it before it seals anything.
    """

    name: Name
    key: Key
    proof: Annotated[str, Field(max_length=16_384)] = ""


class Resume(Section):
    """Where an attempt goes on: at training round `round`, from what `attempt` had committed.

    `stopped`: training had stopped early by then.
    """

    attempt: Annotated[int, Field(ge=1, le=2**31 - 1)]
    round: Annotated[int, Field(ge=1)]
    stopped: bool = False


class BoundJob(Section):
    """What dealer, parties and coordinator agree on; made by `bind`, read by `read_bound`.

    `parties` are in order: party i holds share i. `attempt` counts from 1; every attempt has
    fresh masks. `client` is who submitted the job. `start` is the model that it starts from.
    `resume`: what an earlier attempt has left to go on with. `submission` is what the client has
    signed (`masque.jobs.submission.Submission`, with the signature). It is not judged here: a
    service must check it before it does anything for the job.
    """

    format: Literal["masque job 5"] = "masque job 5"
    job_id: Name
    attempt: Annotated[int, Field(ge=1, le=2**31 - 1)]
    spec: JobSpec
    tables: Annotated[tuple[SharedTable, ...], BeforeValidator(listed)]
    parties: Annotated[tuple[Name, ...], BeforeValidator(listed), Field(max_length=64)]
    dealer: Name
    coordinator: Name
    client: Name
    recipients: Annotated[tuple[Recipient, ...], BeforeValidator(listed)] = ()
    start: SharedTable | None = None
    resume: Resume | None = None
    submission: Annotated[str, Field(max_length=LARGEST_SUBMISSION)] = ""

    def canonical(self) -> bytes:
        """The one JSON spelling: sorted keys, no spaces, ASCII, floats by `repr`."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> bytes:
        """32 bytes: SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical()).digest()

    def subject(self) -> bytes:
        """32 bytes: SHA-256 of the job without its attempt; all attempts of a job share it."""
        content = self.model_dump(mode="json", exclude={"attempt", "resume"})
        return hashlib.sha256(canonical_json(content)).digest()

    def at_attempt(self, number: int, resume: Resume | None = None) -> BoundJob:
        """The same job as another attempt, with fresh masks; `resume`: where it goes on."""
        return self.model_copy(update={"attempt": number, "resume": resume})

    @property
    def shared(self) -> tuple[SharedTable, ...]:
        """Everything shared that the job reads."""
        return self.tables + ((self.start,) if self.start is not None else ())

    @property
    def rows(self) -> int:
        """Rows of the data sets together."""
        return fit.joined_rows(self.spec, self._infos)

    @property
    def split(self) -> Split:
        """How many rows are to train on, to validate on and held out."""
        return fit.split(self.spec, self.rows)

    @property
    def features(self) -> tuple[FeatureColumn, ...]:
        """The feature columns of the data sets together, in order."""
        return fit.joined_features(self.spec, self._infos)

    @property
    def label(self) -> LabelInfo:
        """The label. Raises SpecError if the data sets have none (`bind` makes sure they do)."""
        label = fit.joined_label(self.spec, self._infos)
        if label is None:
            raise SpecError(f"no data set of job {self.job_id} has the label", field="data.label")
        return label

    @property
    def keys(self) -> dict[str, str]:
        """Public key of every recipient, hex."""
        return {recipient.name: recipient.key for recipient in self.recipients}

    @property
    def _infos(self) -> list[Any]:
        return [table.info for table in self.tables]


def bind(
    spec: JobSpec,
    tables: Iterable[SharedTable],
    parties: Sequence[str],
    recipients: Iterable[Recipient],
    *,
    job_id: str,
    attempt: int,
    dealer: str,
    coordinator: str,
    client: str,
    submission: str = "",
) -> BoundJob:
    """Tie a job to what there is: all data sets known, and the public keys of all people known.

    Raises SpecError with everything that does not fit: unknown data sets or recipients (with a
    suggestion), schemas that differ, a label that is missing or of the wrong kind, too few rows.
    """
    known = {table.name: table for table in tables}
    people = {recipient.name: recipient for recipient in recipients}
    missing = [
        *_unknown_tables(spec, known),
        *_unknown_recipients(spec, people),
    ]
    values = {
        "job_id": job_id,
        "attempt": attempt,
        "spec": spec,
        "tables": tuple(known[name] for name in spec.data.datasets if name in known),
        "parties": tuple(parties),
        "dealer": dealer,
        "coordinator": coordinator,
        "client": client,
        "recipients": tuple(people[name] for name in spec.recipients if name in people),
        "start": known.get(_start_from(spec) or ""),
        "submission": submission,
    }
    source = document.Document(f"job {spec.name!r}", values, {})
    job, complaints = validated(BoundJob, source)
    if job is not None:
        complaints = [] if missing else list(_complaints(job))
    if job is None or missing or complaints:
        raise refusal(source, [*missing, *complaints])
    return job


def read_bound(text: bytes | str, sender: str) -> BoundJob:
    """A bound job as `sender` sent it, with every check of `bind` done again.

    Raises ProtocolError naming the sender if it is not the canonical spelling of an acceptable job.
    """
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    try:
        job = BoundJob.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise _unacceptable(sender, f"{field} {first['msg']}".strip()) from None
    complaints = [*_complaints(job)]
    if complaints:
        problem = f"{complaints[0].field} {complaints[0].problem}"
        raise _unacceptable(sender, problem, job.job_id)
    if job.canonical() != raw:
        raise _unacceptable(sender, "it is not in canonical form", job.job_id)
    return job


def _complaints(job: BoundJob) -> Iterator[Complaint]:
    """Everything that is wrong with a bound job, from itself alone."""
    sections = {key: getattr(job.spec, key) for key in JobSpec.model_fields}
    own = complaints_about(sections)
    yield from own
    services = list(_services(job))
    yield from services
    named = tuple(table.name for table in job.tables)
    if named != job.spec.data.datasets:
        yield Complaint(("tables",), "are not the data sets of the job, in their order")
    elif (job.start.name if job.start else None) != _start_from(job.spec):
        yield Complaint(("start",), "is not the model that the job starts from")
    elif not own and not services:
        yield from fit.complaints_about_fit(job.spec, job.tables, job.start)
    if job.resume is not None and job.resume.attempt >= job.attempt:
        yield Complaint(("resume", "attempt"), f"is {job.resume.attempt}, no earlier attempt")
    promised = tuple(recipient.name for recipient in job.recipients)
    if promised != job.spec.recipients:
        yield Complaint(("recipients",), "are not those that the job promises something to")


def _services(job: BoundJob) -> Iterator[Complaint]:
    if len(job.parties) < FEWEST_PARTIES:
        yield Complaint(("parties",), f"are {len(job.parties)}", "Two are needed at least.")
    repeated = first_repeated([*job.parties, job.dealer, job.coordinator])
    if repeated is not None:
        yield Complaint(
            ("parties",), f"repeat the name {repeated!r}", "Services must have different names."
        )
    if EVERYBODY in {*job.parties, job.dealer, job.coordinator, job.client}:
        yield Complaint(("parties",), f"cannot have the name {EVERYBODY!r}", "Rename it.")


def _unknown_tables(spec: JobSpec, known: Mapping[str, SharedTable]) -> Iterator[Complaint]:
    for index, name in enumerate(spec.data.datasets):
        if name not in known:
            yield Complaint(
                ("data", spec.data.partition, index),
                f"{name!r} is not a shared data set",
                suggestion(name, sorted(known)) or "None is shared yet: see `masque share`.",
            )

    start = _start_from(spec)
    if start is not None and start not in known:
        yield Complaint(
            ("model", "start_from"),
            f"{start!r} is not shared",
            suggestion(start, sorted(known)) or "Share it: `masque share-model`.",
        )


def _start_from(spec: JobSpec) -> str | None:
    return spec.model.start_from if isinstance(spec.model, SequentialSpec) else None


def _unknown_recipients(spec: JobSpec, known: Mapping[str, Recipient]) -> Iterator[Complaint]:
    for name in spec.recipients:
        if name not in known:
            sealed = name in (spec.model_output.sealed_to or ())
            yield Complaint(
                ("model_output", "sealed_to") if sealed else ("reveal", "to"),
                f"names {name!r}, whose public key is not known",
                suggestion(name, sorted(known)) or "Register the recipient's public key.",
            )


def _unacceptable(sender: str, problem: str, job: str | None = None) -> ProtocolError:
    return ProtocolError(
        f"{sender} sent a job that cannot be accepted: {problem}.",
        hint="Check that all services run the same version of Masque.",
        peer=sender,
        job=job,
    )
