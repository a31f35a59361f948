"""What is sent does not depend on data: whole compiled jobs, over data sets that differ wholly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from masque.data.table import LabelInfo
from masque.jobs.bound import BoundJob
from masque.jobs.compile import compile_job
from masque.jobs.fit import SharedTable
from masque.jobs.spec import from_values
from masque.mpc import inprocess
from masque.mpc.graph import Block, Node
from masque.mpc.machine import Values
from masque.mpc.party import Party
from masque.mpc.program import Program
from masque.mpc.types import Ring
from tests.jobs import examples, test_networks
from tests.mpc.harness import seeds, share_inputs, sources

ROWS = 24
CLASSES = LabelInfo(name="malignant", kind="classes", classes=("a", "b", "c"))
Sent = tuple[int, int, int, tuple[int, ...], int]
"""Of one message: party, round of the program, its number, the nodes opened in it, its bytes."""


def tables(label: LabelInfo) -> list[SharedTable]:
    names = ("hospital-a", "hospital-b")
    return [examples.table(name, ROWS, "age", "size", label=label) for name in names]


def job(kind: str) -> BoundJob:
    """A small one of each kind, with everything that may open anything."""
    training: dict[str, Any] = {"training__epochs": 2, "training__batch_size": 8}
    if kind == "network":
        spec = from_values(test_networks.values(**training))
        return examples.bound(spec, tables(examples.LABEL))
    metrics = ["accuracy", "log_loss", "confusion"]
    changes = {"model__kind": kind, "reveal__metrics": metrics, "data__holdout": 0.25}
    label = CLASSES if kind == "softmax_regression" else examples.LABEL
    return examples.bound(from_values(examples.values(**training, **changes)), tables(label))


def data_of(program: Program, bound: BoundJob, kind: str) -> dict[str, Ring]:
    """Every input: all zeros, or everything at an end of its range."""
    infos = {table.name: table.info for table in bound.shared}
    found = {}
    for name, of in program.inputs.items():
        one = 1 << of.scale
        values = np.zeros((of.rows, of.columns), np.int64)
        if kind == "extremes":
            random, features = np.random.default_rng(4), len(infos[name].features)
            values[:, :features] = random.choice([-one, one], (of.rows, features))
            classes = max(2, of.columns - features)
            chosen = random.integers(0, classes, of.rows)
            values[:, features:] = (
                one * np.eye(classes, dtype=np.int64)[chosen, -of.columns + features :]
            )
        found[name] = values.view(np.uint64)
    return found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """Every message of every party."""
    found: list[Sent] = []
    opening: dict[int, tuple[int, tuple[int, ...]]] = {}
    opens, swaps = Party.open, inprocess.Seat.swap

    def open(self: Party, nodes: Sequence[Node], values: Values, block: Block) -> None:
        opening[self.index] = self.round, tuple(node.id for node in nodes)
        opens(self, nodes, values, block)

    def swap(self: inprocess.Seat, payload: bytes) -> Any:
        round, nodes = opening.pop(self.index)
        number = self.meeting.rounds[self.index]
        found.append((self.index, round, number, nodes, len(payload)))
        return swaps(self, payload)

    monkeypatch.setattr(Party, "open", open)
    monkeypatch.setattr(inprocess.Seat, "swap", swap)
    return found


def transcripts(bound: BoundJob, sent: list[Sent]) -> list[Any]:
    """What is sent over zeros, and over extremes."""
    program, found = compile_job(bound), list[Any]()
    for data in ("zeros", "extremes"):
        sent.clear()
        seed = len(found)
        shares = share_inputs(data_of(program, bound, data), program.parties, seed)
        held, drawn = sources(shares, program.parties), seeds(program.parties, seed)
        run = inprocess.run(program, held, drawn)
        assert len(sent) == sum(run.meeting.rounds) > 50
        found.append((sorted(sent), [stock.received for stock in run.stocks]))
    return found


@pytest.mark.parametrize("kind", ["logistic_regression", "softmax_regression", "network"])
def test_rounds_sizes_and_openings_do_not_depend_on_data(kind: str, sent: list[Sent]) -> None:
    zeros, extremes = transcripts(job(kind), sent)
    assert zeros == extremes


def test_an_early_stop_is_the_exception_and_would_be_seen(sent: list[Sent]) -> None:
    """Its bit is opened and declared: see SECURITY.md."""
    stop = {"metric": "log_loss", "min_delta": 0.01, "patience": 1}
    text = job("logistic_regression").spec.model_dump(mode="json", exclude_none=True)
    text["training"] |= {"epochs": 6, "early_stop": stop | {"validation": 0.25}}
    bound = examples.bound(from_values(text), tables(examples.LABEL))
    zeros, extremes = transcripts(bound, sent)
    assert zeros != extremes
