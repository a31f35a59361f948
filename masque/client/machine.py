"""How long things take on a machine: as `masque calibrate` measured, or by built-in figures.

The time of a training round is a sum over what it takes: so many seconds each for the round
itself, a call, a message, a byte sent, a byte dealt, a byte drawn from a seed, a multiplication, a
node of a block's graph (which is Python's part), and an element that a node makes. They are those
of all services together, wherever they ran when it was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from masque.errors import InputError
from masque.jobs.section import Section, listed

if TYPE_CHECKING:
    from masque.mpc.cost import RoundCost

FILE = "machine.json"
"""Beside the profile."""

Positive = Annotated[float, Field(ge=0, le=1e6)]

BUILT_IN: Mapping[str, float] = {
    "training_round": 3.2e-3,
    "call": 1.6e-4,
    "message": 3.1e-4,
    "sent_byte": 2e-9,
    "dealt_byte": 2.7e-9,
    "drawn_byte": 7e-10,
    "multiplication": 1e-10,
    "node": 6.6e-6,
    "element": 2.9e-9,
}
"""Seconds each, with a dealer and two parties on two cores."""

UNITS = tuple(BUILT_IN)


def amounts(part: RoundCost, parties: int) -> dict[str, float]:
    """How many there are in a training round of what takes time, by unit."""
    return {
        "training_round": 1,
        "call": part.calls,
        "message": part.rounds,
        "sent_byte": part.sent * (parties - 1),
        "dealt_byte": sum(part.corrections),
        "drawn_byte": part.drawn,
        "multiplication": part.multiplications,
        "node": part.nodes,
        "element": part.elements,
    }


class Sample(Section):
    """A job that was measured: seconds of one of its training rounds, and what the fit says."""

    job: str
    measured: Positive
    fitted: Positive

    @property
    def error(self) -> float:
        """Of the fit, relative to the measurement."""
        return self.fitted / self.measured - 1 if self.measured else 0.0


class Calibration(Section):
    """What a file holds: seconds of each unit, and where they come from."""

    format: Literal["masque machine 1"] = "masque machine 1"
    date: str
    processor: str
    cores: Annotated[int, Field(ge=1)]
    parties: Annotated[int, Field(ge=2, le=64)]
    seconds: dict[str, Positive]
    samples: Annotated[tuple[Sample, ...], BeforeValidator(listed), Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> Calibration:
        if self.seconds.keys() != BUILT_IN.keys():
            raise ValueError("it does not have all units")
        return self

    @property
    def worst_error(self) -> float:
        """The largest relative error of the fit."""
        return max(abs(sample.error) for sample in self.samples)


@dataclass(frozen=True)
class Machine:
    """Seconds by unit; `latency` (seconds of a round trip) and `bandwidth` (bytes a second of a
    party's link, and of the dealer's) are those of a network that comes on top.
    """

    seconds_each: Mapping[str, float] = field(default_factory=lambda: BUILT_IN)
    latency: float = 0.0
    bandwidth: float = inf
    calibration: Calibration | None = None

    def seconds(self, part: RoundCost, parties: int) -> float:
        """The estimated time of a training round.

        Parties send to one another at the same time, so a message takes half a round trip.
        """
        count = amounts(part, parties)
        working = sum(self.seconds_each[unit] * count[unit] for unit in UNITS)
        traffic = count["sent_byte"] + count["dealt_byte"]
        return working + part.rounds * self.latency / 2 + traffic / self.bandwidth


def write(path: Path, calibration: Calibration) -> None:
    """Write the file. Raises InputError."""
    text = json.dumps(calibration.model_dump(mode="json"), indent=2) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}.",
            hint="Mend its permissions, or copy the profile to a directory of yours.",
            file=str(path),
        ) from None


def read(path: Path) -> Machine:
    """The machine that was calibrated, or built-in figures if there is no such file.

    Raises InputError for a file that cannot be used.
    """
    try:
        calibration = Calibration.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Machine()
    except (OSError, ValueError, RecursionError, ValidationError):
        raise InputError(
            f"{path} is not a calibration that this version of Masque can use.",
            hint="Write it anew with `masque calibrate`, or remove it.",
            file=str(path),
        ) from None
    return Machine(calibration.seconds, calibration=calibration)
