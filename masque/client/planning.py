"""What a job will cost, before anything runs: exact rounds, bytes and material; estimated time.

Rounds, bytes and material follow from the program alone (`masque.mpc.cost`). The time is an
estimate: rounds x latency + bytes / bandwidth + multiplications / rate + material / rate, a part
at a time, as if nothing overlapped. The figures of a `Machine` are measured on one machine with all
services on it; give those of your own network for services on separate hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from masque.data import schema as schemas
from masque.errors import InputError
from masque.jobs.bound import BoundJob, Recipient, bind
from masque.jobs.fit import SharedTable
from masque.jobs.spec import JobSpec

NO_KEY = "0" * 64


@dataclass(frozen=True)
class Machine:
    """Seconds a round trip between parties; bytes a second of one link, and of the dealer's;
    ring multiplications, and bytes of expanded seeds, a second.
    """

    latency: float = 0.0006
    bandwidth: float = 2.5e8
    multiplications: float = 2.0e9
    drawing: float = 1.0e9
    per_round: float = 0.01

    def seconds(self, part: Part) -> float:
        """The estimated time of one training round."""
        return (
            self.per_round
            + part.rounds * self.latency
            + part.sent_by_a_party / self.bandwidth
            + sum(part.corrections) / self.bandwidth
            + part.multiplications / self.multiplications
            + part.drawn / self.drawing
        )


@dataclass(frozen=True)
class Part:
    """One training round, or all: rounds of messages, bytes a party sends to all its peers, bytes
    of material for each party, bytes each expands its seed to, multiplications at one party.
    """

    name: str
    rounds: int
    sent_by_a_party: int
    corrections: tuple[int, ...]
    drawn: int
    multiplications: int
    seconds: float = 0.0


def summed(name: str, parts: Sequence[Part]) -> Part:
    """Several parts as one; needs one at least."""
    columns = zip(*(part.corrections for part in parts), strict=True)
    return Part(
        name,
        sum(part.rounds for part in parts),
        sum(part.sent_by_a_party for part in parts),
        tuple(sum(column) for column in columns),
        sum(part.drawn for part in parts),
        sum(part.multiplications for part in parts),
        sum(part.seconds for part in parts),
    )


@dataclass(frozen=True)
class Plan:
    """The parts in order, and what the job opens."""

    job: str
    parties: int
    rows: int
    features: int
    parts: tuple[Part, ...]
    openings: tuple[tuple[str, int, tuple[str, ...]], ...]

    @property
    def total(self) -> Part:
        """All parts together."""
        return summed("total", self.parts)

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "job": self.job,
            "parties": self.parties,
            "rows": self.rows,
            "features": self.features,
            "total": asdict(self.total),
            "training_rounds": [asdict(part) for part in self.parts],
            "openings": [
                {"name": name, "bits": bits, "to": list(to)} for name, bits, to in self.openings
            ],
            "time_is": "an estimate",
        }


def plan(spec: JobSpec, tables: Iterable[SharedTable], parties: int, machine: Machine) -> Plan:
    """The plan of a job on these data sets. Raises SpecError for what does not fit them."""
    from masque.jobs.compile import compile_job
    from masque.mpc.cost import cost

    bound = bound_for_planning(spec, tables, parties)
    program = compile_job(bound)
    costs = cost(program)
    parts = []
    for found in costs.rounds_by_name:
        part = Part(
            found.name,
            found.rounds,
            found.sent * (parties - 1),
            found.corrections,
            found.drawn,
            found.multiplications,
        )
        parts.append(Part(**(vars_of(part) | {"seconds": machine.seconds(part)})))
    openings = tuple((o.name, o.bits, o.to) for o in program.openings)
    return Plan(spec.name, parties, bound.rows, len(bound.features), tuple(parts), openings)


def vars_of(part: Part) -> dict[str, Any]:
    """The fields of a part, unconverted."""
    return {name: getattr(part, name) for name in Part.__dataclass_fields__}


def bound_for_planning(spec: JobSpec, tables: Iterable[SharedTable], parties: int) -> BoundJob:
    """The job tied to stand-ins of services and recipients: it is never run."""
    if not 2 <= parties <= 64:
        raise InputError(f"{parties} parties cannot compute.", hint="Plan for 2 to 64.")
    return bind(
        spec,
        tables,
        [f"party-{index}" for index in range(parties)],
        [Recipient(name=name, key=NO_KEY) for name in spec.recipients],
        job_id="plan",
        attempt=1,
        dealer="the-dealer",
        coordinator="the-coordinator",
        client="the-client",
    )


def tables_of(given: Sequence[str]) -> list[SharedTable]:
    """Data sets that need not exist, each written NAME=SCHEMA:ROWS. Raises InputError."""
    found = []
    for text in given:
        name, equals, rest = text.partition("=")
        path, colon, rows = rest.rpartition(":")
        if not (equals and colon and name and path and rows.isascii() and rows.isdigit()):
            raise InputError(
                f"{text!r} does not describe a data set.",
                hint="Write NAME=SCHEMA:ROWS, such as hospital-a=schema.yaml:228.",
                field="table",
            )
        if int(rows) < 1:
            raise InputError(f"The data set {name!r} has no rows.", hint="Give 1 or more.")
        info = schemas.load(Path(path)).describe(int(rows))
        found.append(SharedTable(name=name, upload="planned", info=info))
    return found
