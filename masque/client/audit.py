"""How well can somebody who has a model and a row tell whether the model was trained on the row?

Members (rows that were trained on) and non-members (rows like them that were not) are told apart by
the model's loss: rows that it fits better than it should are taken for members.

    loss            one threshold for all rows (Yeom, Giacomelli, Fredrikson, Jha, CSF 2018)
    loss by label   the share of non-members of the same label that have a smaller loss, each row
                    ranked among a half of them that it is not part of: some labels are harder

What is found is a floor: who trains models of his own to compare with (Carlini et al., S&P 2022),
or knows more, may do better.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masque.client.predictor import Floats, Predictor
from masque.errors import InputError

LEAST_ROWS = 20
RESAMPLES = 1000
LEVEL = 0.95
FALSE_POSITIVES = 0.01
CHANCE = 1.358
"""Smirnov's one-sided 97.5 % point: sqrt(1/m + 1/n) times it is what chance reaches with m and n
rows in one of 40 attacks, hence in one of 20 audits, which have two.
"""

Labels = NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap interval of 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Attack:
    """`advantage`: the largest true minus false positive rate; `tpr_at_1_percent_fpr`: members that
    are found where no more than 1 % of non-members are taken for one.
    """

    name: str
    advantage: Estimate
    auc: Estimate
    tpr_at_1_percent_fpr: Estimate


@dataclass(frozen=True)
class Audit:
    """`chance`: the advantage that 19 of 20 audits stay below where nothing leaks. `in_both`: rows
    that are in both files, which no attack can tell apart.
    """

    members: int
    nonmembers: int
    in_both: int
    member_loss: float
    nonmember_loss: float
    chance: float
    attacks: tuple[Attack, ...]

    @property
    def strongest(self) -> Attack:
        """The attack with the largest advantage."""
        return max(self.attacks, key=lambda attack: attack.advantage.value)

    @property
    def leaks(self) -> bool:
        """Is the advantage more than chance explains?"""
        return self.strongest.advantage.value > self.chance

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"leaks": self.leaks, "strongest": self.strongest.name}


def audit(model: Predictor, members: Path, nonmembers: Path, schema: Path, seed: int = 0) -> Audit:
    """Attack a model with rows of two files. Raises InputError for too few rows, or no label."""
    rows = {path: _read(model, path, schema) for path in (members, nonmembers)}
    inside, outside = (losses(model, *rows[path]) for path in (members, nonmembers))
    seen = {row.tobytes() for row in rows[members][0]}
    both = sum(row.tobytes() in seen for row in rows[nonmembers][0])
    scores = {"loss": (inside, outside)}
    if model.target != "number":
        labels = rows[members][1], rows[nonmembers][1]
        scores["loss by label"] = ranked(inside, outside, *labels, seed)
    return Audit(
        len(inside),
        len(outside),
        both,
        float(inside.mean()),
        float(outside.mean()),
        CHANCE * sqrt(1 / len(inside) + 1 / len(outside)),
        tuple(_attack(name, *found, seed) for name, found in scores.items()),
    )


def _read(model: Predictor, path: Path, schema: Path) -> tuple[Floats, Labels]:
    rows, labels = model.read(path, schema)
    if labels is None:
        raise InputError(
            f"{path} has no label {model.label!r}: without it there is no loss.",
            hint="Give a file and a schema with the label.",
            file=str(path),
        )
    if len(rows) < LEAST_ROWS:
        raise InputError(
            f"{path} has {len(rows)} rows, which say nothing.",
            hint=f"Give {LEAST_ROWS} rows or more; with some hundred, figures become useful.",
            file=str(path),
        )
    return rows, labels


def losses(model: Predictor, rows: Floats, labels: Labels) -> Floats:
    """The loss of every row: squared error of a number, log-loss of a class."""
    scores = model.decision_function(rows)
    if model.target == "number":
        return np.asarray((scores - labels) ** 2)
    if model.target == "binary":
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    chosen = np.argmax(np.asarray(labels)[:, None] == model.class_values[None], axis=1)
    return np.asarray(np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(chosen)), chosen])


def ranked(
    inside: Floats, outside: Floats, of_inside: Labels, of_outside: Labels, seed: int
) -> tuple[Floats, Floats]:
    """Losses as quantiles among non-members of the same label, never among themselves.

    All rows are dealt to two halves at random, and ranked among the non-members of the other.
    """
    random = np.random.default_rng([seed, 1])
    halves = [random.permutation(len(part)) % 2 for part in (inside, outside)]
    found = [np.empty(len(part)) for part in (inside, outside)]
    for at, (values, labels) in enumerate(((inside, of_inside), (outside, of_outside))):
        for half in (0, 1):
            for label in np.unique(labels):
                mine = (halves[at] == half) & (labels == label)
                others = np.sort(outside[(halves[1] != half) & (of_outside == label)])
                below = np.searchsorted(others, values[mine]) if others.size else 0.5
                found[at][mine] = below / max(1, others.size)
    return found[0], found[1]


# -- figures ---------------------------------------------------------------------------------------


def advantage(inside: Floats, outside: Floats) -> float:
    """The largest P(member at or below t) - P(non-member at or below t), over all t."""
    ends = np.unique(inside)
    return max(0.0, float((_below(inside, ends) - _below(outside, ends)).max()))


def auc(inside: Floats, outside: Floats) -> float:
    """P(a member's loss is below a non-member's), ties half."""
    ordered = np.sort(inside)
    less, least = (np.searchsorted(ordered, outside, side) for side in ("left", "right"))
    return float((less + least).mean() / 2 / len(inside))


def found_at(inside: Floats, outside: Floats) -> float:
    """Members below a threshold that at most 1 % of non-members are below."""
    allowed = int(FALSE_POSITIVES * len(outside))
    return float((inside < np.sort(outside)[allowed]).mean())


FIGURES = (advantage, auc, found_at)


def _below(values: Floats, ends: Floats) -> Floats:
    return np.asarray(np.searchsorted(np.sort(values), ends, side="right") / len(values))


def _attack(name: str, inside: Floats, outside: Floats, seed: int) -> Attack:
    random = np.random.default_rng([seed, 2])
    again = np.empty((RESAMPLES, len(FIGURES)))
    for row in again:
        drawn = [part[random.integers(len(part), size=len(part))] for part in (inside, outside)]
        row[:] = [figure(*drawn) for figure in FIGURES]
    ends = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    found = [
        Estimate(figure(inside, outside), float(low), float(high))
        for figure, low, high in zip(FIGURES, *ends, strict=True)
    ]
    return Attack(name, *found)
