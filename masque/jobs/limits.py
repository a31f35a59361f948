"""What a job may do: rules that a party's policy and an owner's conditions have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field

from masque.jobs.bound import BoundJob
from masque.jobs.disclosed import NOTHING, Disclosed, Opening
from masque.jobs.models import ModelKind
from masque.jobs.section import Name, Names, Section, listed
from masque.jobs.spec import Metric, Outcome

PARTIES = "parties"
"""Whom an opening names that all parties see, as they may see each of a job they take part in."""

Allowed = Annotated[tuple[Name, ...] | None, BeforeValidator(listed)]
Models = Annotated[tuple[ModelKind, ...] | None, BeforeValidator(listed)]
Metrics = Annotated[tuple[Metric, ...] | None, BeforeValidator(listed)]
Outcomes = Annotated[tuple[Outcome, ...] | None, BeforeValidator(listed)]
Bits = Annotated[int, Field(ge=0)] | None
Share = Annotated[float, Field(gt=0)] | None


class Breach(NamedTuple):
    """A rule, what of the job it does not allow, and what it would allow."""

    rule: str
    value: str
    allowed: str


@dataclass(frozen=True)
class Case:
    """A job to be judged, and what its program opens.

    It discloses `gives` of each of its data sets at most; other attempts have disclosed, or may
    still disclose, what `given` says by data set.
    """

    job: BoundJob
    openings: Sequence[Opening]
    gives: Disclosed = NOTHING
    given: Mapping[str, Disclosed] = field(default_factory=dict)


class Approval(Section):
    """Jobs that a person must say yes to, and who may: one of `by` is enough.

    With any of the lists, only jobs with something that one of them names; without, all jobs.
    """

    by: Annotated[Names, Field(min_length=1)] = Field(examples=["[dr-weber]"])
    clients: Allowed = None
    models: Models = None
    outputs: Outcomes = None

    def needed(self, job: BoundJob) -> bool:
        """Must somebody say yes to this job?"""
        facts: tuple[tuple[Sequence[str] | None, str], ...] = (
            (self.clients, job.client),
            (self.models, job.spec.model.kind),
            (self.outputs, job.spec.model_output.kind),
        )
        lists = [(names, fact) for names, fact in facts if names is not None]
        return not lists or any(fact in names for names, fact in lists)


class Limits(Section):
    """Rules about a job. A list that is not given allows everybody; an empty one nobody.

    `maximum_opened_bits` bounds the sum over all openings that the program declares. Where
    `maximum_epsilon` or `maximum_delta` is given, every job must have `privacy`. The three
    `maximum_dataset_...` bound what all jobs together disclose of a data set.
    """

    clients: Allowed = None
    models: Models = None
    metrics: Metrics = None
    outputs: Outcomes = None
    recipients: Allowed = None
    maximum_opened_bits: Bits = None
    maximum_epsilon: Share = None
    maximum_delta: Share = None
    maximum_dataset_bits: Bits = None
    maximum_dataset_epsilon: Share = None
    maximum_dataset_delta: Share = None
    approval: Approval | None = None

    def named(self, case: Case) -> Iterator[Breach]:
        """Breaches of the rules that list what is allowed."""
        spec, output = case.job.spec, case.job.spec.model_output
        parties = {PARTIES, *case.job.parties}
        seen_by = [n for opening in case.openings for n in opening.to if n not in parties]
        rules: tuple[tuple[str, Sequence[str] | None, Sequence[str]], ...] = (
            ("clients", self.clients, [case.job.client]),
            ("models", self.models, [spec.model.kind]),
            ("metrics", self.metrics, spec.reveal.metrics),
            ("outputs", self.outputs, [output.kind]),
            (
                "recipients",
                self.recipients,
                [*spec.reveal.to, *(output.sealed_to or ()), *seen_by],
            ),
        )
        for rule, allowed, names in rules:
            yield from unlisted(rule, allowed, names)

    def counted(self, case: Case) -> Iterator[Breach]:
        """Breaches of the rules about one job that count."""
        for rule, most in (
            ("maximum_epsilon", self.maximum_epsilon),
            ("maximum_delta", self.maximum_delta),
        ):
            name = rule.removeprefix("maximum_")
            value: float = getattr(case.job.spec.privacy, name, inf)
            if most is not None and value > most:
                wrong = "a job without privacy" if value == inf else f"{name} {value:g}"
                yield Breach(rule, wrong, f"privacy with {name} {most:g} or less")
        bits = sum(opening.bits for opening in case.openings)
        if self.maximum_opened_bits is not None and bits > self.maximum_opened_bits:
            value_of = f"{bits} opened bits"
            yield Breach("maximum_opened_bits", value_of, f"{self.maximum_opened_bits} or fewer")

    def totals(self, case: Case, datasets: Sequence[str]) -> Iterator[Breach]:
        """Breaches of the rules about everything that is ever disclosed of these data sets."""
        for name in datasets:
            given = case.given.get(name, NOTHING)
            for rule, what, most, before, now in (
                (
                    "maximum_dataset_bits",
                    "bits",
                    self.maximum_dataset_bits,
                    Decimal(given.bits),
                    Decimal(case.gives.bits),
                ),
                (
                    "maximum_dataset_epsilon",
                    "epsilon",
                    self.maximum_dataset_epsilon,
                    given.epsilon,
                    case.gives.epsilon,
                ),
                (
                    "maximum_dataset_delta",
                    "delta",
                    self.maximum_dataset_delta,
                    given.delta,
                    case.gives.delta,
                ),
            ):
                if most is not None and before + now > Decimal(repr(most)):
                    yield _too_much(rule, what, name, Decimal(repr(most)), before, now)


def unlisted(rule: str, allowed: Sequence[str] | None, names: Sequence[str]) -> Iterator[Breach]:
    """A breach for each of `names` that `allowed` does not list."""
    for name in names if allowed is not None else ():
        if name not in (allowed or ()):
            yield Breach(rule, repr(name), ", ".join(allowed or ()) or "nothing")


def _too_much(
    rule: str, what: str, dataset: str, most: Decimal, before: Decimal, now: Decimal
) -> Breach:
    if not now.is_finite():
        value = f"a job without privacy on {dataset!r}"
    elif not before.is_finite():
        value = f"{what} {_plain(now)} of {dataset!r}, of which a job has disclosed without privacy"
    else:
        value = f"{what} {_plain(now)} of {dataset!r} after {_plain(before)} of earlier jobs"
    left = max(Decimal(0), most - before) if before.is_finite() else Decimal(0)
    return Breach(rule, value, f"{_plain(most)} over all jobs, of which {_plain(left)} is left")


def _plain(number: Decimal) -> str:
    return f"{float(number):.12g}"
