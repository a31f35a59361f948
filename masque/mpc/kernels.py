"""The inner loops of ring products, written in LLVM's language for whole vector registers.

A product of 64-bit words modulo 2^64 needs no 128-bit product. With x = 2^32 xh + xl,

    x y = xl yl + 2^32 (xh yl + xl yh)   (mod 2^64)

and vectors of 32-bit lanes compute both cross products in one instruction, if one factor has
its halves swapped. Their sums are needed modulo 2^32 only, so they gather in lanes of their own
until the end: two multiplications and two additions for every four products (`SPLIT`).
Machines with AVX-512DQ multiply 64-bit words outright.

These are numba intrinsics, for `masque.mpc.ring` to inline. What numba has cached on disk does not
notice changes in this file: run `python -m masque.mpc.warm` after one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

_FEATURES = llvmlite.binding.get_host_cpu_features()
_AVX2: bool = _FEATURES.get("avx2", False)

SPLIT: bool = not _FEATURES.get("avx512dq", False)
"""Whether products are made of halves: without AVX-512."""

LANES = (4 if _AVX2 else 2) if SPLIT else 8
"""64-bit words in a vector register."""

ROWS = 2 if SPLIT else 8
"""Rows of the large tile: its sums, two vectors of b and one of a must fit the registers."""

WORDS = 2 if SPLIT else 1
"""Words of an element of a when packed: itself and, if SPLIT, with its halves swapped."""

UNROLL = 4
"""Values of k that a step of a tile takes."""

_I32, _I64, _BYTE = ir.IntType(32), ir.IntType(64), ir.IntType(8)
_HALVES = ir.VectorType(_I32, 2 * LANES)
_VECTOR = ir.VectorType(_I64, LANES)
_SUMS = [_VECTOR, _HALVES] if SPLIT else [_VECTOR]  # of one vector of products


def _address(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """A pointer to the byte at `offset` from the start of an array's data."""
    data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    return builder.gep(builder.bitcast(data, _BYTE.as_pointer()), [offset])


def _place(builder: Any, address: Any, offset: int, kind: Any) -> Any:
    return builder.bitcast(builder.gep(address, [_I64(offset)]), kind.as_pointer())


def _get(builder: Any, address: Any, offset: int, kind: Any = _VECTOR) -> Any:
    return builder.load(_place(builder, address, offset, kind), align=8)


def _put(builder: Any, value: Any, address: Any, offset: int) -> None:
    builder.store(value, _place(builder, address, offset, value.type), align=8)


def _shuffle(builder: Any, first: Any, second: Any, lanes: Sequence[int]) -> Any:
    chosen = ir.Constant(ir.VectorType(_I32, len(lanes)), list(lanes))
    return builder.shuffle_vector(first, second, chosen)


def _splat(builder: Any, word: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    single = builder.insert_element(nothing, word, _I32(0))
    return _shuffle(builder, single, nothing, [0] * LANES)


def _swap(builder: Any, vector: Any) -> Any:
    """The words of `vector` with their halves swapped, as halves."""
    halves = builder.bitcast(vector, _HALVES)
    return _shuffle(builder, halves, halves, [lane ^ 1 for lane in range(2 * LANES)])


def _opaque(builder: Any, value: Any) -> Any:
    """The same value, of which the optimiser knows nothing more; takes no instruction.

    Keeps it from regrouping sums and from narrowing loads, which cost it registers.
    """
    if not _AVX2:
        return value
    register = "=x,0" if SPLIT else "=v,0"
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", register, [value], False)


def _multiply_add(builder: Any, sums: Sequence[Any], x: Any, swapped: Any, y: Any) -> list[Any]:
    """The sums of one vector, with the products of the words of x and y added."""
    if not SPLIT:
        return [builder.add(sums[0], builder.mul(x, y))]
    low = ir.Constant(_VECTOR, [0xFFFFFFFF] * LANES)
    product = builder.mul(builder.and_(x, low), builder.and_(y, low))
    cross = builder.mul(swapped, builder.bitcast(y, _HALVES))
    return [builder.add(sums[0], product), builder.add(sums[1], cross)]


def _totals(builder: Any, sums: Sequence[Any]) -> list[Any]:
    """One vector for each group of sums."""
    if not SPLIT:
        return list(sums)
    shift = ir.Constant(_VECTOR, [32] * LANES)
    totals = []
    for product, cross in zip(sums[::2], sums[1::2], strict=True):
        pairs = builder.bitcast(cross, _VECTOR)
        both = builder.add(pairs, builder.lshr(pairs, shift))
        totals.append(builder.add(product, builder.shl(both, shift)))
    return totals


def _loop(
    builder: Any, count: Any, starts: Sequence[Any], body: Callable[..., list[Any]]
) -> list[Any]:
    """Run `body` (values -> new values) `count` >= 1 times from `starts`; the last values."""
    before, loop = builder.block, builder.append_basic_block("loop")
    after = builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    phis = [builder.phi(start.type) for start in (count, *starts)]
    values = body(*phis[1:])
    rest = builder.sub(phis[0], _I64(1))
    for phi, start, value in zip(phis, (count, *starts), (rest, *values), strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_unsigned("!=", rest, _I64(0)), loop, after)
    builder.position_at_end(after)
    return values


def _zeros(count: int) -> list[Any]:
    return [ir.Constant(kind, None) for _ in range(count) for kind in _SUMS]


def _literal(*sizes: Any) -> list[int]:
    if not all(isinstance(size, types.IntegerLiteral) for size in sizes):
        raise RequireLiteralValue("the size of a tile is part of its code")
    return [size.literal_value for size in sizes]


def _tile_step(
    builder: Any, height: int, width: int, sums: list[Any], left: Any, right: Any
) -> list[Any]:
    """The sums of a tile with the products of one value of k added."""
    vectors = [_get(builder, right, 8 * LANES * v) for v in range(width)]
    new: list[Any] = []
    for row in range(height):
        x = _opaque(builder, _splat(builder, _get(builder, left, 8 * WORDS * row, _I64)))
        swapped = None
        if SPLIT:
            word = _get(builder, left, 8 * WORDS * row + 8, _I64)
            swapped = builder.bitcast(_splat(builder, word), _HALVES)
        for y in vectors:
            old = sums[len(new) : len(new) + len(_SUMS)]
            new += _multiply_add(builder, old, x, swapped, y)
    return [_opaque(builder, value) for value in new]


@intrinsic
def tile(typing_context, rows, vectors, steps, a, a_at, b, b_at, b_step, c, c_at, c_step):  # type: ignore[no-untyped-def]
    """c[i, :] += sum over k of a[k, i] b[k, :] for `rows` rows of `vectors` * LANES words.

    rows, vectors: literals. steps >= 1: groups of UNROLL values of k. a: packed [k][row][WORDS]
    from byte a_at on. b, c: from bytes b_at and c_at on, b_step bytes between values of k, c_step
    bytes between rows.
    """
    height, width = _literal(rows, vectors)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, steps, a_, a_at, b_, b_at, b_step, c_, c_at, c_step = arguments

        def body(left: Any, right: Any, *values: Any) -> list[Any]:
            sums = list(values)
            for _ in range(UNROLL):
                sums = _tile_step(builder, height, width, sums, left, right)
                left = builder.gep(left, [_I64(8 * WORDS * height)])
                right = builder.gep(right, [b_step])
            return [left, right, *sums]

        left = _address(context, builder, a, a_, a_at)
        right = _address(context, builder, b, b_, b_at)
        sums = _loop(builder, steps, [left, right, *_zeros(height * width)], body)[2:]
        place = _address(context, builder, c, c_, c_at)
        for i, total in enumerate(_totals(builder, sums)):
            offset = 8 * LANES * (i % width)
            _put(builder, builder.add(_get(builder, place, offset), total), place, offset)
            if i % width == width - 1:
                place = builder.gep(place, [c_step])
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(rows, vectors, i64, a, i64, b, i64, i64, c, i64, i64), generate


@intrinsic
def dots(typing_context, rows, steps, a, a_at, a_step, v, v_at, c, c_at):  # type: ignore[no-untyped-def]
    """c[i] += the dot product of row i of a and v, over the first steps * LANES words.

    rows: literal. steps >= 1. a, v, c: from bytes a_at, v_at, c_at on; a_step bytes between rows.
    """
    (height,) = _literal(rows)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, steps, a_, a_at, a_step, v_, v_at, c_, c_at = arguments

        def body(left: Any, right: Any, *sums: Any) -> list[Any]:
            x = _get(builder, right, 0)
            swapped = _swap(builder, x) if SPLIT else None
            place, new = left, []
            for row in range(height):
                old = sums[len(_SUMS) * row : len(_SUMS) * (row + 1)]
                new += _multiply_add(builder, old, x, swapped, _get(builder, place, 0))
                place = builder.gep(place, [a_step])
            return [*(builder.gep(p, [_I64(8 * LANES)]) for p in (left, right)), *new]

        left = _address(context, builder, a, a_, a_at)
        right = _address(context, builder, v, v_, v_at)
        sums = _loop(builder, steps, [left, right, *_zeros(height)], body)[2:]
        place = _address(context, builder, c, c_, c_at)
        for row, total in enumerate(_totals(builder, sums)):
            word = _get(builder, place, 8 * row, _I64)
            for lane in range(LANES):
                word = builder.add(word, builder.extract_element(total, _I32(lane)))
            _put(builder, word, place, 8 * row)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(rows, i64, a, i64, i64, v, i64, c, i64), generate


@intrinsic
def word(typing_context, array, offset):  # type: ignore[no-untyped-def]
    """The word at a byte offset from the start of an array of any strides."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _get(builder, _address(context, builder, array, *arguments), 0, _I64)

    return types.uint64(array, types.int64), generate


@intrinsic
def copy_vector(typing_context, source, source_at, target, target_at):  # type: ignore[no-untyped-def]
    """Copy LANES words between bytes of two arrays."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_, source_at, target_, target_at = arguments
        vector = _get(builder, _address(context, builder, source, source_, source_at), 0)
        _put(builder, vector, _address(context, builder, target, target_, target_at), 0)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(source, i64, target, i64), generate


@intrinsic
def add_vector(typing_context, source, source_at, target, target_at, count):  # type: ignore[no-untyped-def]
    """Add the first `count` of LANES words at a byte of one array to those at a byte of another."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_, source_at, target_, target_at, count_ = arguments
        place = _address(context, builder, target, target_, target_at)
        vector = _get(builder, _address(context, builder, source, source_, source_at), 0)
        lanes = ir.Constant(_VECTOR, list(range(LANES)))
        counted = builder.icmp_signed("<", lanes, _splat(builder, count_))
        vector = builder.select(counted, vector, ir.Constant(_VECTOR, None))
        _put(builder, builder.add(_get(builder, place, 0), vector), place, 0)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(source, i64, target, i64, i64), generate


@intrinsic
def pack_pair(typing_context, source, source_at, step, target, target_at):  # type: ignore[no-untyped-def]
    """Pack LANES words of two rows, `step` bytes apart, as [k][row][WORDS]; for ROWS = 2 only."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_, source_at, step, target_, target_at = arguments
        place = _address(context, builder, source, source_, source_at)
        there = _address(context, builder, target, target_, target_at)
        pairs = []
        for row in (place, builder.gep(place, [step])):
            words = _get(builder, row, 0)
            swapped = builder.bitcast(_swap(builder, words), _VECTOR)
            order = [lane + half for lane in range(LANES) for half in (0, LANES)]
            pairs.append(_shuffle(builder, words, swapped, order))
        for k in range(LANES):
            lanes = [2 * k, 2 * k + 1, 2 * LANES + 2 * k, 2 * LANES + 2 * k + 1]
            _put(builder, _shuffle(builder, pairs[0], pairs[1], lanes), there, 32 * k)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(source, i64, i64, target, i64), generate
