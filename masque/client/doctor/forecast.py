"""What `masque plan` predicts on the link that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from masque.client.doctor.findings import Finding
from masque.client.doctor.peer import LINK
from masque.client.doctor.subject import Subject
from masque.client.machine import Machine
from masque.client.planning import Part, plan
from masque.data import schema
from masque.jobs import spec
from masque.jobs.fit import SharedTable
from masque.jobs.spec import JobSpec
from masque.wire.identity import Role


@dataclass(frozen=True)
class Reference:
    """A job that everybody can compare: columns of its data, label, model, rows of a batch."""

    what: str
    columns: int
    label: str
    model: str
    batch: int


REFERENCES = (
    Reference(
        "logistic regression, 30 columns: a batch of 32",
        30,
        "type: binary, classes: [0, 1], positive: 1",
        "{kind: logistic_regression}",
        32,
    ),
    Reference(
        "network A, 784-128-128-10: a batch of 128",
        784,
        "type: classes, classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]",
        "{kind: sequential, network: a}",
        128,
    ),
)


@dataclass(frozen=True)
class Link:
    """The slowest that was measured: seconds of a round trip to a party, bytes a second."""

    round_trip: float
    bandwidth: float


@dataclass(frozen=True)
class Prediction:
    """Of a job or an iteration: rounds, bytes that a party sends, and seconds."""

    what: str
    rounds: int
    sent_by_a_party: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """For services as far apart as the link says; `between`: whether it is one of two parties."""

    link: Link
    between: bool
    predictions: tuple[Prediction, ...]

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def slowest(subject: Subject, findings: Sequence[Finding]) -> Link | None:
    """The link that holds jobs up, as far as parties were measured; None if none was."""
    parties = {
        f"{p.identity} at {p.address}" for p in subject.peers if p.identity.role is Role.PARTY
    }
    links = [f for f in findings if f.check == LINK and f.figures]
    trips = [float(f.figures["round_trip"]) for f in links if f.about in parties]
    rates = [float(f.figures[way]) for f in links for way in ("there", "back")]
    return Link(max(trips), min(rates)) if trips else None


def forecast(
    subject: Subject,
    link: Link,
    machine: Machine,
    job: JobSpec | None,
    tables: Sequence[SharedTable],
) -> Forecast:
    """A job, or two for reference. Raises SpecError for a job that does not fit its tables."""
    machine = replace(machine, latency=link.round_trip, bandwidth=link.bandwidth)
    parties = max(2, subject.parties)
    if job is not None:
        found = [_predicted(f"job {job.name}", plan(job, tables, parties, machine).total)]
    else:
        found = [_batch(reference, parties, machine) for reference in REFERENCES]
    return Forecast(link, subject.identity.role is Role.PARTY, tuple(found))


def _batch(reference: Reference, parties: int, machine: Machine) -> Prediction:
    """One iteration: what a pass over two batches takes more than one over a single batch."""
    less, more = (_epoch(reference, batches, parties, machine) for batches in (1, 2))
    return Prediction(
        reference.what,
        more.rounds - less.rounds,
        more.sent_by_a_party - less.sent_by_a_party,
        more.seconds - less.seconds,
    )


def _epoch(reference: Reference, batches: int, parties: int, machine: Machine) -> Part:
    parsed = spec.parse(
        f"name: reference\ndata: {{rows: [rows], label: y}}\nmodel: {reference.model}\n"
        f"training: {{epochs: 1, batch_size: {reference.batch},"
        " optimizer: {kind: sgd, learning_rate: 0.1}}\n"
        "model_output: {sealed_to: [somebody]}\n"
    )
    lines = [
        f"  x{index}: {{type: integer, range: [0, 255]}}" for index in range(reference.columns)
    ]
    text = "\n".join(["columns:", *lines, f"label: {{column: y, {reference.label}}}"])
    info = schema.loads(text).describe(reference.batch * batches)
    table = SharedTable(name="rows", upload="planned", info=info)
    parts = plan(parsed, [table], parties, machine).parts
    return next(part for part in parts if part.name == "epoch 1")


def _predicted(what: str, part: Part) -> Prediction:
    return Prediction(what, part.rounds, part.sent_by_a_party, part.seconds)
