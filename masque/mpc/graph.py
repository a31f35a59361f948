"""A traced program block: values as nodes of a graph, openings scheduled into rounds.

A block is written once as Python on `Secret` values (`masque.mpc.secret`), traced from shapes
alone, and then run many times by every interpreter. Tracing first is what lets independent
openings leave in one message: the round of an opening is its depth in the graph, so everything
that can be opened together is.

Kinds of values, and what each interpreter holds for them (`i` is the party's index):

    kind     party i                          dealer    plain
    PUBLIC   the array                        same      same
    SHARE    [x]_i                            nothing   x
    MASKED   d = x - a, opened; [a]_i         a         x
    WORDS    XOR shares of products of bits   nothing   nothing
    PAIRS    XOR shares of (less, equal)      nothing   (less, equal)
    NODES    opened masked pairs; WORDS       nothing   (less, equal)
    BITS     XOR share of a bit               nothing   the bit
    FLAG     beta = b xor m, opened; [m]_i    m         the bit
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from math import prod

import numpy as np

from masque.mpc.narrow import narrowed
from masque.mpc.types import Array, Shape


class Kind(Enum):
    """What a node's value is; see the table in the module docstring."""

    PUBLIC = "public"
    SHARE = "share"
    MASKED = "masked"
    WORDS = "words"
    PAIRS = "pairs"
    NODES = "nodes"
    BITS = "bits"
    FLAG = "flag"


Params = tuple[object, ...]

# Operations whose result is public only after everyone's contribution has arrived.
OPENINGS = frozenset({"mask", "mask_pairs", "mask_bit", "every", "reveal"})

# Linear operations that only move elements: a narrow opening passes through them unharmed.
MOVES = frozenset({"reshape", "transpose", "index", "broadcast", "concat", "place"})

# Operations whose result may be a view of an operand's memory.
VIEWS = MOVES | {"add_public", "unmask"}


@dataclass(frozen=True, slots=True)
class Node:
    """One value: the operation that makes it, its operands' ids, and its static parameters.

    `bits`: how many of its low bits anything uses (`masque.mpc.narrow`), known in a frozen block.
    """

    id: int
    op: str
    args: tuple[int, ...]
    kind: Kind
    shape: Shape
    params: Params = ()
    bits: int = 64

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Step:
    """Nodes computed locally, then nodes opened together in one message; `drop` is then dead."""

    local: tuple[Node, ...]
    opened: tuple[Node, ...]
    drop: tuple[int, ...]


@dataclass
class Graph:
    """A block under construction, then frozen: nodes in the order they were traced.

    `magnitudes`: what the numbers of every value keep within, for those who account for them.
    """

    name: str
    parties: int
    nodes: list[Node] = field(default_factory=list)
    constants: list[Array] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    magnitudes: list[float] = field(default_factory=list)

    def add(
        self, op: str, args: tuple[int, ...], kind: Kind, shape: Shape, params: Params = ()
    ) -> int:
        """Append a node; returns its id."""
        node = Node(len(self.nodes), op, args, kind, shape, params)
        self.nodes.append(node)
        return node.id

    def constant(self, value: Array) -> int:
        """A public array known while tracing, as a node."""
        self.constants.append(np.array(value, order="C"))
        index = len(self.constants) - 1
        return self.add("constant", (), Kind.PUBLIC, value.shape, (index,))

    def demand(self, node_id: int, low: int, high: int) -> None:
        """Widen the opening that `node_id` rests on so that it holds bits `low` to `high` - 1.

        A mask node's last two parameters are its window. Through a linear combination a window
        keeps its meaning only when it is the whole ring; through moves it always does.
        """
        node = self.nodes[node_id]
        if node.op == "mask":
            now_low, now_high = self.window(node)
            window = (min(low, now_low), max(high, now_high))
            self.nodes[node_id] = replace(node, params=window)
        elif node.op != "input":
            if node.op not in MOVES:
                low, high = 0, 64
            for arg in node.args:
                if self.nodes[arg].kind is Kind.MASKED:
                    self.demand(arg, low, high)

    @staticmethod
    def window(node: Node) -> tuple[int, int]:
        """The bits (low, high) that a mask node opens."""
        low, high = node.params
        assert isinstance(low, int) and isinstance(high, int)
        return low, high

    def freeze(self) -> Block:
        """Drop what no output needs, and schedule the rest."""
        return Block(self)


def _levels(nodes: list[Node]) -> dict[int, int]:
    """Depth of every node in openings: the number of messages that must have arrived before."""
    levels: dict[int, int] = {}
    ready: dict[int, int] = {}
    for node in nodes:
        level = max((ready[arg] for arg in node.args), default=0)
        levels[node.id] = level
        ready[node.id] = level + (node.op in OPENINGS)
    return levels


class Block:
    """A frozen graph with its schedule. `steps` run in order, each ends in at most one message."""

    def __init__(self, graph: Graph) -> None:
        self.name = graph.name
        self.parties = graph.parties
        self.constants = tuple(graph.constants)
        self.inputs = dict(graph.inputs)
        self.outputs = dict(graph.outputs)
        needed = narrowed(self._needed(graph), graph.outputs.values())
        self.nodes = {node.id: node for node in needed}
        self.steps = tuple(self._schedule())
        self.views = self._views()
        self.largest = max(graph.magnitudes, default=0.0)
        self.digest = self._digest()

    @staticmethod
    def _needed(graph: Graph) -> list[Node]:
        wanted = set(graph.outputs.values()) | set(graph.inputs.values())
        wanted |= {node.id for node in graph.nodes if node.op == "reveal"}
        for node in reversed(graph.nodes):
            if node.id in wanted:
                wanted.update(node.args)
        return [node for node in graph.nodes if node.id in wanted]

    def _schedule(self) -> Iterator[Step]:
        nodes = list(self.nodes.values())
        levels = _levels(nodes)
        last_use = {node.id: levels[node.id] for node in nodes}
        for node in nodes:
            for arg in node.args:
                last_use[arg] = max(last_use[arg], levels[node.id])
        kept = set(self.outputs.values())
        for level in range(max(levels.values(), default=-1) + 1):
            here = [node for node in nodes if levels[node.id] == level]
            yield Step(
                local=tuple(node for node in here if node.op not in OPENINGS),
                opened=tuple(node for node in here if node.op in OPENINGS),
                drop=tuple(i for i, last in last_use.items() if last == level and i not in kept),
            )

    def _views(self) -> tuple[str, ...]:
        """Outputs that may be views of an input's register, where several are stored."""
        found = set(self.inputs.values())
        for node in self.nodes.values():
            if node.op in VIEWS and not found.isdisjoint(node.args):
                found.add(node.id)
        names = tuple(name for name, node_id in self.outputs.items() if node_id in found)
        return names if len(self.outputs) > 1 else ()

    def _digest(self) -> bytes:
        text = hashlib.sha256()
        text.update(repr((self.name, self.parties, self.inputs, self.outputs)).encode())
        for node in self.nodes.values():
            fields = (node.id, node.op, node.args, node.kind.value, node.shape, node.params)
            text.update(repr((*fields, node.bits)).encode())
        for constant in self.constants:
            text.update(repr((constant.dtype.str, constant.shape)).encode())
            text.update(constant.tobytes())
        return text.digest()

    @property
    def rounds(self) -> int:
        """Messages every party sends when the block runs."""
        return sum(1 for step in self.steps if step.opened)
