"""Single operations, two parties in threads of one process: rounds, bytes, seconds.

The dealer deals beforehand; nothing is encrypted on its way. So the seconds are those of both
parties' arithmetic on two cores, and what others take, with their networks, stands beside them for
scale only. Rounds and bytes are exact and are those of any network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import rivals
from benchmarks.core import meet, seats
from benchmarks.figures import Figure, Outcome, median_of
from masque.mpc import functions, inprocess, prg, sharing
from masque.mpc.cost import cost
from masque.mpc.doors import Source
from masque.mpc.program import Call, Input, Output, Program, Ref, Register, TrainingRound
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace

PARTIES, SCALE = 2, 16
BOUND = 2.0**14
"""With 16 fraction bits and the sign: values of 31 bits, as MP-SPDZ was measured with."""

PUBLISHED = 1 << 20
"""Values an elementwise operation of the others was measured with."""


@dataclass(frozen=True)
class Operation:
    """`function` of inputs of these shapes, each element within +-`bound`."""

    name: str
    function: Callable[..., Secret]
    shapes: Sequence[tuple[int, int]]
    bound: float
    elementwise: bool = False


def sign(x: Secret) -> Secret:
    """1, or -1 below 0."""
    return 1 - functions.less(x).value().times(2)


def operations(quick: bool) -> list[Operation]:
    """What is measured."""
    values = ((1 << 14 if quick else 1 << 18) // 128, 128)
    sides = (512,) if quick else (512, 1024)
    products = [
        Operation(f"matmul {n} x {n} x {n}", lambda x, y: x @ y, ((n, n), (n, n)), 8.0)
        for n in sides
    ]
    return [
        *products,
        Operation("relu", functions.relu, (values,), BOUND, True),
        Operation("sign", sign, (values,), BOUND, True),
        Operation("sigmoid", functions.sigmoid, (values,), BOUND, True),
        Operation("softmax 128 x 10", functions.softmax, ((128, 10),), 64.0),
    ]


def program(operation: Operation) -> Program:
    """A program of one call."""
    trace = Trace(operation.name, PARTIES)
    names = [f"x{index}" for index in range(len(operation.shapes))]
    inputs = [
        trace.input(name, shape, SCALE, operation.bound)
        for name, shape in zip(names, operation.shapes, strict=True)
    ]
    result = operation.function(*inputs)
    trace.output("y", result, min(result.scale, 2 * SCALE))
    block = trace.freeze()
    node = block.nodes[block.outputs["y"]]
    call = Call(block, {name: Ref(name) for name in names}, {}, {"y": Ref("y")})
    return Program(
        name=operation.name,
        parties=PARTIES,
        registers={"y": Register(node.shape, node.kind)},
        inputs={
            name: Input(name, *shape, SCALE)
            for name, shape in zip(names, operation.shapes, strict=True)
        },
        rounds=[TrainingRound("only", lambda: [call], 1)],
        outputs={"y": Output("y", node.shape, result.scale, ())},
    )


def sources(operation: Operation) -> list[Source]:
    """Shares of random inputs, one store a party."""
    random = np.random.default_rng(1)
    draw = prg.reader(prg.derive(bytes(32), "operations"))
    shares: dict[str, list[np.ndarray]] = {}
    for index, shape in enumerate(operation.shapes):
        clear = random.uniform(-operation.bound, operation.bound, shape) * 2.0**SCALE
        shares[f"x{index}"] = sharing.split(clear.astype(np.int64).view(np.uint64), PARTIES, draw)

    def source(party: int) -> Source:
        return lambda name, rows: shares[name][party][rows]

    return [source(party) for party in range(PARTIES)]


def measure(quick: bool) -> Outcome:
    """Every operation a few times; the first time warms up."""
    figures: list[Figure] = []
    for operation in operations(quick):
        figures += _measured(operation, 2 if quick else 4)
    return Outcome("Operations, two parties in one process, dealt beforehand", figures)


def _measured(operation: Operation, repeats: int) -> list[Figure]:
    made, stores = program(operation), sources(operation)
    seeds = [prg.derive(bytes(32), "operations", index) for index in range(PARTIES)]
    computing, dealing = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        stocks = inprocess.stock(made, seeds)
        dealt = time.perf_counter()
        meet(made, seats(PARTIES), stocks, seeds, stores)
        computing.append(time.perf_counter() - dealt)
        dealing.append(dealt - began)
    size = operation.shapes[0][0] * operation.shapes[0][1]
    share = size / PUBLISHED if operation.elementwise else 1.0
    name = f"{operation.name} of {size:,} values" if operation.elementwise else operation.name
    exact = cost(made)
    return [
        median_of(name, computing[1:], "s",
                  rivals=_scaled(rivals.OPERATION_SECONDS, operation.name, share)),
        median_of("- dealing it", dealing[1:], "s"),
        Figure("- rounds", exact.rounds, "rounds"),
        Figure("- a party sends", exact.sent, "bytes",
               rivals=_scaled(rivals.OPERATION_BYTES, operation.name, share)),
        Figure("- the dealer sends, in all", sum(exact.corrections), "bytes"),
    ]  # fmt: skip


def _scaled(table: dict[str, dict[str, float]], name: str, share: float) -> dict[str, float]:
    return {system: value * share for system, value in table.get(name, {}).items()}
