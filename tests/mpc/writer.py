"""Random programs: a writer that strings operations on secrets together, and tracks the error.

`Writer` makes every choice through one function `pick(n) -> 0 .. n - 1`, so hypothesis can make
(and shrink) them, or a generator of random numbers. With every value it carries how far the
parties' may be from the plain twin's: a truncation adds one ulp, products and sums pass errors on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from masque.errors import RangeError
from masque.mpc import functions
from masque.mpc.bilinear import BILINEAR
from masque.mpc.public import Public, constant
from masque.mpc.secret import Secret, concatenate, place, product
from masque.mpc.trace import Trace
from masque.mpc.types import Ring

Pick = Callable[[int], int]
SCALES = (4, 8, 12)
WAVES = 1.3e-4  # parties and plain twin are each within 6.5e-5 of the function


@dataclass(frozen=True)
class Tracked:
    """A secret and how far the parties' value may be from the plain one."""

    secret: Secret
    error: float = 0.0


@dataclass(frozen=True)
class Doubt:
    """An output that was compared with `threshold`: nothing is said where they are too close."""

    output: str
    scale: int
    threshold: float
    error: float


@dataclass
class Writer:
    """Writes a block on the values in `pool`."""

    trace: Trace
    pick: Pick
    pool: list[Tracked]
    prefix: str
    doubts: list[Doubt] = field(default_factory=list)
    arguments: dict[str, Ring] = field(default_factory=dict)

    def any(self) -> Tracked:
        """One of the values."""
        return self.pool[self.pick(len(self.pool))]

    def matrix(self) -> Tracked:
        """One of the values that are matrices."""
        found = [t for t in self.pool if len(t.secret.shape) == 2]
        return found[self.pick(len(found))]

    def like(self, x: Tracked) -> Tracked:
        """A value of the shape of x."""
        found = [t for t in self.pool if t.secret.shape == x.secret.shape]
        return found[self.pick(len(found))]

    def small(self, x: Tracked) -> Tracked:
        """The same value, narrow enough for a product."""
        if x.secret.scale > 14:
            x = self.cut(x)
        return x

    def cut(self, x: Tracked) -> Tracked:
        """x at a smaller scale."""
        scale = min(SCALES[self.pick(len(SCALES))], x.secret.scale)
        if scale == x.secret.scale:
            return x
        return Tracked(x.secret.at(scale), x.error + (2 if x.error else 1) * 2.0**-scale)

    def public(self, shape: tuple[int, ...]) -> Public:
        """A public array: a constant, or an argument of the call."""
        values = np.array([self.pick(9) - 4 for _ in range(int(np.prod(shape)))]).reshape(shape)
        if self.pick(2):
            return constant(self.trace.graph, values * 0.5, 2)
        name = f"{self.prefix}argument{len(self.arguments)}"
        self.arguments[name] = (values * 2).astype(np.int64).view(np.uint64)
        return self.trace.argument(name, shape, 2, 2.0)

    def step(self) -> None:
        """Append one value, if the ring has room for it."""
        name = OPERATIONS[self.pick(len(OPERATIONS))]
        try:
            made = getattr(self, f"op_{name}")()
        except RangeError:
            return
        if made.secret.bound * 2.0**made.secret.scale < 2.0**50:
            self.pool.append(made)

    # -- one method an operation -----------------------------------------------------------------

    def op_add(self) -> Tracked:
        x = self.any()
        y = self.like(x)
        if self.pick(2):
            return Tracked(x.secret + y.secret, x.error + y.error)
        return Tracked(x.secret - y.secret, x.error + y.error)

    def op_times(self) -> Tracked:
        x = self.small(self.any())
        factor = (-1.0, 0.5, 3.0, 0.1, -2.7)[self.pick(5)]
        return Tracked(x.secret * factor, x.error * 3.0)

    def op_scaled(self) -> Tracked:
        x = self.any()
        factor = (1.0, 0.5, 3.0, 0.1, 2.7)[self.pick(5)]
        scale = min(SCALES[self.pick(3)], x.secret.scale)
        made = x.secret.scaled(factor, scale)
        return Tracked(made, x.error * 3.0 + (2 if x.error else 1) * 2.0**-scale)

    def op_halved(self) -> Tracked:
        x = self.small(self.any())
        return Tracked(x.secret.halved(1 + self.pick(3)), x.error)

    def op_add_public(self) -> Tracked:
        x = self.any()
        shape = x.secret.shape if self.pick(2) else (*x.secret.shape[:-1], 1)
        if not x.secret.shape:
            shape = ()
        return Tracked(x.secret + self.public(shape), x.error)

    def op_times_public(self) -> Tracked:
        x = self.small(self.any())
        return Tracked(x.secret * self.public(x.secret.shape), x.error * 2.0)

    def op_matmul_public(self) -> Tracked:
        x = self.small(self.matrix())
        inner = x.secret.shape[1]
        public = self.public((inner, 1 + self.pick(3)))
        return Tracked(x.secret @ public, x.error * 2.0 * inner)

    def op_sum(self) -> Tracked:
        x = self.any()
        axes = (None, 0, (), tuple(range(len(x.secret.shape))), -1)
        axis = axes[self.pick(5 if x.secret.shape else 1)]
        made = x.secret.sum(axis, keepdims=bool(self.pick(2)))
        return Tracked(made, x.error * int(np.prod(x.secret.shape)))

    def op_transpose(self) -> Tracked:
        x = self.any()
        if len(x.secret.shape) == 2 and self.pick(2):
            raised = x.secret.reshape(1, *x.secret.shape).transpose(2, 0, -2)
            return Tracked(raised.reshape(*x.secret.shape[::-1]), x.error)
        return Tracked(x.secret.T, x.error)

    def op_reshape(self) -> Tracked:
        x = self.any()
        return Tracked(x.secret.reshape(int(np.prod(x.secret.shape)), 1), x.error)

    def op_broadcast(self) -> Tracked:
        x = self.matrix()
        return Tracked(x.secret[0].broadcast(2, x.secret.shape[1]), x.error)

    def op_index(self) -> Tracked:
        x = self.matrix()
        keys: tuple[object, ...] = (
            slice(None, None, -1),
            (slice(None), slice(0, 1)),
            0,
            (slice(0, 2), -1),
        )
        return Tracked(x.secret[keys[self.pick(len(keys))]], x.error)

    def op_concat(self) -> Tracked:
        x = self.matrix()
        y = self.like(x)
        made = concatenate([x.secret, y.secret], axis=self.pick(2))
        return Tracked(made, max(x.error, y.error))

    def op_place(self) -> Tracked:
        x = self.matrix()
        y = self.like(x)
        m, n = x.secret.shape
        if self.pick(2):
            return Tracked(x.secret.placed((m, n + 1), np.s_[::-1, 1:]), x.error)
        parts = [self.cut(x).secret, y.secret]  # opened in different windows
        made = place(parts, [np.s_[::2], np.arange(2 * m - 1, 0, -2)], (2 * m, n))
        return self.cut(Tracked(made, max(x.error + 2.0**-4, y.error)))

    def op_windows(self) -> Tracked:
        """Values opened in different windows, joined, and cut again."""
        x = self.matrix()
        y = self.like(x)
        self.pool += [self.cut(x), self.cut(y)]
        made = concatenate([y.secret, x.secret], axis=self.pick(2))
        return self.cut(Tracked(made, max(x.error, y.error)))

    def _product(self, x: Tracked, y: Tracked, kind: str) -> Tracked:
        products = {
            "mul": lambda: x.secret * y.secret,
            "matmul": lambda: x.secret @ y.secret.T,
            "column_dot": lambda: x.secret.column_dot(y.secret),
            "row_dot": lambda: x.secret.row_dot(y.secret),
        }
        made = products[kind]()
        terms = 1 if kind == "mul" else max(x.secret.shape)
        error = x.error * y.secret.bound + y.error * x.secret.bound + x.error * y.error
        return Tracked(made, error * terms)

    def op_mul(self) -> Tracked:
        x = self.small(self.any())
        return self._product(x, self.like(x), "mul")

    def op_matmul(self) -> Tracked:
        x = self.small(self.matrix())
        return self._product(x, self.like(x), "matmul")

    def op_column_dot(self) -> Tracked:
        x = self.small(self.matrix())
        return self._product(x, self.like(x), "column_dot")

    def op_row_dot(self) -> Tracked:
        x = self.small(self.matrix())
        return self._product(x, self.like(x), "row_dot")

    def op_convolution(self) -> Tracked:
        """One of the three: matrices as images, or their rows, of one image, channel or result."""
        kind = ("conv2d", "conv2d_input", "conv2d_weights")[self.pick(3)]
        x = self.small(self.matrix())
        y, (m, n), stride = self.like(x), x.secret.shape, (1 + self.pick(2), 1 + self.pick(2))
        leads = ((1, 1, m, n), (m, 1, 1, n), (1, m, 1, n))
        way = self.pick(3)
        left = x.secret.reshape(*leads[way])
        right = y.secret.reshape(*leads[-way if kind == "conv2d_input" else way])
        sides = [self._side(kind, *both) for both in zip(left.shape[2:], stride, strict=True)]
        (high, ph, more), (wide, pw, less) = sides
        right = right[:, :, :high, :wide]
        params = [stride, (ph, pw), (more, less)][: 2 if kind == "conv2d" else 3]
        terms = BILINEAR[kind].terms(left.shape, right.shape, *params)
        made = product(kind, left, right, params=tuple(params))
        error = x.error * y.secret.bound + y.error * x.secret.bound + x.error * y.error
        return Tracked(made.reshape(-1, made.shape[-1]), error * terms)

    def _side(self, kind: str, size: int, stride: int) -> tuple[int, int, int]:
        """Along one axis: size of the second operand, padding, size of the result's axis."""
        padding, right = self.pick(2), 1 + self.pick(size)
        if kind == "conv2d_input":  # size: positions, right: taps
            most = (size - 1) * stride + right - 1
            padding = min(padding, most // 2)
            return right, padding, most + 1 - 2 * padding + self.pick(stride)
        spread = size + 2 * padding
        right = min(right, (spread - 1) // stride + 1)  # positions, if kind is conv2d_weights
        taps = spread - (right - 1) * stride
        return right, padding, taps - self.pick(min(stride, taps))

    def op_at(self) -> Tracked:
        return self.cut(self.any())

    def op_less(self) -> Tracked:
        return Tracked(self._less(self.any()).value())

    def _less(self, x: Tracked) -> functions.Bit:
        threshold = (0.0, 0.5, -3.0, 1.75)[self.pick(4)]
        self._doubt(x, threshold)
        bit = functions.less(x.secret, threshold)
        return ~bit if self.pick(2) else bit

    def _doubt(self, x: Tracked, threshold: float) -> None:
        if x.error:
            name = f"{self.prefix}doubt{len(self.doubts)}"
            self.trace.output(name, x.secret, x.secret.scale)
            self.doubts.append(Doubt(name, x.secret.scale, threshold, x.error))

    def op_where(self) -> Tracked:
        x = self.any()
        y, z = self.like(x), self.like(x)
        bit = self._less(z)
        if self.pick(2):
            bit = bit ^ self._less(x)
        return Tracked(functions.where(bit, x.secret, y.secret), max(x.error, y.error))

    def op_relu(self) -> Tracked:
        x = self.any()
        return Tracked(functions.relu(x.secret), x.error)

    def op_times_at(self) -> Tracked:
        x = self.any()
        y = self.like(x)
        scale = min(SCALES[self.pick(len(SCALES))], y.secret.scale)
        made = self._less(x).times_at(y.secret, scale)
        return Tracked(made, y.error + (2 if y.error else 1) * 2.0**-scale)

    def op_clip(self) -> Tracked:
        x = self.any()
        return Tracked(functions.clip(x.secret, -1.5, 2.25), x.error)

    def op_equals(self) -> Tracked:
        x = self.any()
        value = (0.0, 1.0, -0.5)[self.pick(3)]
        self._doubt(x, value)
        return Tracked(functions.equals(x.secret, value).value())

    def op_every(self) -> Tracked:
        x = self.matrix()
        return Tracked(functions.every(self._less(x)).value())

    def op_argmax(self) -> Tracked:
        x = self.matrix()
        if x.error or x.secret.shape[1] < 2 or x.secret.shape[1] > 6:
            return x
        return Tracked(functions.argmax(x.secret))

    def op_softmax(self) -> Tracked:
        x = self.matrix()
        if x.secret.shape[1] < 2 or x.secret.shape[1] > 6:
            return x
        return Tracked(functions.softmax(x.secret).at(12), x.error + 2 * WAVES + 2.0**-12)

    def op_sigmoid(self) -> Tracked:
        x = self.any()
        return Tracked(functions.sigmoid(x.secret), x.error + WAVES)


OPERATIONS = tuple(name[3:] for name in vars(Writer) if name.startswith("op_"))
