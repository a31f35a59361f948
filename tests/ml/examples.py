"""Data sets as their owners would encode them, tasks on them, and ways to run a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

from masque.ml.task import Kind as ModelKind
from masque.ml.task import Table, Task
from masque.ml.training import build
from masque.mpc import inprocess, prg, sharing
from masque.mpc.cost import cost
from masque.mpc.doors import Source
from masque.mpc.graph import Block, Kind
from masque.mpc.plain import Plain
from masque.mpc.program import Call, Program, Ref, Register
from masque.mpc.types import Array, Ring

Reals = NDArray[np.float64]
Signed = NDArray[np.int64]
DATA_SCALE = 24


def to_unit(x: Reals) -> Reals:
    """Columns by their range to [-1, 1], as schemas do by a public one."""
    low, high = x.min(axis=0), x.max(axis=0)
    return np.asarray((x - (low + high) / 2) / np.maximum((high - low) / 2, 1e-9))


def one_hot(labels: NDArray[np.int64]) -> Reals:
    """A column of 0 or 1 a class."""
    return np.asarray(labels[:, None] == np.arange(labels.max() + 1), dtype=np.float64)


@cache
def dataset(name: str) -> Reals:
    """Encoded rows [rows, features + classes], labels last."""
    loaded = getattr(datasets, f"load_{name}")()
    if name == "diabetes":
        return np.hstack([to_unit(loaded.data), to_unit(loaded.target[:, None])])
    y = (1.0 - loaded.target)[:, None] if name == "breast_cancer" else one_hot(loaded.target)
    return np.hstack([to_unit(loaded.data), y])


KINDS: Mapping[str, ModelKind] = {
    "diabetes": "linear",
    "breast_cancer": "logistic",
    "digits": "softmax",
    "wine": "softmax",
}


def task_on(table: Reals, kind: ModelKind, classes: int, **changes: Any) -> Task:
    """A task on a table split between two owners by rows; 20 % held out if there are metrics."""
    count, features = len(table), table.shape[1] - classes
    first = count // 2
    fields: dict[str, Any] = {
        "name": "job",
        "parties": 2,
        "kind": kind,
        "tables": (
            Table("a", first, features, classes),
            Table("b", count - first, features, classes),
        ),
        "stacked": True,
        "feature_bounds": (1.0,) * features,
        "validation_rows": 0,
        "holdout_rows": round(0.2 * count) if changes.get("metrics") else 0,
        "learning_rates": (0.1,) * 5,
        "batch_size": 32,
        "seed": 7,
        "metrics_to": ("analyst",) if changes.get("metrics") else (),
        "model_to": ("analyst",),
    }
    fields |= changes
    spared = fields["holdout_rows"] + fields["validation_rows"]
    return Task(**{"training_rows": count - spared} | fields)


def task(name: str, **changes: Any) -> Task:
    """A task on one of the data sets."""
    table, kind = dataset(name), KINDS[name]
    return task_on(table, kind, 1 if kind != "softmax" else table_classes(name), **changes)


def table_classes(name: str) -> int:
    """Columns of one-hot labels."""
    return {"digits": 10, "wine": 3}[name]


def encoded(task: Task, table: Reals) -> dict[str, Ring]:
    """The inputs of a task's program in the clear: fixed point, by table."""
    whole = np.rint(table * 2.0**DATA_SCALE).astype(np.int64).view(np.uint64)
    if not task.stacked:
        return _by_columns(task, whole)
    ends = np.cumsum([part.rows for part in task.tables])[:-1]
    return {t.name: part for t, part in zip(task.tables, np.split(whole, ends), strict=True)}


def _by_columns(task: Task, whole: Ring) -> dict[str, Ring]:
    found, start = {}, 0
    for table in task.tables:
        columns = [*range(start, start + table.features)]
        columns += [*range(task.features, whole.shape[1])] if table.labels else []
        found[table.name] = np.ascontiguousarray(whole[:, columns])
        start += table.features
    return found


@dataclass(frozen=True)
class Result:
    """Outputs and openings as real numbers (openings of bits as they are)."""

    program: Program
    outputs: dict[str, Reals]
    opened: dict[str, Ring]

    def weights(self) -> Reals:
        """Of the design matrix: those of the features, then the intercept."""
        parts = [self.outputs["weights"]]
        if "intercept" in self.outputs:
            parts.append(self.outputs["intercept"][None])
        return np.vstack(parts)

    def metric(self, name: str) -> Reals:
        """A metric."""
        return self.outputs[f"metric:{name}"]


def plainly(task: Task, table: Reals, **inputs: Ring) -> Result:
    """Run a task's program in the clear."""
    program, clear = build(task), encoded(task, table) | inputs
    plain = Plain(program, lambda name, rows: clear[name][rows])
    plain.run_program()
    outputs = {name: real(program, name, plain.output(name)) for name in program.outputs}
    return Result(program, outputs, plain.opened)


def real(program: Program, name: str, value: Ring) -> Reals:
    """An output as real numbers."""
    return np.asarray(value.view(np.int64) / 2.0 ** program.outputs[name].scale)


def seeds(parties: int, number: int = 0) -> list[bytes]:
    """A seed for each party."""
    return [prg.derive(bytes(32), "tests of learning", number, i) for i in range(parties)]


def sources(parties: int, clear: Mapping[str, Ring]) -> list[Source]:
    """What the stores of the parties would give: shares."""
    draw = prg.reader(prg.derive(bytes(32), "shares of tests"))
    shares = {name: sharing.split(value, parties, draw) for name, value in clear.items()}

    def source(party: int) -> Source:
        return lambda name, rows: shares[name][party][rows]

    return [source(party) for party in range(parties)]


def together(task: Task, table: Reals, **inputs: Ring) -> tuple[Result, inprocess.Run]:
    """Run a task among its parties, in threads; traffic is held against its cost."""
    program, clear = build(task), encoded(task, table) | inputs
    run = inprocess.run(program, sources(task.parties, clear), seeds(task.parties))
    planned = cost(program)
    if not run.parties[0].stopped:
        assert run.meeting.rounds == [planned.rounds] * task.parties
        assert run.meeting.sent == [planned.sent] * task.parties
    assert tuple(stock.received for stock in run.stocks) == planned.corrections
    outputs = {
        name: real(program, name, sharing.join([party.output(name) for party in run.parties]))
        for name in program.outputs
    }
    opened = run.parties[0].opened
    for party in run.parties[1:]:
        assert party.opened.keys() == opened.keys()
        assert all(np.array_equal(party.opened[name], opened[name]) for name in opened)
    return Result(program, outputs, opened), run


def run_block(
    block: Block, values: Mapping[str, Ring], arguments: Mapping[str, Array] | None = None
) -> dict[str, Signed]:
    """Run one block in the clear on ring elements; its outputs as signed whole numbers."""
    shapes = {name: block.nodes[node].shape for name, node in block.outputs.items()}
    registers = {name: Register(value.shape, Kind.SHARE) for name, value in values.items()}
    registers |= {f"out {name}": Register(shape, Kind.SHARE) for name, shape in shapes.items()}
    plain = Plain(Program("block", 2, registers, {}, (), {}), lambda name, rows: values[name])
    plain.registers |= values
    outputs = {name: Ref(f"out {name}") for name in block.outputs}
    plain.run(Call(block, {name: Ref(name) for name in block.inputs}, arguments or {}, outputs))
    return {name: plain.registers[f"out {name}"].view(np.int64) for name in block.outputs}
