"""What an owner allows to be done with a data set: conditions, attached to it when it is shared.

The owner signs a `Statement`: the conditions, and of which upload, at which parties. It travels
with the shares to every party, is kept beside them, and is part of every job that names the data
set; `masque.wire.conditions` signs it and believes it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from os import PathLike
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from masque.errors import Refused, SpecError
from masque.jobs import document
from masque.jobs.complaints import KEY_PATTERN, refusal, validated
from masque.jobs.fit import Upload
from masque.jobs.limits import Breach, Case, Limits
from masque.jobs.section import Name, Names, Section


def _day(text: str) -> str:
    try:
        if dt.date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise PydanticCustomError("day", "must be a day")


def _line(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("line", "must be one line")
    return text


Day = Annotated[str, AfterValidator(_day)]
Line = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_line)]


class Conditions(Limits):
    """An owner's rules for one data set, of a whole job that uses it.

    `expires` is the last day (UTC) on which a job may begin. `purpose` is for people: it is shown
    and not judged.
    """

    purpose: Line | None = None
    expires: Day | None = Field(None, examples=["2027-12-31"])

    @property
    def given(self) -> dict[str, Any]:
        """The rules that were given, as plain values."""
        return self.model_dump(mode="json", exclude_none=True)

    def in_words(self) -> str:
        """On one line, rule by rule."""
        return "; ".join(f"{rule}: {_word(value)}" for rule, value in self.given.items())

    def expired(self, now: dt.datetime) -> bool:
        """Whether the last day is over."""
        return self.expires is not None and now.astimezone(dt.UTC).date().isoformat() > self.expires

    def check(self, case: Case, dataset: str, owner: str, now: dt.datetime, party: str) -> None:
        """Do the conditions that `owner` has put on the data set allow the job?

        Raises Refused naming the party, the data set, its owner, the rule and what breaks it.
        """
        for rule, value, allowed in self.breaches(case, dataset, now):
            raise Refused(
                f"{party} refuses job {case.job.job_id}: the conditions of {owner!r} for the data "
                f"set {dataset!r} do not allow {value} ({rule}).",
                hint=f"Allowed: {allowed}. Change the job, or ask {owner!r}.",
                party=party,
                rule=rule,
                value=value,
                dataset=dataset,
                owner=owner,
                job=case.job.job_id,
            )

    def breaches(self, case: Case, dataset: str, now: dt.datetime) -> Iterator[Breach]:
        """Everything of the job that is not allowed."""
        if self.expired(now):
            yield Breach("expires", "any job any more", f"until {self.expires}")
        yield from self.named(case)
        yield from self.counted(case)
        yield from self.totals(case, [dataset])


class Statement(Section):
    """What an owner signs. `table` is the digest of the public description, `time` when.

    `parties`: those that the data set was split for, in the order of their shares.
    """

    format: Literal["masque conditions 1"] = "masque conditions 1"
    owner: Annotated[str, Field(max_length=300)]
    dataset: Name
    upload: Upload
    table: Annotated[str, Field(pattern=KEY_PATTERN)]
    parties: Names
    time: float
    conditions: Conditions


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_word(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def load(path: str | PathLike[str]) -> Conditions:
    """Read `conditions.yaml`. Raises SpecError naming file, line and field."""
    return _checked(document.read(path))


def parse(text: str, name: str = "the conditions") -> Conditions:
    """Conditions from YAML text; `name` is what errors call it. Raises SpecError."""
    return _checked(document.parse(text, name))


def _checked(source: document.Document) -> Conditions:
    found, complaints = validated(Conditions, source)
    if found is None or complaints:
        raise refusal(source, complaints)
    if not found.given:
        raise SpecError(
            f"{source.name} has no condition.",
            hint="Write one, for example `expires: 2027-12-31`, or share without --conditions.",
            file=source.name,
        )
    return found
