"""A program: blocks called in order, in training rounds, on named registers.

A `Program` is data. Dealer, parties and planner each build it from the same job, compare its
`digest`, and interpret it. Registers hold secrets between calls; a call binds a block's inputs
to (rows of) registers or of the data sets, its arguments to public arrays, and stores its outputs
into (rows of) registers. Rows are public.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masque.mpc.graph import Block, Kind
from masque.mpc.types import Array, Shape

Rows = slice | NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Register:
    """Storage of a secret between calls: SHARE, or MASKED where products will use it again."""

    shape: Shape
    kind: Kind


@dataclass(frozen=True, slots=True)
class Input:
    """Rows of a data set that the program reads; every party has a share of each."""

    dataset: str
    rows: int
    columns: int
    scale: int


@dataclass(frozen=True, slots=True)
class Output:
    """A register whose shares are sealed to the recipients `to` when the program ends."""

    register: str
    shape: Shape
    scale: int
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """A declared opening of an unmasked value: who learns it, and how many bits at most."""

    name: str
    bits: int
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """What the noise in the outputs is for: (epsilon, delta)-differential privacy of every row.

    `sensitivity`: how far one row moves the outputs together, in Euclidean norm; `sigma`: of each
    party's own noise. Outputs have `values` numbers, and go to `to`; nobody: they stay shares.
    """

    epsilon: float
    delta: float
    sensitivity: float
    sigma: float
    values: int
    to: tuple[str, ...]

    @property
    def promise(self) -> dict[str, float]:
        """What receipts say of it."""
        names = ("epsilon", "delta", "sensitivity", "sigma")
        return {name: float(getattr(self, name)) for name in names}

    def __str__(self) -> str:
        return (
            f"release of the model with epsilon {self.epsilon:g}, delta {self.delta:g}, sensitivity"
            f" {self.sensitivity:.6g}, noise {self.sigma:.6g} from each party"
        )


@dataclass(frozen=True, slots=True)
class Ref:
    """(Rows of) a register or of an input."""

    name: str
    rows: Rows = None


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a block."""

    block: Block
    inputs: Mapping[str, Ref] = field(default_factory=dict)
    arguments: Mapping[str, Array] = field(default_factory=dict)
    outputs: Mapping[str, Ref] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingRound:
    """What the coordinator asks for at once: `count` calls, made anew by each `calls()`.

    `skippable` rounds are left out once an early-stop bit has been opened as 1. What a round that
    `prepares` computes follows from the data sets alone. A round without a name is over already
    (`masque.mpc.resume`).
    """

    name: str
    calls: Callable[[], Iterable[Call]]
    count: int
    skippable: bool = False
    prepares: bool = False


@dataclass(frozen=True)
class Program:
    """See the module docstring. `digest` covers everything that is computed, in order."""

    name: str
    parties: int
    registers: Mapping[str, Register]
    inputs: Mapping[str, Input]
    rounds: Sequence[TrainingRound]
    outputs: Mapping[str, Output]
    openings: tuple[Opening, ...] = ()
    release: Release | None = None

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the program: registers, inputs, outputs, openings, and every call."""
        text = hashlib.sha256(b"masque program 2")
        for part in (self.registers, self.inputs, self.outputs):
            text.update(repr(sorted(part.items(), key=lambda item: item[0])).encode())
        text.update(repr((self.name, self.parties, self.openings, self.release)).encode())
        for training_round in self.rounds:
            head = (training_round.name, training_round.count, training_round.skippable)
            text.update(repr(head).encode())
            for call in training_round.calls():
                _digest_call(text, call)
        return text.digest()

    def first_position(self, k: int) -> int:
        """The position of the first call of training round `k`, counted over the whole job."""
        return sum(training_round.count for training_round in self.rounds[:k])

    def positions(self) -> Iterator[tuple[int, int, Call]]:
        """(position, training round, call) over the whole job."""
        position = 0
        for k, training_round in enumerate(self.rounds):
            for call in training_round.calls():
                yield position, k, call
                position += 1


def _digest_call(text: Any, call: Call) -> None:
    """One update a call, and rows once: a job of a million rows has 200,000 calls."""
    parts: list[bytes] = [call.block.digest]
    seen: dict[int, str] = {}
    for refs in (call.inputs, call.outputs):
        for name, ref in sorted(refs.items()):
            rows = ref.rows
            if not isinstance(rows, np.ndarray):
                parts.append(f"{name!r} {ref.name!r} {rows!r};".encode())
            elif id(rows) in seen:
                parts.append(f"{name!r} {ref.name!r} rows of {seen[id(rows)]};".encode())
            else:
                seen[id(rows)] = repr(name)
                parts.append(f"{name!r} {ref.name!r} {rows.size} rows;".encode())
                parts.append(rows.astype("<i8", copy=False).tobytes())
    for name, value in sorted(call.arguments.items()):
        parts.append(f"{name!r} {value.dtype.str} {value.shape};".encode())
        parts.append(value.tobytes())
    text.update(b"".join(parts))
