"""What the tests of the core share: programs of one or more blocks, run by every interpreter.

Everything is a function of a seed, so a failure repeats. `execute` runs the parties in threads
(the real `Party`, `Dealer` and packing), runs the plain twin, and holds `cost` against the
traffic that was measured: no test gets a result without that check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masque.mpc import inprocess, prg, sharing
from masque.mpc.cost import cost
from masque.mpc.doors import Source
from masque.mpc.graph import Block
from masque.mpc.plain import Plain
from masque.mpc.program import Call, Input, Output, Program, Ref, Register, TrainingRound
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from masque.mpc.types import Ring

Signed = NDArray[np.int64]
Reals = NDArray[np.float64]
PARTIES = (2, 3, 5)


@dataclass(frozen=True)
class Clear:
    """An input in the clear: whole numbers at `scale`, none beyond `bound`."""

    values: Signed
    scale: int
    bound: float


@dataclass(frozen=True)
class Outcome:
    """What the parties and the plain twin made of a program, by output."""

    program: Program
    got: dict[str, Signed]
    plain: dict[str, Signed]
    run: inprocess.Run

    def reals(self, name: str = "y") -> Reals:
        """The parties' result as real numbers."""
        scale = self.program.outputs[name].scale
        return np.asarray(self.got[name] / 2.0**scale, dtype=np.float64)


def seeds(parties: int, seed: int) -> list[bytes]:
    """A fresh 32-byte seed for each party, from the number of a test."""
    root = prg.derive(bytes(32), "tests of the core", seed)
    return [prg.derive(root, "party", i) for i in range(parties)]


def encode(values: Reals | Sequence[Any], scale: int) -> Signed:
    """Real numbers as fixed point."""
    return np.rint(np.asarray(values, dtype=np.float64) * 2.0**scale).astype(np.int64)


def sources(shares: Mapping[str, Sequence[Ring]], parties: int) -> list[Source]:
    """The stores of all parties, from the shares of every input."""

    def source(i: int) -> Source:
        return lambda name, rows: shares[name][i][rows]

    return [source(i) for i in range(parties)]


def share_inputs(clear: Mapping[str, Ring], parties: int, seed: int) -> dict[str, list[Ring]]:
    """Uniform shares of every input."""
    draw = prg.reader(prg.derive(bytes(32), "shares of inputs", seed))
    return {name: sharing.split(values, parties, draw) for name, values in clear.items()}


def measured(program: Program, run: inprocess.Run) -> None:
    """Hold the cost of a program against what was sent and received."""
    expected = cost(program)
    assert run.meeting.rounds == [expected.rounds] * program.parties
    assert run.meeting.sent == [expected.sent] * program.parties
    assert [stock.received for stock in run.stocks] == list(expected.corrections)
    assert not any(stock.parts.get(k) for stock in run.stocks for k in stock.parts)


def execute(
    program: Program,
    clear: Mapping[str, Ring],
    seed: int,
    shares: Mapping[str, Sequence[Ring]] | None = None,
) -> Outcome:
    """Run a program by all interpreters; `clear`: whole inputs, uint64."""
    parties = program.parties
    shares = shares or share_inputs(clear, parties, seed)
    run = inprocess.run(program, sources(shares, parties), seeds(parties, seed))
    measured(program, run)
    plain = Plain(program, lambda name, rows: clear[name][rows])
    plain.run_program()
    got = {
        name: sharing.join([party.output(name) for party in run.parties]).view(np.int64)
        for name in program.outputs
    }
    expected = {name: plain.output(name).view(np.int64) for name in program.outputs}
    return Outcome(program, got, expected, run)


def one_block(
    block: Block,
    inputs: Mapping[str, Clear],
    scales: Mapping[str, int],
    arguments: Mapping[str, Ring] | None = None,
) -> Program:
    """A program of one call: every input a data set, every output a register of its own."""
    registers = {
        name: Register(block.nodes[node].shape, block.nodes[node].kind)
        for name, node in block.outputs.items()
    }
    call = Call(
        block,
        {name: Ref(name) for name in block.inputs},
        dict(arguments or {}),
        {name: Ref(name) for name in block.outputs},
    )
    return Program(
        name=block.name,
        parties=block.parties,
        registers=registers,
        inputs={
            k: Input(k, v.values.shape[0], v.values.shape[1], v.scale) for k, v in inputs.items()
        },
        rounds=[TrainingRound("only", lambda: [call], 1)],
        outputs={k: Output(k, r.shape, scales[k], ()) for k, r in registers.items()},
    )


def traced(
    function: Callable[..., Secret], inputs: Sequence[Clear], parties: int, scale: int | None = None
) -> Program:
    """The program that hands `function` of its inputs to the register "y"."""
    trace = Trace("test", parties)
    named = {f"x{i}": clear for i, clear in enumerate(inputs)}
    secrets = [trace.input(k, c.values.shape, c.scale, c.bound) for k, c in named.items()]
    result = function(*secrets)
    scale = result.scale if scale is None else scale
    trace.output("y", result, scale)
    return one_block(trace.freeze(), named, {"y": scale})


def evaluate(
    function: Callable[..., Secret],
    inputs: Sequence[Clear],
    parties: int,
    seed: int = 1,
    scale: int | None = None,
) -> Outcome:
    """`function` of shared inputs, as output "y" at `scale` (None: as it comes)."""
    program = traced(function, inputs, parties, scale)
    clear = {f"x{i}": c.values.view(np.uint64) for i, c in enumerate(inputs)}
    return execute(program, clear, seed)


def block_of(program: Program, k: int = 0) -> Block:
    """The block of the first call of training round `k`."""
    return next(iter(program.rounds[k].calls())).block
