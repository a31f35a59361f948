"""`cost` against real traffic, and against the table in docs/protocol.md.

That cost equals measured rounds, bytes and corrections is checked for every program that any test
of the core runs (`harness.measured`); here are the parts of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from masque.mpc import functions, prg
from masque.mpc.cost import cost
from masque.mpc.dealer import Dealer
from masque.mpc.secret import Secret, product
from masque.mpc.types import Bytes
from tests.mpc.examples import epochs
from tests.mpc.harness import PARTIES, Clear, execute, seeds, traced

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


def _convolved(x: Secret, w: Secret) -> Secret:
    images, weights = x.reshape(10, 1, 10, 10), w.reshape(4, 1, 3, 3)
    return product("conv2d", images, weights, params=((1, 1), (0, 0)))


# What the table in docs/protocol.md is about: (function, shapes of its operands).
ROWS: dict[str, tuple[Callable[..., Secret], tuple[tuple[int, int], ...]]] = {
    "masking, once a value": (lambda x: _masked(x.bounded(x.bound)), ((100, 10),)),
    "product, elementwise": (lambda x, y: x * y, ((100, 10), (100, 10))),
    "product of a value with itself": (lambda x: x * x, ((100, 10),)),
    "matrix product, 100x10 by 10x100": (lambda x, y: x @ y, ((100, 10), (10, 100))),
    "convolution, 10x1x10x10 by 4x1x3x3": (_convolved, ((10, 100), (4, 9))),
    "truncation by 8 bits": (lambda x: x.at(8), ((100, 10),)),
    "public factor of 24 bits": (lambda x: x.scaled(0.1, 16), ((100, 10),)),
    "comparison with 0": (lambda x: _shared(functions.less(x)), ((100, 10),)),
    "equality": (lambda x: _shared(functions.equals(x)), ((100, 10),)),
    "relu": (functions.relu, ((100, 10),)),
    "relu, cut by 8 bits, decided by 12": (
        lambda x: functions.relu(x, 8, resolution=12),
        ((100, 10),),
    ),
    "clip": (lambda x: functions.clip(x, -1.0, 1.0), ((100, 10),)),
    "sigmoid": (functions.sigmoid, ((100, 10),)),
    "tanh": (functions.tanh, ((100, 10),)),
    "softplus": (functions.softplus, ((100, 10),)),
    "exp": (functions.exp, ((100, 10),)),
    "reciprocal": (functions.reciprocal, ((100, 10),)),
    "inverse square root": (functions.inverse_sqrt, ((100, 10),)),
    "log": (functions.log, ((100, 10),)),
    "argmax, 100 rows of 10": (functions.argmax, ((100, 10),)),
    "softmax, 100 rows of 10": (functions.softmax, ((100, 10),)),
}


def _masked(x: Secret) -> Secret:
    x.masked()
    return Secret(x.graph, x.shape, x.scale, x.bound, masked=x.forms.masked)


def _shared(bit: functions.Bit) -> Secret:
    """The bit as a number."""
    return bit.value()


def row(name: str) -> tuple[int, int, int]:
    """Rounds, bytes to each peer, bytes of corrections in all: 2 parties, scale 16, |x| <= 128."""
    function, shapes = ROWS[name]
    inputs = [Clear(np.zeros(shape, dtype=np.int64), 16, 128.0) for shape in shapes]
    total = cost(traced(function, inputs, 2))
    return total.rounds, total.sent, sum(total.corrections)


def table() -> Iterator[tuple[str, tuple[int, int, int]]]:
    for line in PAGE.read_text().splitlines():
        found = re.fullmatch(r"\| ([^|]+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|", line)
        if found:
            name, *figures = found.groups()
            rounds, sent, corrections = (int(figure.replace(",", "")) for figure in figures)
            yield name.strip(), (rounds, sent, corrections)


def test_the_table_in_the_documentation_is_what_cost_says() -> None:
    written = dict(table())
    assert written.keys() == ROWS.keys()
    for name, figures in written.items():
        assert figures == row(name), name


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("parties", PARTIES)
def test_traffic_is_what_cost_says(name: str, parties: int) -> None:
    function, shapes = ROWS[name]
    rng = np.random.default_rng(0)
    inputs = [Clear(rng.integers(-(1 << 23), 1 << 23, shape), 16, 128.0) for shape in shapes]
    program = traced(function, inputs, parties)
    data = {f"x{i}": clear.values.view(np.uint64) for i, clear in enumerate(inputs)}
    execute(program, data, 1)


@pytest.mark.parametrize("parties", PARTIES)
def test_every_training_round_has_its_own_account(parties: int) -> None:
    program = epochs(parties)
    rng = np.random.default_rng(1)
    data = rng.integers(-(1 << 18), 1 << 18, (10, 4)).view(np.uint64)
    outcome = execute(program, {"data": data}, 1)
    assert np.abs(outcome.got["w"] - outcome.plain["w"]).max() < 100
    account = cost(program)
    assert [r.name for r in account.rounds_by_name] == [r.name for r in program.rounds]
    assert sum(r.sent for r in account.rounds_by_name) == account.sent
    positions = {k: 0 for k in range(len(program.rounds))}
    dealt = list(Dealer(program, seeds(parties, 1)).deal())
    for (_, parts), (_, k, _) in zip(dealt, program.positions(), strict=True):
        positions[k] += sum(len(part) for part in parts)
    for k, training_round in enumerate(account.rounds_by_name):
        assert sum(training_round.corrections) == positions[k]


@pytest.mark.parametrize("parties", PARTIES)
def test_corrections_rotate(parties: int) -> None:
    """No link to a party carries much more than its part."""
    corrections = cost(epochs(parties, 30)).corrections
    assert max(corrections) <= 1.2 * sum(corrections) / parties


def test_bytes_drawn_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    program = epochs(2)
    drawn: list[int] = []
    fill = prg.Stream._fill

    def counted(self: prg.Stream, position: int, first: int, into: Bytes, size: int) -> None:
        drawn.append(size)
        fill(self, position, first, into, size)

    monkeypatch.setattr(prg.Stream, "_fill", counted)
    for _ in Dealer(program, seeds(2, 1)).deal():
        pass
    rounds = cost(program).rounds_by_name
    assert 0 <= 2 * sum(r.drawn for r in rounds) - sum(drawn) <= len(rounds)


def test_calls_nodes_and_elements_are_counted() -> None:
    """A product of two masked values: two maskings, one product; truncated: one more."""
    inputs = [Clear(np.zeros((4, 5), dtype=np.int64), 16, 4.0)] * 2
    plain = cost(traced(lambda x, y: x * y, inputs, 2)).rounds_by_name
    assert sum(r.calls for r in plain) == 1
    assert sum(r.nodes for r in plain) == 3
    assert sum(r.elements for r in plain) == 5 * 20, "a masked value is its difference and mask"
    cut = cost(traced(lambda x, y: (x * y).at(16), inputs, 2)).rounds_by_name
    assert sum(r.nodes for r in cut) == 3 + 2
    turned = cost(traced(lambda x, y: (x.T * y.T).reshape(20), inputs, 2)).rounds_by_name
    assert sum(r.elements for r in turned) == 5 * 20, "views make nothing"


def test_an_epoch_has_so_many_calls() -> None:
    found = {r.name: r for r in cost(epochs(2, 3)).rounds_by_name}
    assert [r.calls for r in found.values()] == [1, 2, 2, 2]
    assert found["epoch 1"].elements == found["epoch 3"].elements > 0
