"""What a computing party allows: its operator's `policy.yaml`, checked before a job is prepared.

A party without a policy file uses the defaults below: any coordinator, client, model, metric and
recipient of its own authority, but no model opened to everybody, no data set too small to hide a
row in, and no step of training on a single row. `docs/policy.md` is the reference for users.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Annotated

from pydantic import Field

from masque.errors import Refused
from masque.jobs import document
from masque.jobs.bound import Key
from masque.jobs.complaints import refusal, validated
from masque.jobs.limits import Allowed, Breach, Case, Limits, Outcomes, unlisted
from masque.jobs.section import Name


class Policy(Limits):
    """A party's rules; those of every job beside those of `Limits`.

    `recipient_keys` pins public keys: a job that names one of these recipients with another key is
    refused, whatever the coordinator says. `minimum_batch_rows` counts the smallest step of an
    epoch, which is the last: with an l2 that forgets the steps before, weights are the gradient of
    that batch.
    """

    coordinators: Allowed = None
    outputs: Outcomes = ("sealed", "kept")
    recipient_keys: dict[Name, Key] = Field(default_factory=dict)
    minimum_rows: Annotated[int, Field(ge=1)] = 20
    minimum_held_out_rows: Annotated[int, Field(ge=1)] = 4
    minimum_batch_rows: Annotated[int, Field(ge=1)] = 2

    def check(self, case: Case, party: str) -> None:
        """Does this policy of `party` allow the job and what its program opens?

        Raises Refused naming the party, the rule and the value that breaks it.
        """
        for rule, value, allowed in self.breaches(case):
            raise Refused(
                f"{party} refuses job {case.job.job_id}: its policy's {rule} does not allow "
                f"{value}.",
                hint=f"Allowed: {allowed}. Change the job, or ask the operator of {party}.",
                party=party,
                rule=rule,
                value=value,
                job=case.job.job_id,
            )

    def breaches(self, case: Case) -> Iterator[Breach]:
        """Everything of the job that is not allowed."""
        job = case.job
        yield from unlisted("coordinators", self.coordinators, [job.coordinator])
        yield from self.named(case)
        for name, key in job.keys.items():
            if self.recipient_keys.get(name, key) != key:
                value = f"the key of {name!r}"
                yield Breach("recipient_keys", value, "the key that the policy pins")
        yield from self._rows(case)
        yield from self.counted(case)
        yield from self.totals(case, [table.name for table in job.shared])

    def _rows(self, case: Case) -> Iterator[Breach]:
        job = case.job
        for table in job.tables:
            if table.info.rows < self.minimum_rows:
                value = f"{table.info.rows} rows in {table.name!r}"
                yield Breach("minimum_rows", value, f"{self.minimum_rows} or more")
        held_out = job.split.holdout
        if job.spec.reveal.metrics and held_out < self.minimum_held_out_rows:
            value = f"{held_out} held-out rows"
            allowed = f"{self.minimum_held_out_rows} or more"
            yield Breach("minimum_held_out_rows", value, allowed)
        training, batch = job.split.training, job.spec.training.batch_size
        smallest = training % batch or batch
        if smallest < self.minimum_batch_rows:
            value = f"a batch of {smallest} ({training} rows in batches of {batch})"
            allowed = f"{self.minimum_batch_rows} or more in every batch"
            yield Breach("minimum_batch_rows", value, allowed)


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
