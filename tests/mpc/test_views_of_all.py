"""Every operation is among those whose views are tested; what the dealer sees; constant shapes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from masque.mpc import classes, functions, inprocess
from masque.mpc.correlations import LAWS
from masque.mpc.dealer import Dealer
from masque.mpc.graph import OPENINGS
from masque.mpc.program import Program
from masque.mpc.public import constant
from masque.mpc.secret import Secret, concatenate, place
from masque.mpc.trace import Trace
from tests.mpc.examples import epochs, everything
from tests.mpc.harness import Clear, block_of, one_block
from tests.mpc.test_programs import TABLE
from tests.mpc.test_views import LIMIT, SHAPE, data_of, views, worst_of

KINDS = ("zeros", "largest", "smallest", "one", "mixed")


def moved(parties: int, shape: tuple[int, int] = SHAPE) -> Program:
    """One block with every operation that `everything` lacks, and openings of what they make."""
    trace = Trace("moved", parties)
    x, y = (trace.input(name, shape, 16, 8.0) for name in ("x", "y"))
    rows, columns = shape
    weights = constant(x.graph, np.linspace(-1, 1, columns * 2).reshape(columns, 2), 16)
    factor = constant(x.graph, np.linspace(0, 1, columns), 16)
    outputs: dict[str, Secret] = {
        "softmax": classes.softmax(x),
        "joined": functions.relu(concatenate([x, y], 1)),
        "placed": functions.relu(
            place([x], [(slice(0, rows), slice(1, columns + 1))], (rows, columns + 1))
        ),
        "repeated": (x[:1].broadcast(rows, columns) * y).at(12),
        "one of two": (functions.less(x) ^ functions.less(y)).value(),
        "public product": (x @ weights).at(12),
        "public factor": (y * factor).at(12),
    }
    for name, value in outputs.items():
        trace.output(name, value, value.scale)
    clear = Clear(np.zeros(shape, dtype=np.int64), 16, 8.0)
    scales = {name: value.scale for name, value in outputs.items()}
    return one_block(trace.freeze(), dict.fromkeys(("x", "y"), clear), scales)


def test_no_operation_is_forgotten() -> None:
    """A new operation belongs into one of the two programs, or says here why not."""
    used = {node.op for make in (everything, moved) for node in block_of(make(2)).nodes.values()}
    elsewhere = {
        "reveal",  # opens what the job declares
        "unmask",  # of what an earlier block has masked: local, see `epochs`
        "noise",  # a party's own draw: neither dealt nor opened
    }
    assert TABLE - used == elsewhere
    later = {n.op for k in range(2) for n in block_of(epochs(2), k).nodes.values()}
    assert "unmask" in later
    assert used >= (OPENINGS | set(LAWS)) - elsewhere


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_views_of_the_others_are_uniform(
    kind: str, parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = moved(parties)
    data = {name: data_of(kind)[name] for name in ("x", "y")}
    holder = 0 if kind == "smallest" else parties - 1
    for party, view in enumerate(views(program, data, parties, holder, monkeypatch)):
        off, where = worst_of(program, view, party)
        assert off < LIMIT, f"party {party} sees {where}, {off:.1f} deviations from uniform"


# -- the dealer ----------------------------------------------------------------------------------


def dealt(
    program: Program, kind: str, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int] = (6, 3)
) -> tuple[Any, ...]:
    """All that a dealer is given, and all that it gives: seeds, and corrections."""
    given: list[Any] = []

    class Watched(Dealer):
        def __init__(self, program: Program, seeds: Any) -> None:
            given.append((program.digest, tuple(seeds)))
            super().__init__(program, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(inprocess, "Dealer", Watched)
        data = {name: values[: shape[0], : shape[1]] for name, values in data_of(kind).items()}
        seen = views(program, data, 5, 0, patch)
    return given, [view.corrections for view in seen]


@pytest.mark.parametrize("parties", [2, 3])
def test_the_dealer_sees_and_deals_the_same_whatever_the_data(
    parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = everything(parties)
    found = [dealt(program, kind, monkeypatch) for kind in KINDS]
    assert all(each == found[0] for each in found)
    assert any(found[0][1][0]), "it does deal something"


def test_a_seed_made_of_data_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted leak to the dealer: a party whose seed depends on its share."""
    run = inprocess.run

    def leaking(program: Program, sources: Any, seeds: Any) -> inprocess.Run:
        share = sources[0]("x", slice(None))
        return run(program, sources, [hashlib.sha256(share.tobytes()).digest(), *seeds[1:]])

    monkeypatch.setattr(inprocess, "run", leaking)
    program = everything(2)
    zeros, mixed = (dealt(program, kind, monkeypatch) for kind in ("zeros", "mixed"))
    assert zeros[0] != mixed[0]
    assert zeros[1] != mixed[1]


# -- constant behaviour --------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [2, 3])
def test_rounds_and_sizes_of_training_do_not_depend_on_data(
    parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = epochs(parties)
    shapes = []
    for kind in KINDS:
        data = {"data": np.clip(data_of(kind)["x"][:10, :4].view(np.int64), -(1 << 17), 1 << 17)}
        words = {name: values.view(np.uint64) for name, values in data.items()}
        shapes.append([view.shape for view in views(program, words, 1, 0, monkeypatch)])
    assert all(shape == shapes[0] for shape in shapes)
    assert len(shapes[0][0][0]) > 6  # type: ignore[arg-type]
