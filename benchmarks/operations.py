"""Single operations among processes: two parties with mutual TLS between them, and a dealer.

Everything together: parties and dealer begin at once, on the same cores; large ones in calls of
2^17 values, so that the dealer is ahead of the parties by a call. Then once more with the material
dealt beforehand. The dealer's corrections come through a pipe of the system instead of its gRPC
stream, which would add about a millisecond a megabyte. Rounds and bytes are exact.
"""

from __future__ import annotations

import multiprocessing
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import masque.wire.polling  # noqa: F401 - before grpc, whose settings it chooses
from benchmarks import floor, rivals
from benchmarks.figures import Figure, Outcome, median_of
from masque.mpc import functions, prg, sharing
from masque.mpc.cost import cost
from masque.mpc.dealer import Dealer
from masque.mpc.doors import Buffer, Source
from masque.mpc.party import Party
from masque.mpc.program import Call, Input, Output, Program, Ref, Register, TrainingRound
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace

PARTIES, SCALE = 2, 16
BOUND = 2.0**14
"""With 16 fraction bits and the sign: values of 31 bits, as MP-SPDZ was measured with."""

PUBLISHED = 1 << 20
"""Values an elementwise operation of the others was measured with."""

CALL_ROWS = (1 << 17) // 128


@dataclass(frozen=True)
class Operation:
    """`function` of inputs of these shapes, each element within +-`bound`; targets in s, bytes."""

    name: str
    function: Callable[..., Secret]
    shapes: Sequence[tuple[int, int]]
    bound: float
    seconds: float | None = None
    sent: float | None = None
    elementwise: bool = False


def sign(x: Secret) -> Secret:
    """1, or -1 below 0."""
    return 1 - functions.less(x).value().times(2)


def sigmoid(x: Secret) -> Secret:
    """Within 6e-4 at 16 fraction bits."""
    return functions.sigmoid(x, "coarse_sigmoid", scale=30).at(SCALE)


def operations(quick: bool) -> list[Operation]:
    """What is measured."""
    values = ((1 << 14 if quick else PUBLISHED) // 128, 128)
    share = values[0] * 128 / PUBLISHED
    sides = ((512, 0.06),) if quick else ((512, 0.06), (1024, 0.30))
    products = [
        Operation(
            f"matmul {n} x {n} x {n}",
            lambda x, y: (x @ y).at(SCALE),
            ((n, n), (n, n)),
            8.0,
            seconds,
        )
        for n, seconds in sides
    ]

    def each(name: str, function: Callable[..., Secret], s: float, sent: float | None) -> Operation:
        bytes_ = None if sent is None else sent * share
        return Operation(name, function, (values,), BOUND, s * share, bytes_, True)

    return [
        *products,
        each("relu", functions.relu, 0.45, 14e6),
        each("sign", sign, 0.35, 13e6),
        each("sigmoid", sigmoid, 1.2, None),
        Operation("softmax 128 x 10", functions.softmax, ((128, 10),), 64.0, 0.015),
    ]


def program(operation: Operation) -> Program:
    """A program of one call, or of several on parts of the rows."""
    names = [f"x{index}" for index in range(len(operation.shapes))]
    rows = operation.shapes[0][0]
    step = min(rows, CALL_ROWS) if operation.elementwise else rows
    trace = Trace(operation.name, PARTIES)
    shapes = [(step, shape[1]) if operation.elementwise else shape for shape in operation.shapes]
    pairs = zip(names, shapes, strict=True)
    inputs = [trace.input(name, shape, SCALE, operation.bound) for name, shape in pairs]
    result = operation.function(*inputs)
    trace.output("y", result, min(result.scale, 2 * SCALE))
    block = trace.freeze()
    node = block.nodes[block.outputs["y"]]
    whole = (rows, *node.shape[1:])
    calls = []
    for start in range(0, rows, step):
        part = slice(start, start + step)
        given = {name: Ref(name, part if operation.elementwise else slice(None)) for name in names}
        calls.append(Call(block, given, {}, {"y": Ref("y", part)}))
    return Program(
        name=operation.name,
        parties=PARTIES,
        registers={"y": Register(whole, node.kind)},
        inputs={
            name: Input(name, *shape, SCALE)
            for name, shape in zip(names, operation.shapes, strict=True)
        },
        rounds=[TrainingRound("only", lambda: calls, len(calls))],
        outputs={"y": Output("y", whole, result.scale, ())},
    )


def source(operation: Operation, party: int) -> Source:
    """A party's shares of random inputs."""
    random = np.random.default_rng(1)
    draw = prg.reader(prg.derive(bytes(32), "operations"))
    shares: dict[str, np.ndarray[Any, np.dtype[np.uint64]]] = {}
    for index, shape in enumerate(operation.shapes):
        clear = random.uniform(-operation.bound, operation.bound, shape) * 2.0**SCALE
        words = clear.astype(np.int64).view(np.uint64)
        shares[f"x{index}"] = sharing.split(words, PARTIES, draw)[party]
    return lambda name, rows: shares[name][rows]


def seeds() -> list[bytes]:
    """Of the parties."""
    return [prg.derive(bytes(32), "operations", index) for index in range(PARTIES)]


# -- processes ---------------------------------------------------------------------------------


class Pipe:
    """A `Supply`: corrections as the dealer's process sends them, fetched in a thread."""

    def __init__(self, connection: Connection, made: Program) -> None:
        self._items: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._fetch, args=(connection, made), daemon=True)
        self._thread.start()

    def _fetch(self, connection: Connection, made: Program) -> None:
        """One for every call: those of these programs have some for each party."""
        for _ in range(made.rounds[0].count):
            self._items.put(connection.recv_bytes())

    def keep(self) -> None:
        """Wait until everything is here."""
        self._thread.join()

    def corrections(self, position: int, size: int) -> Buffer:
        """Those of a call."""
        return self._items.get()


def party(index: int, root: Path, quick: bool, pipe: Connection, dealer: Connection) -> None:
    """One party: serve, meet the other, run what the parent asks for."""
    from benchmarks.latency import meeting
    from masque.wire.memory import keep_freed

    keep_freed()
    known = operations(quick)
    with meeting(index, root, pipe) as exchange:
        while (asked := pipe.recv()) is not None:
            number, beforehand = asked
            operation = known[number]
            made = program(operation)
            supply = Pipe(dealer, made)
            one = Party(made, index, seeds()[index], supply, exchange, source(operation, index))
            if beforehand:
                supply.keep()
            pipe.send(None)  # ready
            pipe.recv()
            exchange.swap(b"")
            began = time.perf_counter()
            one.run_round(0)
            exchange.swap(b"")
            pipe.send(time.perf_counter() - began)


def dealer(quick: bool, pipe: Connection, parties: Sequence[Connection]) -> None:
    """Deal when the parent says so."""
    from masque.wire.memory import keep_freed

    keep_freed()
    known = operations(quick)
    while (number := pipe.recv()) is not None:
        began = time.perf_counter()
        for _, parts in Dealer(program(known[number]), seeds()).deal():
            for connection, part in zip(parties, parts, strict=True):
                if part:
                    connection.send_bytes(part)
        pipe.send(time.perf_counter() - began)


class Processes:
    """Two parties and a dealer; ends them when the block is left."""

    def __init__(self, quick: bool, root: Path) -> None:
        from benchmarks.latency import introduce, issue

        issue(root, PARTIES)
        context = multiprocessing.get_context("spawn")
        links = [context.Pipe() for _ in range(PARTIES)]
        self.parties, started = [], []
        for index in range(PARTIES):
            ours, theirs = context.Pipe()
            arguments = (index, root, quick, theirs, links[index][0])
            started.append(context.Process(target=party, args=arguments))
            self.parties.append(ours)
        self.dealer, theirs = context.Pipe()
        ends = [link[1] for link in links]
        started.append(context.Process(target=dealer, args=(quick, theirs, ends)))
        for process in started:
            process.daemon = True
            process.start()
        self._started = started
        introduce(self.parties)

    def run(self, number: int, *, beforehand: bool) -> tuple[float, float]:
        """Seconds of the parties (the longer), and of the dealer."""
        if beforehand:
            self.dealer.send(number)
        for pipe in self.parties:
            pipe.send((number, beforehand))
        for pipe in self.parties:
            pipe.recv()
        if not beforehand:
            self.dealer.send(number)
        for pipe in self.parties:
            pipe.send(None)
        taken = max(pipe.recv() for pipe in self.parties)
        return taken, self.dealer.recv()

    def close(self) -> None:
        """End them."""
        for pipe in (*self.parties, self.dealer):
            pipe.send(None)
        for process in self._started:
            process.join(10)


def measure(quick: bool) -> Outcome:
    """Every operation a few times; the first time warms up."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as directory:
        processes = Processes(quick, Path(directory))
        try:
            for number, operation in enumerate(operations(quick)):
                figures += _measured(processes, number, operation, 3 if quick else 6)
        finally:
            processes.close()
    return Outcome("Operations, two parties and a dealer, a process each", figures)


def _measured(
    processes: Processes, number: int, operation: Operation, repeats: int
) -> list[Figure]:
    together = [processes.run(number, beforehand=False) for _ in range(repeats)][1:]
    before = [processes.run(number, beforehand=True) for _ in range(repeats)][1:]
    size = operation.shapes[0][0] * operation.shapes[0][1]
    share = size / PUBLISHED if operation.elementwise else 1.0
    name = f"{operation.name} of {size:,} values" if operation.elementwise else operation.name
    exact = cost(program(operation))
    published = _scaled(rivals.OPERATION_SECONDS, operation.name, share)
    sent = _scaled(rivals.OPERATION_BYTES, operation.name, share)
    return [
        median_of(
            name, [taken for taken, _ in together], "s", at_most=operation.seconds, rivals=published
        ),
        median_of("- dealt beforehand", [taken for taken, _ in before], "s"),
        Figure("- dealing it alone", statistics.median(spent for _, spent in before), "s"),
        Figure("- rounds of a call", exact.rounds / len(list(_calls(operation))), "rounds"),
        Figure("- a party sends", exact.sent, "bytes", at_most=operation.sent, rivals=sent),
        Figure("- the dealer sends, in all", sum(exact.corrections), "bytes"),
        *floor.figures(
            floor.Work(exact.multiplications, exact.sent, sum(exact.corrections), exact.rounds),
            statistics.median(taken for taken, _ in together),
        ),
    ]


def _calls(operation: Operation) -> list[Call]:
    return list(program(operation).rounds[0].calls())


def _scaled(table: dict[str, dict[str, float]], name: str, share: float) -> dict[str, float]:
    return {system: value * share for system, value in table.get(name, {}).items()}
