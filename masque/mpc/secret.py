"""`Secret` values: what a training program is written on.

A `Secret` stands for an array of secret fixed-point numbers: `shape`, `scale` (fraction bits) and
`bound` (no element is ever larger in magnitude; the program is refused where that would leave the
ring). Its operators append nodes to the block that is being traced; nothing is computed here, so
nothing can depend on a value: `bool()`, `int()`, `float()` and iteration raise.

A mask belongs to a value, not to a gate: the first product, truncation, comparison or smooth
function of a secret opens d = x - a once, and every later one shares it. Linear functions of
masked values are masked already: their opened form and mask are the same functions of their
operands' (`Secret.masked`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, frexp, inf, log2
from typing import NoReturn

import numpy as np

from masque.errors import RangeError
from masque.mpc.bilinear import BILINEAR
from masque.mpc.graph import MOVES, Graph, Kind
from masque.mpc.indexing import indexed, placements
from masque.mpc.public import Public, constant, encode_factor
from masque.mpc.scaling import RING_BITS, truncation_window
from masque.mpc.types import Array, Shape

CONSTANT_BITS = 20  # precision of public factors, relative
FACTOR_BITS = 24  # the same for factors applied within a truncation
MAXIMUM_FACTOR_BITS = 30
CARRIED = frozenset({"reshape", "transpose", "broadcast", "place"})  # masked through their operand


def _fits(scale: int, bound: float, what: str) -> None:
    if bound * 2.0**scale >= 2.0**RING_BITS and bound != inf:
        raise RangeError(
            f"{what} could reach {bound:.6g}, which at {scale} fraction bits leaves the ring.",
            hint="Use tighter ranges or weight bounds, smaller batches, or a smaller scale.",
        )


Recipe = tuple[str, tuple["Secret | Public", ...], tuple[object, ...]]


@dataclass
class Forms:
    """The nodes of one array of ring elements, under whatever names: each form is made once.

    `words`: dealt products of the bits (low, length) of the mask.
    """

    share: int | None
    masked: int | None
    recipe: Recipe | None
    words: dict[tuple[int, int], int] = field(default_factory=dict)


class Secret:
    """An array of secret numbers; see the module docstring."""

    __array_ufunc__ = None  # numpy must not iterate over a secret

    def __init__(
        self,
        graph: Graph,
        shape: Shape,
        scale: int,
        bound: float,
        *,
        share: int | None = None,
        masked: int | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        _fits(scale, bound, f"A value of block {graph.name!r}")
        if bound != inf:
            graph.magnitudes.append(bound * 2.0**scale)
        self.graph, self.shape, self.scale, self.bound = graph, shape, scale, bound
        self.forms = Forms(share, masked, recipe)

    def __repr__(self) -> str:
        return f"Secret(shape={self.shape}, scale={self.scale}, bound={self.bound:.6g})"

    # -- what a secret must never do -------------------------------------------------------------

    def _refuse(self) -> NoReturn:
        raise TypeError("a Secret has no value here: control flow must not depend on secrets")

    def __bool__(self) -> bool:  # noqa: PLE0304 (it returns nothing)
        self._refuse()

    def __int__(self) -> NoReturn:
        self._refuse()

    def __float__(self) -> NoReturn:
        self._refuse()

    def __iter__(self) -> NoReturn:
        self._refuse()

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("use functions.equals: comparing secrets gives a secret bit")

    __hash__ = object.__hash__

    # -- the two forms a value takes -------------------------------------------------------------

    def share(self) -> int:
        """The node of this value's additive share."""
        forms = self.forms
        if forms.share is None:
            if forms.recipe is not None:
                op, operands, params = forms.recipe
                args = tuple(o.share() if isinstance(o, Secret) else o.node for o in operands)
                forms.share = self.graph.add(op, args, Kind.SHARE, self.shape, params)
            else:
                args = (self.masked(),)
                forms.share = self.graph.add("unmask", args, Kind.SHARE, self.shape)
        return forms.share

    def _masked_for_free(self) -> bool:
        """Whether this value is a linear function of values that are masked already."""
        if self.forms.masked is not None:
            return True
        if self.forms.recipe is None:
            return False
        secrets = [o for o in self.forms.recipe[1] if isinstance(o, Secret)]
        return all(o._masked_for_free() for o in secrets)

    def masked(self, low: int = 0, high: int = 64) -> int:
        """The node of d = x - a, with at least the bits `low` to `high` - 1 opened."""
        forms = self.forms
        if forms.masked is None:
            if forms.recipe is not None and (forms.recipe[0] in CARRIED or self._masked_for_free()):
                op, operands, params = forms.recipe
                window = (low, high) if op in MOVES else (0, 64)
                args = tuple(
                    o.masked(*window) if isinstance(o, Secret) else o.node for o in operands
                )
                forms.masked = self.graph.add(op, args, Kind.MASKED, self.shape, params)
            else:
                args = (self.share(),)
                window = (low, high)
                forms.masked = self.graph.add("mask", args, Kind.MASKED, self.shape, window)
        self.graph.demand(forms.masked, low, high)
        return forms.masked

    # -- linear functions: local, free -----------------------------------------------------------

    def linear(
        self,
        op: str,
        others: tuple[Secret | Public, ...],
        params: tuple[object, ...],
        shape: Shape,
        scale: int,
        bound: float,
    ) -> Secret:
        """A linear function of this and other values, not yet in the graph."""
        recipe = (op, (self, *others), params)
        return Secret(self.graph, shape, scale, bound, recipe=recipe)

    def _shifted(self, bits: int) -> Secret:
        if bits == 0:
            return self
        assert bits > 0
        return self.linear("times", (), (1 << bits,), self.shape, self.scale + bits, self.bound)

    def _aligned(self, other: Secret) -> tuple[Secret, Secret]:
        scale = max(self.scale, other.scale)
        return self._shifted(scale - self.scale), other._shifted(scale - other.scale)

    def __add__(self, other: Secret | Public | float | Array) -> Secret:
        return self._plus(other, 1)

    __radd__ = __add__

    def __neg__(self) -> Secret:
        return self.linear("times", (), (-1,), self.shape, self.scale, self.bound)

    def __sub__(self, other: Secret | Public | float | Array) -> Secret:
        return self._plus(other, -1)

    def __rsub__(self, other: Public | float | Array) -> Secret:
        return -self + other

    def _plus(self, other: Secret | Public | float | Array, sign: int) -> Secret:
        """self + sign * other, at the larger scale of the two."""
        if isinstance(other, Secret):
            x, y = self._aligned(other)
            shape = np.broadcast_shapes(x.shape, y.shape)
            op = "add" if sign > 0 else "subtract"
            return x.linear(op, (y,), (), shape, x.scale, x.bound + y.bound)
        if not isinstance(other, Public):
            other = constant(self.graph, other, self.scale)
        if other.scale > self.scale:
            return self._shifted(other.scale - self.scale)._plus(other, sign)
        shape = np.broadcast_shapes(self.shape, other.shape)
        params = (sign << (self.scale - other.scale),)
        bound = self.bound + other.bound
        return self.linear("add_public", (other,), params, shape, self.scale, bound)

    def _alias(self, scale: int, bound: float) -> Secret:
        """The same ring elements, read at another scale or with another bound; no node."""
        other = Secret(self.graph, self.shape, scale, bound)
        other.forms = self.forms
        return other

    def bounded(self, bound: float) -> Secret:
        """The same value with a bound that the caller can prove."""
        return self._alias(self.scale, bound)

    def halved(self, exponent: int) -> Secret:
        """x / 2^exponent, exactly: the same integers read at another scale."""
        return self._alias(self.scale + exponent, self.bound / 2.0**exponent)

    def times(self, factor: float, bits: int = CONSTANT_BITS) -> Secret:
        """x * factor for a public number, kept to `bits` significant bits (scale grows by them)."""
        integer, shift = encode_factor(factor, bits)
        if shift < -self.scale:
            integer, shift = integer << (-self.scale - shift), -self.scale
        scale, bound = self.scale + shift, self.bound * abs(integer) * 2.0**-shift
        return self.linear("times", (), (integer,), self.shape, scale, bound)

    def __mul__(self, other: Secret | Public | float) -> Secret:
        if isinstance(other, Secret):
            return product("mul", self, other)
        if isinstance(other, Public):
            shape = np.broadcast_shapes(self.shape, other.shape)
            scale, bound = self.scale + other.scale, self.bound * other.bound
            return self.linear("times_public", (other,), (), shape, scale, bound)
        return self.times(float(other))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Secret:
        return self.times(1.0 / divisor)

    def __matmul__(self, other: Secret | Public) -> Secret:
        if isinstance(other, Secret):
            return product("matmul", self, other)
        shape = (self.shape[0], other.shape[1])
        scale, bound = self.scale + other.scale, self.bound * other.bound * self.shape[1]
        return self.linear("matmul_public", (other,), (), shape, scale, bound)

    def column_dot(self, other: Secret) -> Secret:
        """The dot products of the columns of two matrices: [m, n] twice -> [n]."""
        return product("column_dot", self, other)

    def row_dot(self, other: Secret) -> Secret:
        """The dot products of the rows of two matrices: [m, n] twice -> [m]."""
        return product("row_dot", self, other)

    def sum(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Secret:
        """Sum over one axis, several, or over all elements."""
        example = np.empty(self.shape, dtype=np.bool_).sum(axis=axis, keepdims=keepdims)
        count = max(1, int(np.prod(self.shape)) // max(1, example.size))
        params = (axis, keepdims)
        return self.linear("sum", (), params, example.shape, self.scale, self.bound * count)

    # -- moves -----------------------------------------------------------------------------------

    @property
    def T(self) -> Secret:  # numpy's name
        """The transpose."""
        return self.transpose()

    def transpose(self, *axes: int) -> Secret:
        """The axes in the order given, or reversed."""
        shape = np.empty(self.shape, dtype=np.bool_).transpose(axes or None).shape
        params = (axes,) if axes else ()
        return self.linear("transpose", (), params, shape, self.scale, self.bound)

    def reshape(self, *shape: int) -> Secret:
        """The same elements in another shape."""
        example = np.empty(self.shape, dtype=np.bool_).reshape(shape).shape
        return self.linear("reshape", (), (example,), example, self.scale, self.bound)

    def broadcast(self, *shape: int) -> Secret:
        """The same elements repeated to `shape`, by numpy's rules."""
        return self.linear("broadcast", (), (shape,), shape, self.scale, self.bound)

    def __getitem__(self, index: object) -> Secret:
        """Numpy indexing by integers, slices and integer arrays, known while tracing."""
        shape, params = indexed(self.shape, index)
        return self.linear("index", (), params, shape, self.scale, self.bound)

    def placed(self, shape: Shape, index: object) -> Secret:
        """Zeros of `shape` with this value at `index`: the adjoint of indexing (see `place`)."""
        return place([self], [index], shape)

    # -- division by powers of two ---------------------------------------------------------------

    def at(self, scale: int) -> Secret:
        """The same value at another scale, rounded to nearest within one ulp (protocol 4)."""
        if scale >= self.scale:
            return self._shifted(scale - self.scale)
        shift = self.scale - scale
        return self._truncated(None, 0, shift, scale, self.bound + 2.0 ** (1 - scale))

    def scaled(self, factor: float | Public, scale: int) -> Secret:
        """x * factor at `scale`, rounded within two ulp, in the opening of a truncation.

        `factor` >= 0: a public number kept to 24 bits, or an argument with `scale` bits of its own
        and at most 30 bits in all. The dealer multiplies its mask, everyone the opened value. A
        public power of two only moves the point.
        """
        if not isinstance(factor, Public):
            assert factor >= 0
            if frexp(factor)[0] == 0.5:
                return self.halved(1 - frexp(factor)[1]).at(scale)
            room = RING_BITS - 1 - (self.scale - scale) + frexp(factor)[1]
            integer, shift = encode_factor(factor, max(1, min(FACTOR_BITS, room)))
            factor = Public(
                self.graph,
                self.graph.constant(np.array(integer, dtype=np.uint64)),
                shift,
                integer * 2.0**-shift,
            )
        shift = self.scale + factor.scale - scale
        bits = max(1, ceil(log2(factor.bound * 2.0**factor.scale + 1)))
        if not 0 < shift < RING_BITS or bits > MAXIMUM_FACTOR_BITS:
            raise RangeError(
                f"a factor of {bits} bits cannot take {self.scale} fraction bits to {scale}.",
                hint="Use a factor with fewer bits, or a scale nearer to the value's.",
            )
        bound = self.bound * factor.bound + 2.0 ** (1 - scale)
        return self._truncated(factor, bits, shift, scale, bound)

    def _truncated(
        self, factor: Public | None, bits: int, shift: int, scale: int, bound: float
    ) -> Secret:
        width, low = truncation_window(
            self.bound * 2.0**self.scale, shift, bits, self.graph.parties
        )
        args = [self.masked(low, width + 1)] + ([] if factor is None else [factor.node])
        params = (shift, width)
        node = self.graph.add("truncate", tuple(args), Kind.SHARE, self.shape, params)
        return Secret(self.graph, self.shape, scale, bound, share=node)


def product(
    kind: str,
    x: Secret,
    y: Secret,
    bound: float | None = None,
    params: tuple[object, ...] = (),
) -> Secret:
    """The bilinear product `kind` (`masque.mpc.bilinear`) of two secrets (protocol 3).

    `bound`: one that the caller can prove, where it is below that of all terms at their largest.
    `params`: the parameters of the kind, such as (stride, padding) of conv2d.
    """
    table = BILINEAR[kind]
    shape, terms = table.shape(x.shape, y.shape, *params), table.terms(x.shape, y.shape, *params)
    scale, largest = x.scale + y.scale, x.bound * y.bound * terms
    bound = largest if bound is None else min(largest, bound)
    assert bound != inf, "whole ring elements can only be added and compared"
    args = (x.masked(), y.masked())
    node = x.graph.add("product", args, Kind.SHARE, shape, (kind, *params))
    return Secret(x.graph, shape, scale, bound, share=node)


def _level(parts: Sequence[Secret]) -> tuple[list[Secret], float]:
    """Parts brought to the largest of their scales, and the largest of their bounds."""
    scale = max(part.scale for part in parts)
    return [part._shifted(scale - part.scale) for part in parts], max(p.bound for p in parts)


def concatenate(parts: Sequence[Secret], axis: int) -> Secret:
    """Join secrets along an axis; all are brought to the largest scale."""
    (first, *rest), bound = _level(parts)
    shapes = [np.empty(part.shape, dtype=np.bool_) for part in parts]
    shape = np.concatenate(shapes, axis=axis).shape
    return first.linear("concat", tuple(rest), (axis,), shape, first.scale, bound)


def place(parts: Sequence[Secret], indices: Sequence[object], shape: Shape) -> Secret:
    """Zeros of `shape` with every part at its index, no two at one place; at the largest scale."""
    (first, *rest), bound = _level(parts)
    params = placements(shape, [part.shape for part in parts], indices)
    return first.linear("place", tuple(rest), params, shape, first.scale, bound)
