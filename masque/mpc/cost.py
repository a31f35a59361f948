"""The `cost` interpreter: exact rounds, bytes and multiplications of a program, from shapes.

It runs nothing: every figure follows from the blocks' schedules and layouts. Tests hold it
against the traffic of real runs, byte for byte. What else a time depends on is counted as well:
calls, nodes and the elements that nodes make.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import log2

from masque.mpc.bilinear import multiplications
from masque.mpc.correlations import Layout, opened_bits
from masque.mpc.graph import Block, Kind, Node
from masque.mpc.packing import packed_size
from masque.mpc.program import Program

MADE_BEFORE = frozenset({"input", "constant", "argument"})
FREE = frozenset({"reshape", "transpose", "broadcast"})


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Of one run of a block: rounds, bytes a party sends one peer, ring multiplications, bytes that
    all parties together draw, nodes that are run, the elements they make, and the largest number
    that may occur.
    """

    rounds: int
    sent: int
    multiplications: int
    drawn: int
    nodes: int
    elements: int
    largest: float


@dataclass(frozen=True, slots=True)
class RoundCost:
    """Of one training round.

    `rounds`: messages each party sends each peer; `sent`: their bytes, to one peer;
    `corrections`: bytes the dealer sends each party; `drawn`: bytes each party expands its seed
    to, the mean of all; `multiplications`: of ring elements, at one party (the dealer: about half);
    `calls`: blocks run; `nodes`: operations run; `elements`: numbers that they compute; `bits`: of
    the ring, that the largest number takes which may occur.
    """

    name: str
    rounds: int
    sent: int
    corrections: tuple[int, ...]
    drawn: int
    multiplications: int
    calls: int
    nodes: int
    elements: int
    bits: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a program, a training round at a time; totals are properties."""

    parties: int
    rounds_by_name: tuple[RoundCost, ...]

    @property
    def rounds(self) -> int:
        """Messages each party sends each peer over the whole job."""
        return sum(r.rounds for r in self.rounds_by_name)

    @property
    def sent(self) -> int:
        """Bytes each party sends each peer."""
        return sum(r.sent for r in self.rounds_by_name)

    @property
    def corrections(self) -> tuple[int, ...]:
        """Bytes the dealer sends each party."""
        columns = zip(*(r.corrections for r in self.rounds_by_name), strict=True)
        return tuple(sum(column) for column in columns)

    @property
    def multiplications(self) -> int:
        """Ring multiplications at one party."""
        return sum(r.multiplications for r in self.rounds_by_name)


def block_cost(block: Block, layout: Layout) -> BlockCost:
    """What one run of a block costs a party."""
    sent = 0
    for step in block.steps:
        for node in step.opened:
            if node.size:
                sent += packed_size(node.size, opened_bits(block, node))
    work = 0
    for node in block.nodes.values():
        if node.op == "product":
            x, y = (block.nodes[arg].shape for arg in node.args)
            work += 2 * multiplications(node.params, x, y)
    run = [node for node in block.nodes.values() if node.op not in MADE_BEFORE]
    elements = sum(made(node) for node in run)
    return BlockCost(block.rounds, sent, work, layout.expanded, len(run), elements, block.largest)


def made(node: Node) -> int:
    """Numbers that a party computes for a node: of a masked value its opened part and the mask's
    share, of a view none.
    """
    if node.op in FREE:
        return 0
    return node.size * (2 if node.kind is Kind.MASKED else 1)


def cost(program: Program) -> Cost:
    """The exact cost of every training round of a program, early stop aside."""
    layouts: dict[bytes, Layout] = {}
    blocks: dict[bytes, BlockCost] = {}
    result = []
    position = 0
    for training_round in program.rounds:
        rows: list[BlockCost] = []
        corrections = [0] * program.parties
        for call in training_round.calls():
            key = call.block.digest
            if key not in blocks:
                layouts[key] = Layout(call.block)
                blocks[key] = block_cost(call.block, layouts[key])
            rows.append(blocks[key])
            for party in range(program.parties):
                corrections[party] += layouts[key].corrected(position, party)
            position += 1
        result.append(_total(training_round.name, rows, corrections))
    return Cost(program.parties, tuple(result))


def _total(name: str, rows: Iterable[BlockCost], corrections: list[int]) -> RoundCost:
    rows = list(rows)
    return RoundCost(
        name=name,
        rounds=sum(row.rounds for row in rows),
        sent=sum(row.sent for row in rows),
        corrections=tuple(corrections),
        drawn=-(-sum(row.drawn for row in rows) // len(corrections)),
        multiplications=sum(row.multiplications for row in rows),
        calls=len(rows),
        nodes=sum(row.nodes for row in rows),
        elements=sum(row.elements for row in rows),
        bits=log2(max([1.0, *(row.largest for row in rows)])),
    )
