"""What a computing party allows: its operator's `policy.yaml`, checked before a job is prepared.

A party without a policy file uses the defaults below: any coordinator, client, model, metric and
recipient of its own authority, but no model opened to everybody, no data set too small to hide a
row in, and no step of training on a single row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from os import PathLike
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, Field

from masque.errors import Refused
from masque.jobs import document
from masque.jobs.bound import BoundJob, Key
from masque.jobs.complaints import refusal, validated
from masque.jobs.models import ModelKind
from masque.jobs.section import Name, Section
from masque.jobs.spec import Metric, Outcome

PARTIES = "parties"
"""Whom an opening names that all parties see, as they may see each of a job they take part in."""


class Opening(Protocol):
    """An opening of an unmasked value that a program declares."""

    @property
    def name(self) -> str:
        """What is opened."""

    @property
    def bits(self) -> int:
        """How many bits of it."""

    @property
    def to(self) -> Sequence[str]:
        """Who sees it."""


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Allowed = Annotated[tuple[Name, ...] | None, BeforeValidator(_listed)]


class Policy(Section):
    """A party's rules. A list that is not given allows everybody; an empty list allows nobody.

    `recipient_keys` pins public keys: a job that names one of these recipients with another key is
    refused, whatever the coordinator says. `maximum_opened_bits` bounds the sum over all openings
    that the program declares. `minimum_batch_rows` counts the smallest step of an epoch, which is
    the last: with an l2 that forgets the steps before, weights are the gradient of that batch.
    Where `maximum_epsilon` or `maximum_delta` is given, every job must have `privacy`.
    """

    coordinators: Allowed = None
    clients: Allowed = None
    models: Annotated[tuple[ModelKind, ...] | None, BeforeValidator(_listed)] = None
    metrics: Annotated[tuple[Metric, ...] | None, BeforeValidator(_listed)] = None
    outputs: Annotated[tuple[Outcome, ...], BeforeValidator(_listed)] = ("sealed", "kept")
    recipients: Allowed = None
    recipient_keys: dict[Name, Key] = Field(default_factory=dict)
    minimum_rows: Annotated[int, Field(ge=1)] = 20
    minimum_held_out_rows: Annotated[int, Field(ge=1)] = 4
    minimum_batch_rows: Annotated[int, Field(ge=1)] = 2
    maximum_opened_bits: Annotated[int, Field(ge=0)] | None = None
    maximum_epsilon: Annotated[float, Field(gt=0)] | None = None
    maximum_delta: Annotated[float, Field(gt=0)] | None = None

    def check(self, job: BoundJob, openings: Iterable[Opening], party: str) -> None:
        """Does this policy of `party` allow the job and what its program opens?

        Raises Refused naming the party, the rule and the value that breaks it.
        """
        declared = list(openings)
        for rule, value, allowed in (*self._named(job, declared), *self._counted(job, declared)):
            raise Refused(
                f"{party} refuses job {job.job_id}: its policy's {rule} does not allow {value}.",
                hint=f"Allowed: {allowed}. Change the job, or ask the operator of {party}.",
                party=party,
                rule=rule,
                value=value,
                job=job.job_id,
            )

    def _named(self, job: BoundJob, openings: Iterable[Opening]) -> Iterator[tuple[str, str, str]]:
        output = job.spec.model_output
        parties = {PARTIES, *job.parties}
        seen_by = [n for opening in openings for n in opening.to if n not in parties]
        for rule, names in (
            ("coordinators", [job.coordinator]),
            ("clients", [job.client]),
            ("models", [job.spec.model.kind]),
            ("metrics", job.spec.reveal.metrics),
            ("outputs", [output.kind]),
            ("recipients", [*job.spec.reveal.to, *(output.sealed_to or ()), *seen_by]),
        ):
            allowed = getattr(self, rule)
            for name in names:
                if allowed is not None and name not in allowed:
                    yield rule, repr(name), ", ".join(allowed) or "nothing"
        for name, key in job.keys.items():
            if self.recipient_keys.get(name, key) != key:
                yield "recipient_keys", f"the key of {name!r}", "the key that the policy pins"

    def _counted(
        self, job: BoundJob, openings: Iterable[Opening]
    ) -> Iterator[tuple[str, str, str]]:
        for table in job.tables:
            if table.info.rows < self.minimum_rows:
                value = f"{table.info.rows} rows in {table.name!r}"
                yield "minimum_rows", value, f"{self.minimum_rows} or more"
        held_out = job.split.holdout
        if job.spec.reveal.metrics and held_out < self.minimum_held_out_rows:
            value = f"{held_out} held-out rows"
            yield "minimum_held_out_rows", value, f"{self.minimum_held_out_rows} or more"
        training, batch = job.split.training, job.spec.training.batch_size
        smallest = training % batch or batch
        if smallest < self.minimum_batch_rows:
            value = f"a batch of {smallest} ({training} rows in batches of {batch})"
            yield "minimum_batch_rows", value, f"{self.minimum_batch_rows} or more in every batch"
        yield from self._private(job)
        bits = sum(opening.bits for opening in openings)
        if self.maximum_opened_bits is not None and bits > self.maximum_opened_bits:
            value = f"{bits} opened bits"
            yield "maximum_opened_bits", value, f"{self.maximum_opened_bits} or fewer"

    def _private(self, job: BoundJob) -> Iterator[tuple[str, str, str]]:
        for rule, most in (
            ("maximum_epsilon", self.maximum_epsilon),
            ("maximum_delta", self.maximum_delta),
        ):
            name = rule.removeprefix("maximum_")
            value: float = getattr(job.spec.privacy, name, inf)
            if most is not None and value > most:
                wrong = "a job without privacy" if value == inf else f"{name} {value:g}"
                yield rule, wrong, f"privacy with {name} {most:g} or less"


def load(path: str | PathLike[str]) -> Policy:
    """Read a policy file. Raises SpecError naming file, line and field of every mistake."""
    return _checked(document.read(path))


def parse(text: str, name: str = "the policy") -> Policy:
    """Read a policy from YAML text; `name` is what errors call it. Raises SpecError."""
    return _checked(document.parse(text, name))


def _checked(source: document.Document) -> Policy:
    if source.value is None:  # an empty file, or only comments: the defaults
        return Policy()
    policy, complaints = validated(Policy, source)
    if policy is None:
        raise refusal(source, complaints)
    return policy
