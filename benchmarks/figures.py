"""What a benchmark found: figures with units, targets, and the ratios of other systems to ours."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One figure; `low` and `high` are its extremes where `value` is the median of `count`.

    `rivals`: what others take for the same work, in the same unit.
    """

    what: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    count: int = 1
    at_most: float | None = None
    at_least: float | None = None
    rivals: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def ratios(self) -> dict[str, float]:
        """How many times more than ours the others take."""
        if not self.value:
            return {}
        return {name: round(theirs / self.value, 2) for name, theirs in self.rivals.items()}

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON; what is not there is left out."""
        found = asdict(self) | {"met": self.met, "times_ours": self.ratios}
        found["value"] = round(self.value, 4)
        return {key: value for key, value in found.items() if value not in (None, {})}


def median_of(
    what: str,
    values: Sequence[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    rivals: Mapping[str, float] | None = None,
) -> Figure:
    """The median of measured values, with their extremes."""
    return Figure(
        what,
        statistics.median(values),
        unit,
        low=round(min(values), 4),
        high=round(max(values), 4),
        count=len(values),
        at_most=at_most,
        at_least=at_least,
        rivals=rivals or {},
    )


QUIET = 0.15
"""Cores that other programs may use while a sample is taken that counts as undisturbed."""

ENOUGH = 3
"""Undisturbed samples that a target can be held against."""


def judged(
    what: str,
    samples: Sequence[tuple[float, float]],
    unit: str,
    *,
    at_most: float,
    rivals: Mapping[str, float],
) -> list[Figure]:
    """Samples (value, cores that others used meanwhile): those taken undisturbed, then all.

    The target is about the former; where there are too few of them, about all.
    """
    every = [value for value, _ in samples]
    quiet = [value for value, busy in samples if busy <= QUIET]
    if len(quiet) < ENOUGH:
        return [median_of(what, every, unit, at_most=at_most, rivals=rivals)]
    alone = f"{what}, with the machine to itself"
    return [
        median_of(alone, quiet, unit, at_most=at_most, rivals=rivals),
        median_of(f"{what}, all samples", every, unit),
    ]


class Skipped(Exception):
    """A benchmark that this machine cannot run; the text says what is missing."""


@dataclass(frozen=True)
class Outcome:
    """A finished benchmark: its figures, and tables of more for those who want them all."""

    title: str
    figures: Sequence[Figure]
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Outcome:
        """What `as_json` gave."""
        fields = Figure.__dataclass_fields__
        kept = [{key: item[key] for key in fields if key in item} for item in found["figures"]]
        return cls(found["title"], [Figure(**item) for item in kept], found["details"])

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "title": self.title,
            "figures": [figure.as_json() for figure in self.figures],
            "details": dict(self.details),
        }


def number(value: float) -> str:
    """A figure for people: three digits that matter, thousands set apart."""
    if value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def lines(outcome: Outcome) -> list[str]:
    """A table in Markdown."""
    text = [
        f"## {outcome.title}",
        "",
        "| what | measured | from - to | target | others take |",
        "|---|---|---|---|---|",
    ]
    return text + [_row(figure) for figure in outcome.figures]


def _row(figure: Figure) -> str:
    measured = f"{number(figure.value)} {figure.unit}"
    spread = ""
    if figure.low is not None and figure.high is not None:
        spread = f"{number(figure.low)} - {number(figure.high)} ({figure.count})"
    others = ", ".join(f"{name} {number(ratio)}x" for name, ratio in figure.ratios.items())
    return f"| {figure.what} | {measured} | {spread} | {_target(figure)} | {others} |"


def _target(figure: Figure) -> str:
    if figure.met is None:
        return ""
    sign = "at most" if figure.at_most is not None else "at least"
    bound = figure.at_most if figure.at_most is not None else figure.at_least
    assert bound is not None
    return f"{sign} {number(bound)}: {'met' if figure.met else '**missed**'}"
