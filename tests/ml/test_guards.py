"""What training checks of itself: that norms keep within limits, and what becomes of it if not."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.errors import Refused
from masque.ml import rows
from masque.ml.guards import Guards
from masque.ml.layers import Dense, Relu
from masque.ml.layers.base import Batch
from masque.ml.network import Adam, Network, Sgd
from masque.ml.task import ALL, Kind, Task
from masque.mpc import inprocess
from masque.mpc.graph import Kind as RegisterKind
from masque.mpc.party import Party
from masque.mpc.program import Call, Input, Output, Program, Ref, Register, TrainingRound
from masque.mpc.public import public_array
from masque.mpc.sharing import join
from masque.mpc.trace import Trace

from . import examples
from .examples import Reals
from .test_training import little

SURE = 1 - 3 / 32
"""Of the square of a limit: one below it never counts as a violation."""
SCALE = 20
LIMITS = (1.0, 8.0, 16 * sqrt(7), 64.0, 90.5, 0.3, 1000.0)


def violations(parties: int, values: Reals, limit: float, guarded: str) -> int:
    """How many violations `parties` find in [n, 1] squares, or the norms of [n, m] rows."""
    trace = Trace("guard", parties)
    scale = SCALE if guarded == "squares" else SCALE // 2
    x = trace.input("x", values.shape, scale, float(np.abs(values).max()) + 1.0)
    guards, norm = Guards(), float(np.linalg.norm(values, axis=1).max()) + 1.0
    match guarded:
        case "squares":
            guards.squares(x.reshape(len(values)), limit)
        case "rows":
            assert guards.rows(x, norm, limit).bound <= limit
        case "columns":
            guards.columns(x.T, norm, limit)
    found = guards.violations()
    assert found is not None
    trace.output("found", found, 0)
    call = Call(trace.freeze(), {"x": Ref("x")}, {}, {"found": Ref("found")})
    program = Program(
        "guard",
        parties,
        {"found": Register((1,), RegisterKind.SHARE)},
        {"x": Input("x", len(values), values.shape[1], scale)},
        (TrainingRound("check", lambda: [call], 1),),
        {"found": Output("found", (1,), 0, ())},
    )
    sources = examples.sources(parties, {"x": public_array(values, scale)})
    run = inprocess.run(program, sources, examples.seeds(parties))
    return int(join([party.output("found") for party in run.parties])[0])


@pytest.mark.parametrize("parties", [2, 3, 5, 16])
@pytest.mark.parametrize("limit", LIMITS)
def test_squares_at_the_edges_of_a_limit(parties: int, limit: float) -> None:
    ulp = 2.0**-SCALE
    square = np.ceil(limit**2 / ulp) * ulp
    beyond = [square, square + ulp, square * 1.01, square * 2, square * 1000]
    short = floor(limit**2 * SURE / ulp) * ulp
    within = [0.0, -ulp, ulp, short / 2, short * 0.999, short - ulp]
    for values, count in ((beyond, len(beyond)), (within, 0)):
        assert violations(parties, np.array(values)[:, None], limit, "squares") == count


@pytest.mark.parametrize("guarded", ["squares", "rows", "columns"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_beyond_is_found_and_what_is_within_is_not(
    guarded: str, data: st.DataObject
) -> None:
    parties = data.draw(st.sampled_from([2, 3, 5]))
    limit = data.draw(st.floats(0.25, 500.0))
    parts = st.floats(0.0, SURE - 1e-3) | st.floats(1.001, 50.0)
    squares = np.array(data.draw(st.lists(parts, min_size=1, max_size=12))) * limit**2
    values = squares[:, None]
    if guarded != "squares":
        draw = np.random.default_rng(data.draw(st.integers(0, 100)))
        values = draw.normal(size=(len(squares), data.draw(st.integers(1, 6))))
        values *= np.sqrt(squares)[:, None] / np.linalg.norm(values, axis=1, keepdims=True)
        values = np.rint(values * 2.0 ** (SCALE // 2)) / 2.0 ** (SCALE // 2)
        squares = (values**2).sum(axis=1)
    found, ratios = violations(parties, values, limit, guarded), squares / limit**2
    assert (ratios >= 1).sum() <= found <= (ratios >= SURE).sum()


@pytest.mark.parametrize("norm", [100.0, 2.0**17, 2.0**22, 2.0**24])
def test_what_is_too_large_to_be_squared_is_checked_on_a_coarser_copy(norm: float) -> None:
    """And keeps its fraction bits."""
    limit, shape = 64.0, (6, 3, 5)
    trace, guards = Trace("settled", 2), Guards()
    value = trace.input("x", shape, 20, norm)
    settled = Batch(value, norm).settled(guards, 16, limit)
    assert settled.value.scale == 16
    assert settled.norm == limit
    found = guards.violations()
    assert found is not None
    trace.output("found", found, 0)
    x = np.random.default_rng(1).normal(size=shape)
    lengths = np.array([0.0, 0.5, 0.9, 1.1, 2.0, norm / limit / 1.001]) * limit
    x *= (lengths / np.linalg.norm(x.reshape(6, -1), axis=1)).reshape(6, 1, 1)
    assert examples.run_block(trace.freeze(), {"x": public_array(x, 20)})["found"] == 3


# -- training that leaves its bounds -----------------------------------------------------------


class Watched(Party):
    """A party that is still there after a refusal."""

    seen: list[Party] = []  # noqa: RUF012

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        Watched.seen.append(self)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Party]]:
    """The parties of the last run."""
    monkeypatch.setattr(inprocess, "Party", Watched)
    Watched.seen.clear()
    yield Watched.seen
    Watched.seen.clear()


def network(**limits: float) -> Network:
    """A small one."""
    return Network((4,), (Dense(6), Relu(), Dense(3)), **limits)


def task_of(table: Reals, limits: dict[str, float], **changes: Any) -> Task:
    """Two epochs; the model is for everybody, so that it would be opened."""
    fields: dict[str, Any] = {"learning_rates": (0.1, 0.1), "model_to": ALL} | changes
    kind: Kind = "linear" if table.shape[1] == 5 else "softmax"
    net = network(**limits)
    if kind == "linear":
        net = Network((4,), (*net.layers[:-1], Dense(1)), **limits)
    return examples.task_on(table, kind, table.shape[1] - 4, network=net, **fields)


def far() -> Reals:
    """Rows that are much larger than activations are to be."""
    table = little(40, 4, 3)
    table[:, :4] *= 100.0
    return table


def numbers() -> Reals:
    """Rows with a number each as the label, which scores are far from at the start."""
    table = little(40, 4)
    table[:, :4] *= 8.0
    return table


FAR: dict[str, Any] = {"feature_bounds": (100.0,) * 4, "learning_rates": (1e-7, 1e-7)}
NUMBERS: dict[str, Any] = {"feature_bounds": (8.0,) * 4, "learning_rates": (1e-7, 1e-7)}
WIDE: dict[str, float] = {
    "weight_bound": 64.0,
    "activation_bound": 256.0,
    "gradient_bound": 512.0,
}
DIVERGING: list[tuple[str, dict[str, float], dict[str, Any]]] = [
    ("little", {}, {"learning_rates": (50.0, 50.0)}),
    ("little", {}, {"learning_rates": (5.0, 5.0), "optimizer": Sgd(0.99)}),
    ("little", {"weight_bound": 1.0}, {"optimizer": Adam(), "learning_rates": (1.0, 1.0)}),
    ("far", WIDE | {"activation_bound": 1.0}, FAR),
    ("numbers", WIDE | {"gradient_bound": 1.0}, NUMBERS),
]
TABLES = {"little": lambda: little(40, 4, 3), "far": far, "numbers": numbers}


@pytest.mark.parametrize(("name", "limits", "changes"), DIVERGING)
def test_training_that_leaves_its_bounds_ends_with_what_to_do(
    name: str, limits: dict[str, float], changes: dict[str, Any], watched: list[Party]
) -> None:
    table = TABLES[name]()
    with pytest.raises(Refused, match="within bounds") as refused:
        examples.together(task_of(table, limits, **changes), table)
    assert "training.optimizer.learning_rate" in refused.value.hint
    for limit in ("weight_bound", "activation_bound", "gradient_bound"):
        assert f"model.{limit}" in refused.value.hint
    assert len(watched) == 2
    for party in watched:  # no output was opened, and none is ready to be sealed
        assert party.opened.keys() <= {"epoch 1 within bounds", "epoch 2 within bounds"}
        kept = [party.registers[n] for n in party.registers if n.startswith("model:")]
        assert len(kept) == 4
        assert not any(np.any(value) for value in kept)


@pytest.mark.parametrize(("name", "changes"), [("far", FAR), ("numbers", NUMBERS)])
def test_wider_bounds_are_a_cure(name: str, changes: dict[str, Any]) -> None:
    table = TABLES[name]()
    got, _ = examples.together(task_of(table, WIDE, **changes), table)
    bits = [int(v[0]) for n, v in got.opened.items() if n.endswith("bounds")]
    assert bits == [1, 1]


def test_held_out_rows_beyond_all_bounds_are_refused_as_well(watched: list[Party]) -> None:
    table = little(40, 4, 3)
    fields: dict[str, Any] = {"metrics": ("accuracy",), "metrics_to": ALL, "model_to": ()}
    task = task_of(table, {"activation_bound": 8.0}, feature_bounds=(50.0,) * 4, **fields)
    table[rows.split(task)[0][0], :4] = 50.0
    with pytest.raises(Refused, match=r"Held-out rows .*evaluation within bounds") as refused:
        examples.together(task, table)
    assert "model.activation_bound" in refused.value.hint
    for party in watched:
        assert "metric:accuracy" not in party.opened
