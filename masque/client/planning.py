"""What a job will cost, before anything runs: exact rounds, bytes and material; estimated time.

Rounds, bytes and material follow from the program alone (`masque.mpc.cost`). The time is an
estimate by the figures of a `masque.client.machine.Machine`: those that `masque calibrate` measured
with the services of a profile, or built-in ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masque.client import values
from masque.client.machine import Machine
from masque.data import schema as schemas
from masque.errors import InputError
from masque.jobs.bound import BoundJob, Recipient, bind
from masque.jobs.fit import SharedTable
from masque.jobs.spec import JobSpec

if TYPE_CHECKING:
    from masque.ml.ranges import Ranges
    from masque.mpc.cost import RoundCost
    from masque.mpc.program import Program

NO_KEY = "0" * 64
MODEL_FILES = (".npz", ".safetensors", ".json")


@dataclass(frozen=True)
class Part:
    """One training round, or all: rounds of messages, bytes a party sends to all its peers, bytes
    of material for each party, bytes each expands its seed to, multiplications at one party; blocks
    it runs, their nodes, and the elements that these make; bits that the widest number may take of
    the ring's 62; the estimated time.
    """

    name: str
    rounds: int
    sent_by_a_party: int
    corrections: tuple[int, ...]
    drawn: int
    multiplications: int
    calls: int
    nodes: int
    elements: int
    bits: float = 0.0
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
        sum(part.calls for part in parts),
        sum(part.nodes for part in parts),
        sum(part.elements for part in parts),
        max(part.bits for part in parts),
        sum(part.seconds for part in parts),
    )


@dataclass(frozen=True)
class Plan:
    """The parts in order, what the job opens, whose figures the time is by, what bounds the
    values of a step, what noise the model has, if any; bytes of memory a party needs at most.
    """

    job: str
    parties: int
    rows: int
    features: int
    parts: tuple[Part, ...]
    openings: tuple[tuple[str, int, tuple[str, ...]], ...]
    machine: Machine = field(default_factory=Machine)
    ranges: Ranges | None = None
    privacy: dict[str, float] = field(default_factory=dict)
    memory: int = 0

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
            "memory_of_a_party": self.memory,
            "total": asdict(self.total),
            "training_rounds": [asdict(part) for part in self.parts],
            "openings": [
                {"name": name, "bits": bits, "to": list(to)} for name, bits, to in self.openings
            ],
            "time_is": "an estimate",
            "machine": self._machine(),
            **values.as_json(self.ranges),
            "privacy": self.privacy or None,
        }

    def _machine(self) -> dict[str, Any]:
        found = self.machine.calibration
        if found is None:
            return {"calibrated": False}
        return {
            "calibrated": True,
            "date": found.date,
            "processor": found.processor,
            "parties": found.parties,
            "worst_error": round(found.worst_error, 3),
        }


def plan(spec: JobSpec, tables: Iterable[SharedTable], parties: int, machine: Machine) -> Plan:
    """The plan of a job on these data sets. Raises SpecError for what does not fit them."""
    from masque.jobs.compile import compile_job, task_of
    from masque.ml.ranges import ranges
    from masque.mpc.cost import cost
    from masque.mpc.footprint import footprint

    bound = bound_for_planning(spec, tables, parties)
    program = compile_job(bound)
    costs = cost(program)
    parts = tuple(_part(found, parties, machine) for found in costs.rounds_by_name)
    openings = tuple((o.name, o.bits, o.to) for o in program.openings)
    return Plan(
        spec.name,
        parties,
        bound.rows,
        len(bound.features),
        parts,
        openings,
        machine,
        ranges(task_of(bound)),
        privacy_of(bound, program),
        footprint(program),
    )


def privacy_of(bound: BoundJob, program: Program) -> dict[str, float]:
    """What is promised about the model of a job, and the noise in it; nothing without privacy.

    `sensitivity`: how far one row moves the weights at most; `most_sensitivity`: how far the job
    lets it, if it says so. `noise` is that of all parties together on each weight, as trained
    (columns by their ranges); `score_noise` what it may do to a score.
    """
    from masque.jobs.compile import task_of
    from masque.ml.privacy import advantage_bound, score_noise

    found, asked = program.release, bound.spec.privacy
    if found is None or asked is None:
        return {}
    declared = {} if asked.sensitivity is None else {"most_sensitivity": asked.sensitivity}
    return {
        "epsilon": found.epsilon,
        "delta": found.delta,
        "sensitivity": found.sensitivity,
        **declared,
        "noise_of_a_party": found.sigma,
        "noise": found.sigma * len(bound.parties) ** 0.5,
        "score_noise": score_noise(task_of(bound), found),
        "weight_bound": bound.spec.model.weight_bound,
        "most_advantage": advantage_bound(found.epsilon, found.delta),
    }


def privacy_lines(found: Mapping[str, float]) -> list[str]:
    """The same in words."""
    if not found:
        return []
    from masque.ml.privacy import rounded_up

    most = found.get("most_sensitivity")
    return [
        f"Privacy: epsilon {found['epsilon']:g}, delta {found['delta']:g}. One row moves the"
        f" weights by {rounded_up(found['sensitivity'])} at most"
        + (f"; the job allows {most:g}." if most is not None else "."),
        f"Noise: {found['noise']:.4g} on each weight ({found['noise_of_a_party']:.4g} from each"
        f" party; weights are limited to {found['weight_bound']:g}), up to"
        f" {found['score_noise']:.4g} on a score.",
        "No attack tells a row that was trained on from another with an advantage above"
        f" {found['most_advantage']:.1%}.",
    ]


def _part(found: RoundCost, parties: int, machine: Machine) -> Part:
    return Part(
        found.name,
        found.rounds,
        found.sent * (parties - 1),
        found.corrections,
        found.drawn,
        found.multiplications,
        found.calls,
        found.nodes,
        found.elements,
        round(found.bits, 2),
        machine.seconds(found, parties),
    )


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
    """Data sets that need not exist, each written NAME=SCHEMA:ROWS, and models to start from,
    written NAME=FILE. Raises InputError.
    """
    found = []
    for text in given:
        name, equals, rest = text.partition("=")
        if name and Path(rest).suffix in MODEL_FILES:
            from masque.client.models_shared import described, network_in

            info = described(network_in(rest), rest)
            found.append(SharedTable(name=name, upload="planned", info=info))
            continue
        path, colon, rows = rest.rpartition(":")
        if not (equals and colon and name and path and rows.isascii() and rows.isdigit()):
            raise InputError(
                f"{text!r} does not describe a data set.",
                hint="Write NAME=SCHEMA:ROWS, such as hospital-a=schema.yaml:228, or NAME=FILE for"
                " a model.",
                field="table",
            )
        if int(rows) < 1:
            raise InputError(f"The data set {name!r} has no rows.", hint="Give 1 or more.")
        info = schemas.load(Path(path)).describe(int(rows))
        found.append(SharedTable(name=name, upload="planned", info=info))
    return found
