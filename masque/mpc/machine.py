"""What the interpreters have in common: linear operations, and the walk through a block.

An interpreter is a `Machine` with one method for each operation that is not linear. The method's
name is the operation's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from masque.mpc import ring
from masque.mpc.correlations import Layout
from masque.mpc.graph import Block, Kind, Node, Step
from masque.mpc.indexing import key_of
from masque.mpc.program import Call, Program, Ref, Rows
from masque.mpc.types import Array, Ring

Value = Any  # what an interpreter holds for a node
Values = dict[int, Value]
Action = Callable[[Values, Mapping[str, Array]], Value]
Plan = tuple[Step, list[tuple[int, Action]]]


def linear(node: Node, parts: Sequence[Array], public: Sequence[Array], *, constant: bool) -> Ring:
    """A linear operation on uint64 arrays.

    `parts`: the secret operands (values, shares, opened differences or masks: the function is the
    same), `public`: the public ones. `constant`: whether this array carries the public addend; of
    all the arrays that sum to a value, exactly one does.
    """
    x = parts[0]
    match node.op:
        case "add":
            return np.add(x, parts[1])
        case "subtract":
            return np.subtract(x, parts[1])
        case "times":
            factor = node.params[0]
            assert isinstance(factor, int)
            return x * np.uint64(factor % (1 << 64))
        case "add_public":
            if not constant:
                return np.broadcast_to(x, node.shape)
            factor = node.params[0]
            assert isinstance(factor, int)
            return np.add(x, public[0] * np.uint64(factor % (1 << 64)))
        case "times_public":
            return np.multiply(x, public[0])
        case "matmul_public":
            return ring.matmul(x, public[0])
        case "sum":
            axis, keepdims = node.params
            return np.asarray(np.sum(x, axis=axis, keepdims=keepdims, dtype=np.uint64))  # type: ignore[call-overload]
        case "transpose":
            axes: Any = node.params[0] if node.params else None
            return x.transpose(axes)
        case "reshape":
            return x.reshape(node.shape)
        case "broadcast":
            return np.broadcast_to(x, node.shape)
        case "index":
            return np.asarray(x[key_of(node.params)])
        case "concat":
            (axis,) = node.params
            return np.concatenate(parts, axis=axis)  # type: ignore[call-overload,no-any-return]
        case "place":
            result = np.zeros(node.shape, dtype=np.uint64)
            for part, index in zip(parts, node.params, strict=True):
                assert isinstance(index, tuple)
                result[key_of(index)] = part
            return result
    raise AssertionError(f"no operation {node.op!r}")


LINEAR = frozenset(
    {"add", "subtract", "times", "add_public", "times_public", "matmul_public", "sum"}
) | {"transpose", "reshape", "broadcast", "index", "concat", "place"}


def _argument(node: Node, arguments: Mapping[str, Array]) -> Ring:
    """A public argument of this call, held to the shape and the bound that the block relies on."""
    name, limit = node.params
    value = arguments[str(name)]
    assert isinstance(limit, int)
    assert value.shape == node.shape, f"argument {name!r} has shape {value.shape}"
    assert np.abs(value.view(np.int64)).max(initial=0) <= limit, f"argument {name!r} is too large"
    return value


def chosen(array: Array, rows: Rows) -> Array:
    """Rows of an array; those chosen by an index array are copies."""
    return array.take(rows, axis=0) if isinstance(rows, np.ndarray) else array[rows]


class Machine(ABC):
    """Runs the calls of one program; subclasses say what each operation does."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.registers: dict[str, Value] = {}
        self._layouts: dict[bytes, Layout] = {}
        self._plans: dict[bytes, list[Plan]] = {}

    def layout(self, block: Block) -> Layout:
        """Where the block's material lies, computed once a block."""
        found = self._layouts.get(block.digest)
        if found is None:
            found = self._layouts[block.digest] = Layout(block)
        return found

    def run(self, call: Call) -> None:
        """Run one call: bind, walk the schedule, store all outputs."""
        with np.errstate(over="ignore"):  # numpy warns of single elements that wrap
            self._run(call)

    def _run(self, call: Call) -> None:
        block = call.block
        values: Values = {}
        for name, node_id in block.inputs.items():
            values[node_id] = self._input(block.nodes[node_id], call, name)
        for step, actions in self._plan(block):
            for node_id, action in actions:
                values[node_id] = action(values, call.arguments)
            if step.opened:
                self.open(step.opened, values, block)
            for node_id in step.drop:
                values.pop(node_id, None)
        for name in block.views:  # before the first register changes
            values[block.outputs[name]] = self.copied(values.get(block.outputs[name]))
        for name, node_id in block.outputs.items():
            self.store(call.outputs[name], values.get(node_id), self._drawn_at(block, node_id))

    def _drawn_at(self, block: Block, node_id: int) -> int | None:
        """Where the mask of a masked value lies in the call's stream, if it lies there as it is."""
        if block.nodes[node_id].op != "mask":
            return None
        return self.layout(block).deals[node_id][0][1]

    def _input(self, node: Node, call: Call, name: str) -> Value:
        ref = call.inputs[name]
        if ref.name in self.program.inputs:
            assert ref.rows is None or isinstance(ref.rows, slice)
            return self.read_input(ref.name, ref.rows or slice(None), node)
        return self.load(ref)

    def _plan(self, block: Block) -> list[Plan]:
        """What to do for every node of a block, decided once a block."""
        plan = self._plans.get(block.digest)
        if plan is None:
            plan = self._plans[block.digest] = []
            for step in block.steps:
                actions = ((n.id, self.action(n, block)) for n in step.local if n.op != "input")
                plan.append((step, [(i, action) for i, action in actions if action]))
        return plan

    def action(self, node: Node, block: Block) -> Action | None:
        """How this interpreter computes a local node; None if it holds nothing for it."""
        if node.op == "constant":
            index = node.params[0]
            assert isinstance(index, int)
            constant = block.constants[index]
            return lambda values, arguments: constant
        if node.op == "argument":
            return lambda values, arguments: _argument(node, arguments)
        if node.op in LINEAR:
            secret = [i for i in node.args if block.nodes[i].kind is not Kind.PUBLIC]
            public = [i for i in node.args if block.nodes[i].kind is Kind.PUBLIC]
            return lambda values, arguments: self.linear(
                node, [values[i] for i in secret], [values[i] for i in public]
            )
        operation = getattr(self, node.op)
        return lambda values, arguments: operation(node, values)

    @abstractmethod
    def linear(self, node: Node, secrets: Sequence[Value], public: Sequence[Array]) -> Value:
        """A linear operation on what this interpreter holds."""

    @abstractmethod
    def open(self, nodes: Sequence[Node], values: Values, block: Block) -> None:
        """Open `nodes` together and put the results into `values`."""

    @abstractmethod
    def read_input(self, name: str, rows: slice, node: Node) -> Value:
        """What this interpreter holds of rows of a data set."""

    @abstractmethod
    def load(self, ref: Ref) -> Value:
        """What this interpreter holds of (rows of) a register."""

    def copied(self, value: Value) -> Value:
        """The same value in memory of its own."""
        return None if value is None else np.array(value)

    @abstractmethod
    def store(self, ref: Ref, value: Value, drawn_at: int | None) -> None:
        """Write (rows of) a register; `drawn_at`: see `_drawn_at`."""
