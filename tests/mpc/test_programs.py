"""Random programs: what the parties compute is what the plain twin says; so is what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from masque.errors import Refused
from masque.mpc import functions, inprocess, sharing
from masque.mpc.bilinear import BILINEAR
from masque.mpc.correlations import LAWS
from masque.mpc.graph import MOVES, OPENINGS, Block, Kind
from masque.mpc.machine import LINEAR
from masque.mpc.party import Party
from masque.mpc.plain import Plain
from masque.mpc.program import Call, Input, Output, Program, Ref, Register, TrainingRound
from masque.mpc.secret import Secret, concatenate
from masque.mpc.trace import Trace
from masque.mpc.types import Ring
from tests.mpc.harness import (
    PARTIES,
    Clear,
    Outcome,
    encode,
    evaluate,
    execute,
    one_block,
    seeds,
    share_inputs,
    sources,
)
from tests.mpc.writer import Doubt, Pick, Tracked, Writer

SHAPE, SCALE, BOUND = (3, 2), 8, 8.0


def methods(machine: type) -> set[str]:
    """The operations that an interpreter has a method for."""
    return {
        name
        for part in machine.__mro__
        for name, member in vars(part).items()
        if not name.startswith("_")
        and callable(member)
        and list(member.__annotations__)[:2] == ["node", "values"]
    }


TABLE = LINEAR | OPENINGS | set(LAWS) | methods(Plain)


class Bound:
    """A block with what its calls bind."""

    def __init__(
        self, block: Block, refs: list[dict[str, Ref]], arguments: Mapping[str, Ring]
    ) -> None:
        self.block, self.refs, self.arguments = block, refs, arguments

    def call(self, k: int) -> Call:
        """Call number k: outputs go to row k of their registers."""
        outputs = {name: Ref(name, slice(k, k + 1)) for name in self.block.outputs}
        return Call(self.block, self.refs[k], self.arguments, outputs)


class Written:
    """Two random blocks: the first runs twice, the second reads its registers."""

    def __init__(self, parties: int, pick: Pick, steps: int = 7) -> None:
        self.pick, self.steps = pick, steps
        self.registers: dict[str, Register] = {}
        self.errors: dict[str, tuple[float, int]] = {}
        self.doubts: list[Doubt] = []
        first, kept = self._first(parties)
        second = self._second(parties, kept)
        self.blocks = [first.block, second.block]
        inputs = {name: Input(name, 2 * SHAPE[0], SHAPE[1], SCALE) for name in ("x", "y")}
        self.program = Program(
            name="random",
            parties=parties,
            registers=self.registers,
            inputs=inputs,
            rounds=[
                TrainingRound("first", lambda: [first.call(0), first.call(1)], 2),
                TrainingRound("second", lambda: [second.call(0)], 1),
            ],
            outputs={
                name: Output(name, register.shape, self.errors[name][1], ())
                for name, register in self.registers.items()
            },
        )

    def _hand_over(self, writer: Writer, calls: int) -> Trace:
        """Every value made becomes an output."""
        trace = writer.trace
        for i, made in enumerate(writer.pool):
            name, masked = f"{writer.prefix}{i}", self.pick(8) == 0
            trace.output(name, made.secret, made.secret.scale, masked=masked)
            kind = Kind.MASKED if masked else Kind.SHARE
            self.registers[name] = Register((calls, *made.secret.shape), kind)
            self.errors[name] = (made.error, made.secret.scale)
        for doubt in writer.doubts:
            node = trace.graph.nodes[trace.graph.outputs[doubt.output]]
            self.registers[doubt.output] = Register((calls, *node.shape), Kind.SHARE)
            self.errors[doubt.output] = (doubt.error, doubt.scale)
        self.doubts += writer.doubts
        return trace

    def _first(self, parties: int) -> tuple[Bound, list[Tracked]]:
        trace = Trace("first", parties)
        inputs = [trace.input(name, SHAPE, SCALE, BOUND) for name in ("x", "y")]
        writer = Writer(trace, self.pick, [Tracked(x) for x in inputs], "a")
        for _ in range(1 + self.pick(self.steps)):
            writer.step()
        self._hand_over(writer, 2)
        rows = [slice(0, SHAPE[0]), slice(SHAPE[0], 2 * SHAPE[0])]
        block = trace.freeze()
        refs = [{name: Ref(name, part) for name in block.inputs} for part in rows]
        return Bound(block, refs, writer.arguments), writer.pool

    def _second(self, parties: int, kept: list[Tracked]) -> Bound:
        trace = Trace("second", parties)
        refs: dict[str, Ref] = {}
        pool = []
        for i, made in enumerate(kept):
            name, secret = f"a{i}", made.secret
            masked = self.registers[name].kind is Kind.MASKED
            shape = (1, *secret.shape)
            read = trace.input(name, shape, secret.scale, secret.bound, masked=masked)
            refs[name] = Ref(name, np.array([1]) if self.pick(2) else slice(1, 2))
            pool.append(Tracked(read.reshape(*secret.shape), made.error))
        writer = Writer(trace, self.pick, pool, "b")
        for _ in range(1 + self.pick(self.steps)):
            writer.step()
        self._hand_over(writer, 1)
        return Bound(trace.freeze(), [refs], writer.arguments)

    def check(self, outcome: Outcome) -> bool:
        """Every output within its error; False if a comparison was too close to tell."""
        for doubt in self.doubts:
            values = outcome.plain[doubt.output] / 2.0**doubt.scale
            if np.any(np.abs(values - doubt.threshold) <= doubt.error):
                return False
        for name, (error, scale) in self.errors.items():
            far = np.abs(outcome.got[name] - outcome.plain[name]).max(initial=0) / 2.0**scale
            assert far <= error, f"{name}: {far} > {error}"
        return True


def clear(seed: int) -> dict[str, Ring]:
    """Clear inputs: random, or for every other seed edges."""
    rng = np.random.default_rng(seed)
    shape, edge = (2 * SHAPE[0], SHAPE[1]), int(BOUND * 2**SCALE)
    edges = np.array([0, 1, -1, edge, -edge, 128, -768, 448])
    if seed % 2:
        return {name: rng.choice(edges, shape).view(np.uint64) for name in ("x", "y")}
    return {name: rng.integers(-edge, edge + 1, shape).view(np.uint64) for name in ("x", "y")}


def numbers(seed: int) -> Pick:
    """Choices from a generator of random numbers."""
    rng = np.random.default_rng(seed)
    return lambda n: int(rng.integers(n))


@pytest.mark.parametrize("parties", PARTIES)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_parties_agree_with_plain(parties: int, data: st.DataObject, seed: int) -> None:
    written = Written(parties, lambda n: data.draw(st.integers(0, n - 1)))
    assume(written.check(execute(written.program, clear(seed), seed)))


@pytest.mark.parametrize("seed", range(45))
def test_parties_agree_with_plain_on_long_programs(seed: int) -> None:
    written = Written(PARTIES[seed % 3], numbers(seed), steps=16)
    written.check(execute(written.program, clear(seed), seed))


def test_random_programs_exercise_every_operation() -> None:
    used: set[object] = set()
    checked = 0
    for seed in range(40):
        written = Written(2, numbers(seed), steps=16)
        nodes = [node for block in written.blocks for node in block.nodes.values()]
        ops = {n.params[0] if n.op == "product" else n.op for n in nodes}
        if written.check(execute(written.program, clear(seed), seed)):
            used |= ops
            checked += 1
    assert checked > 10
    # outside of these programs: revealed values (test_views, test_cost), noise (test_noise)
    table = TABLE - {"product"} | set(BILINEAR)
    assert table - used == {"reveal", "noise"}, "the writer must learn to write these operations"


def test_interpreters_have_the_same_table() -> None:
    assert methods(Plain) == methods(Party)
    assert methods(Plain).isdisjoint(LINEAR | OPENINGS)
    assert LINEAR | OPENINGS | methods(Party) == TABLE
    assert MOVES < LINEAR


def random_input(shape: tuple[int, ...], seed: int = 0) -> Clear:
    draws = np.random.default_rng(seed).uniform(-100.0, 100.0, shape)
    return Clear(encode(draws, 16), 16, 100.0)


@pytest.mark.parametrize("parties", PARTIES)
def test_values_opened_in_different_windows_can_be_joined(parties: int) -> None:
    def join(x: Secret, y: Secret) -> Secret:
        parts = [y.at(5), x.at(10)]  # y is opened from bit 9, x from bit 4
        joined = concatenate([x, y], axis=0).at(8)
        return concatenate([joined, *parts], axis=0)

    outcome = evaluate(join, [random_input((4, 3)), random_input((4, 3), 1)], parties)
    assert np.abs(outcome.got["y"] - outcome.plain["y"]).max() <= 1 << 5


def test_views_of_values_are_compared_like_others() -> None:
    """A value that is broadcast to its own shape is a view that may not be written."""
    edges = Clear(np.array([[0, 5, -5], [1 << 60, -(1 << 60), 5]]), 0, 2.0**61)
    same = evaluate(lambda x: functions.equals(x.broadcast(2, 3), 0).value(), [edges], 2)
    np.testing.assert_array_equal(same.got["y"], edges.values == 0)
    rows = evaluate(lambda x: functions.less(x[1].broadcast(2, 3)).value(), [edges], 2)
    np.testing.assert_array_equal(rows.got["y"], [[0, 1, 0], [0, 1, 0]])


SINGLE = {
    "product": lambda x: x.sum() * x.sum(),
    "truncation": lambda x: (x.sum() * 2.5).at(3),
    "comparison": lambda x: functions.less(x.sum()).value(),
    "relu": lambda x: functions.relu(-x.sum()),
    "sigmoid": lambda x: functions.sigmoid(x.sum()).at(10),
    "linear": lambda x: -x.sum() + x.sum().at(10),
}


@pytest.mark.parametrize("name", SINGLE)
def test_single_numbers_have_no_axis(name: str) -> None:
    outcome = evaluate(SINGLE[name], [random_input((4, 3))], 3)
    assert outcome.got["y"].shape == ()
    assert abs(outcome.got["y"] - outcome.plain["y"]) <= 1 << 6


NOTHING = {
    "product": lambda x: x * x,
    "no rows": lambda x: x @ x.T,
    "nothing to add": lambda x: x.T @ x,
    "truncation": lambda x: x.at(3),
    "comparison": lambda x: functions.less(x).value(),
    "equality": lambda x: functions.equals(x).value(),
    "sigmoid": functions.sigmoid,
    "reciprocal": functions.reciprocal,
    "softmax": functions.softmax,
}


@pytest.mark.parametrize("name", NOTHING)
def test_arrays_may_be_empty(name: str) -> None:
    empty = Clear(np.zeros((0, 3), dtype=np.int64), 16, 100.0)
    outcome = evaluate(NOTHING[name], [empty], 3)
    assert outcome.got["y"].shape == outcome.plain["y"].shape
    assert not outcome.got["y"].any()


@pytest.mark.parametrize("kind", [Kind.SHARE, Kind.MASKED])
def test_outputs_are_stored_at_once(kind: Kind) -> None:
    """A call that swaps two registers reads both before it writes either."""
    masked = kind is Kind.MASKED
    load, swap = Trace("load", 2), Trace("swap", 2)
    for name in ("left", "right"):
        load.output(name, load.input(name[0], SHAPE, SCALE, BOUND), SCALE, masked=masked)
        other = {"left": "right", "right": "left"}[name]
        swap.output(
            other, swap.input(name, SHAPE, SCALE, BOUND, masked=masked), SCALE, masked=masked
        )
    names = ("left", "right")
    both = {name: Ref(name) for name in names}
    calls = [
        Call(load.freeze(), {"l": Ref("l"), "r": Ref("r")}, {}, both),
        Call(swap.freeze(), both, {}, both),
    ]
    program = Program(
        name="swap",
        parties=2,
        registers={name: Register(SHAPE, kind) for name in names},
        inputs={name[0]: Input(name[0], *SHAPE, SCALE) for name in names},
        rounds=[TrainingRound("only", lambda: calls, 2)],
        outputs={name: Output(name, SHAPE, SCALE, ()) for name in names},
    )
    data = {name[0]: v[: SHAPE[0]] for name, v in zip(names, clear(2).values(), strict=True)}
    outcome = execute(program, data, 1)
    for results in (outcome.got, outcome.plain):
        np.testing.assert_array_equal(results["left"], data["r"].view(np.int64))
        np.testing.assert_array_equal(results["right"], data["l"].view(np.int64))


def stops(kind: Kind, stop: float) -> Program:
    """Load w, open whether w[0, 0] < stop; a round that doubles w may be skipped; then square w."""
    masked = kind is Kind.MASKED
    load, look, double, square = (Trace(name, 2) for name in ("load", "look", "double", "square"))
    load.output("w", load.input("w", SHAPE, SCALE, BOUND), SCALE, masked=masked)
    w = look.input("w", SHAPE, SCALE, BOUND, masked=masked)
    look.reveal("stop", functions.less(w[0, 0], stop).value(), effect="stop")
    w = double.input("w", SHAPE, SCALE, BOUND, masked=masked)
    double.output("w", (w + w).at(SCALE), SCALE, masked=masked)
    w = square.input("w", SHAPE, SCALE, BOUND, masked=masked)
    square.output("y", w * w, 2 * SCALE)
    here = {"w": Ref("w")}

    def once(name: str, call: Call, *, skippable: bool = False) -> TrainingRound:
        return TrainingRound(name, lambda: [call], 1, skippable)

    return Program(
        name="stops",
        parties=2,
        registers={"w": Register(SHAPE, kind), "y": Register(SHAPE, Kind.SHARE)},
        inputs={"data": Input("data", *SHAPE, SCALE)},
        rounds=[
            once("load", Call(load.freeze(), {"w": Ref("data")}, {}, here)),
            once("look", Call(look.freeze(), here, {}, {}), skippable=True),
            once("double", Call(double.freeze(), here, {}, here), skippable=True),
            once("square", Call(square.freeze(), here, {}, {"y": Ref("y")})),
        ],
        outputs={"y": Output("y", SHAPE, 2 * SCALE, ())},
    )


@pytest.mark.parametrize("stop", [-100.0, 100.0])
def test_an_early_stop_skips_what_may_be_skipped(stop: float) -> None:
    program = stops(Kind.SHARE, stop)
    data = {"data": np.arange(6, dtype=np.uint64).reshape(SHAPE)}
    run = inprocess.run(program, sources(share_inputs(data, 2, 1), 2), seeds(2, 1))
    plain = Plain(program, lambda name, rows: data[name][rows])
    plain.run_program()
    squares = (data["data"] * (1 if stop > 0 else 2)) ** 2
    np.testing.assert_array_equal(plain.output("y"), squares)
    np.testing.assert_array_equal(sharing.join([p.output("y") for p in run.parties]), squares)
    assert [party.stopped for party in run.parties] == [stop > 0] * 2
    assert plain.stopped == (stop > 0)
    for stock in run.stocks:
        assert not any(stock.parts.values()), "what was skipped is destroyed"


def test_masks_that_a_stop_would_leave_behind_are_refused() -> None:
    """The dealer deals the skipped round as well, and would go on with its mask of w."""
    with pytest.raises(AssertionError, match="whose mask"):
        inprocess.stock(stops(Kind.MASKED, 100.0), seeds(2, 1))


def with_argument(bound: float, values: Ring) -> Program:
    trace = Trace("argument", 2)
    rate = trace.argument("rate", (), 8, bound)
    trace.output("y", trace.input("x", SHAPE, SCALE, BOUND).scaled(rate, SCALE), SCALE)
    block, clear_x = trace.freeze(), Clear(np.ones(SHAPE, dtype=np.int64), SCALE, BOUND)
    return one_block(block, {"x": clear_x}, {"y": SCALE}, {"rate": values})


def test_arguments_are_held_to_their_bounds() -> None:
    data = {"x": np.full(SHAPE, 512, dtype=np.uint64)}
    half = np.array(128, dtype=np.uint64)
    outcome = execute(with_argument(0.5, half), data, 1)
    assert np.abs(outcome.got["y"] - 256).max() <= 1
    with pytest.raises(AssertionError, match="too large"):
        execute(with_argument(0.25, half), data, 1)
    with pytest.raises(AssertionError, match="shape"):
        execute(with_argument(0.5, half.reshape(1)), data, 1)
    with pytest.raises(AssertionError, match="not negative"):
        execute(with_argument(0.5, np.negative(half)), data, 1)


def reveals(parties: int) -> Program:
    trace = Trace("reveal", parties)
    x = trace.input("x", SHAPE, SCALE, BOUND)
    trace.reveal("total", x.sum(axis=0))
    trace.reveal("positive", functions.less(-x[0, 0]).value(), effect="require")
    return one_block(trace.freeze(), {"x": Clear(np.zeros(SHAPE, dtype=np.int64), 8, 8.0)}, {})


@pytest.mark.parametrize("parties", PARTIES)
def test_declared_openings_are_opened_to_all(parties: int) -> None:
    data = {"x": np.arange(1, 7, dtype=np.uint64).reshape(SHAPE)}
    outcome = execute(reveals(parties), data, 1)
    for party in outcome.run.parties:
        assert party.opened.keys() == {"total", "positive"}
        np.testing.assert_array_equal(party.opened["total"], [9, 12])
        assert party.opened["positive"] == 1
        assert not party.stopped


def test_a_requirement_that_fails_refuses_the_job() -> None:
    data = {"x": np.zeros(SHAPE, dtype=np.uint64)}
    with pytest.raises(Refused, match="positive") as caught:
        execute(reveals(3), data, 1)
    assert caught.value.where == {"check": "positive"}


@pytest.mark.parametrize("use", [lambda x: x.at(4), lambda x: functions.less(x).value()])
def test_the_plain_twin_tells_of_bounds_that_do_not_hold(use: Callable[[Secret], Secret]) -> None:
    """Parties cannot: a value beyond what a program claims would be wrong in silence."""
    values = Clear(np.full(SHAPE, 8 << SCALE), SCALE, BOUND)
    evaluate(use, [values], 2)
    with pytest.raises(AssertionError, match="its bound"):
        evaluate(lambda x: use(x.bounded(0.5)), [values], 2)
