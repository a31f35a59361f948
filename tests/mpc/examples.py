"""Programs that several tests of the core run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from masque.mpc import functions
from masque.mpc.graph import Kind
from masque.mpc.program import Call, Input, Output, Program, Ref, Register, TrainingRound
from masque.mpc.secret import Secret, product
from masque.mpc.trace import Trace
from masque.mpc.types import Ring
from tests.mpc.harness import Clear, one_block


def epochs(parties: int, count: int = 6) -> Program:
    """Training in small: rows masked once, weights once an update, two blocks in turn."""
    blocks = []
    for rows in (7, 3):
        trace = Trace(f"step of {rows}", parties)
        x = trace.input("x", (rows, 4), 16, 4.0, masked=True)
        w = trace.input("w", (4, 1), 16, 4.0, masked=True)
        gradient = (x.T @ functions.sigmoid(x @ w).at(16)).at(16)
        trace.output("w", (w - gradient.scaled(0.01, 16)).bounded(4.0), 16, masked=True)
        blocks.append(trace.freeze())
    load = Trace("load", parties)
    load.output("x", load.input("data", (10, 4), 16, 4.0), 16, masked=True)
    loading = Call(load.freeze(), {"data": Ref("data")}, {}, {"x": Ref("x")})
    parts = [slice(0, 7), slice(7, 10)]

    def steps() -> list[Call]:
        return [
            Call(block, {"x": Ref("x", part), "w": Ref("w")}, {}, {"w": Ref("w")})
            for block, part in zip(blocks, parts, strict=True)
        ]

    return Program(
        name="epochs",
        parties=parties,
        registers={"x": Register((10, 4), Kind.MASKED), "w": Register((4, 1), Kind.MASKED)},
        inputs={"data": Input("data", 10, 4, 16)},
        rounds=[
            TrainingRound("prepare", lambda: [loading], 1),
            *(TrainingRound(f"epoch {k + 1}", steps, 2) for k in range(count)),
        ],
        outputs={"w": Output("w", (4, 1), 16, ())},
    )


def rows_of_data(seed: int, rows: int = 10, columns: int = 4) -> Ring:
    """Data for `epochs`: whole numbers at scale 16, below 4."""
    rng = np.random.default_rng(seed)
    return rng.integers(-(1 << 18), 1 << 18, (rows, columns)).view(np.uint64)


def _convolved(x: Secret, y: Secret) -> Secret:
    """All three products of a convolution, of matrices of the same shape as images."""
    (m, n), common = x.shape, ((1, 2), (1, 0))
    images, kernel = x.reshape(1, 1, m, n), y[:2, :2].reshape(1, 1, 2, 2)
    z = product("conv2d", images, kernel, params=common).at(16)
    dx = product("conv2d_input", z, kernel, params=(*common, (m, n)))
    dw = product("conv2d_weights", images, z, params=(*common, (2, 2)))
    return dx.sum() + dw.sum()


def everything(parties: int, shape: tuple[int, int] = (6, 3)) -> Program:
    """One block with every operation that deals or opens something but `reveal`."""
    trace = Trace("everything", parties)
    x, y = (trace.input(name, shape, 16, 8.0) for name in ("x", "y"))
    narrow = trace.input("narrow", shape, 16, 8.0)
    outputs: Mapping[str, Secret] = {
        "cut": narrow.at(8),
        "scaled": (narrow + y).scaled(0.3, 12),
        "product": x * y,
        "matrix": x.T @ y,
        "dots": x.column_dot(y),
        "row dots": x.row_dot(y),
        "convolution": _convolved(x, y),
        "relu": functions.relu(x),
        "relu cut": functions.relu(narrow, 9),
        "coarse": functions.less(narrow, 0.5, resolution=12).value(),
        "narrow ends": ((x * y).at(12) * narrow + functions.sigmoid(x)).scaled(0.7, 8),
        "narrow relu": (functions.relu(y, 12) * x).at(8),
        "equal": functions.equals(x, 1.0).value(),
        "sigmoid": functions.sigmoid(y),
        "every": functions.every(functions.less(x)).value(),
    }
    for name, value in outputs.items():
        trace.output(name, value, value.scale)
    block = trace.freeze()
    clear = Clear(np.zeros(shape, dtype=np.int64), 16, 8.0)
    scales = {name: value.scale for name, value in outputs.items()}
    return one_block(block, dict.fromkeys(("x", "y", "narrow"), clear), scales)
