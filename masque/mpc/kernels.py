"""Machine kernels of the ring: one register tile, written in LLVM's language, and its driver.

A product of 64-bit words modulo 2^64 needs no 128-bit product. With x = xh 2^32 + xl,

    x y = xl yl + 2^32 (xh yl + xl yh)   (mod 2^64)

and vectors of 32-bit lanes compute both cross products in one instruction, if one factor has
its halves swapped; their sums are needed modulo 2^32 only, so they gather in lanes of their own
until the tile is done. That is two multiplications and two additions for four products with
AVX2 (`SPLIT`). Machines with AVX-512DQ have the 64-bit product itself.

The driver is the usual one: pack blocks of both factors so that the tile reads memory in order,
keep a panel of b in the first cache and a block of a in the second.

Source: K. Goto and R. van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.

Functions from here that are cached on disk do not notice changes of those they inline, so what is
inlined lives in this file.
"""

from __future__ import annotations

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

_FEATURES = llvmlite.binding.get_host_cpu_features()
SPLIT = not _FEATURES.get("avx512dq", False)
"""Whether products are made of halves (true without AVX-512)."""

LANES = 4 if SPLIT else 8
"""64-bit words in a vector register."""

ROWS = 3 if SPLIT else 8
"""Rows of the large tile: as many as the registers hold beside two vectors of b."""

_WORDS = 2 if SPLIT else 1  # of a packed element of a: itself, and with its halves swapped
_UNROLL = 4
_DEPTH = 256  # columns of a, rows of b in a block
_HEIGHT = 48  # rows of a in a block
_WIDTH = 1024  # columns of b in a block

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_HALVES = ir.VectorType(_I32, 2 * LANES)
_VECTOR = ir.VectorType(_I64, LANES)


def _address(context, builder, kind, array, offset):  # type: ignore[no-untyped-def]
    """A pointer to the byte at `offset` from the start of an array's data."""
    data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    start = builder.bitcast(data, ir.IntType(8).as_pointer())
    return builder.gep(start, [offset])


def _word_at(builder, address, offset, kind):  # type: ignore[no-untyped-def]
    """Load a `kind` at a byte `offset` (a Python number) from `address`, unaligned."""
    place = builder.gep(address, [_I64(offset)])
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=8)


def _splat(builder, word):  # type: ignore[no-untyped-def]
    single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), word, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), zeros)


def _opaque(builder, value):  # type: ignore[no-untyped-def]
    """The same value, of which the optimiser knows nothing: costs no instruction."""
    kind = ir.FunctionType(value.type, [value.type])
    return builder.asm(kind, "", "=x,0", [value], False)


def _step(builder, rows, vectors, sums, a, b):  # type: ignore[no-untyped-def]
    """One column of the tile: add a[row] * b[vector] to every sum; the new sums."""
    low = ir.Constant(_VECTOR, [0xFFFFFFFF] * LANES)
    right = [_word_at(builder, b, 8 * LANES * v, _VECTOR) for v in range(vectors)]
    done = []
    for row in range(rows):
        left = _opaque(builder, _splat(builder, _word_at(builder, a, 8 * _WORDS * row, _I64)))
        if not SPLIT:
            products = [builder.mul(left, vector) for vector in right]
            done += [builder.add(sums[len(done) + v], p) for v, p in enumerate(products)]
            continue
        swapped = _splat(builder, _word_at(builder, a, 8 * _WORDS * row + 8, _I64))
        swapped = builder.bitcast(swapped, _HALVES)
        for vector in right:
            product = builder.mul(builder.and_(left, low), builder.and_(vector, low))
            done.append(builder.add(sums[len(done)], product))
            cross = builder.mul(swapped, builder.bitcast(vector, _HALVES))
            done.append(builder.add(sums[len(done)], cross))
    return done


def _tile_totals(builder, sums):  # type: ignore[no-untyped-def]
    """The vectors of the tile from its sums."""
    if not SPLIT:
        return sums
    shift = ir.Constant(_VECTOR, [32] * LANES)
    totals = []
    for product, cross in zip(sums[::2], sums[1::2], strict=True):
        pairs = builder.bitcast(cross, _VECTOR)
        both = builder.add(pairs, builder.lshr(pairs, shift))
        totals.append(builder.add(product, builder.shl(both, shift)))
    return totals


def _emit_tile(builder, rows, vectors, steps, a, b, b_step):  # type: ignore[no-untyped-def]
    """The loop over `steps` groups of `_UNROLL` columns; the tile's vectors, row by row."""
    kinds = [_VECTOR, _HALVES] * (rows * vectors) if SPLIT else [_VECTOR] * (rows * vectors)
    before = builder.block
    loop = builder.append_basic_block("tile")
    after = builder.append_basic_block("tile.done")
    builder.branch(loop)
    builder.position_at_end(loop)
    count = builder.phi(_I64)
    places = [builder.phi(a.type), builder.phi(b.type)]
    sums = [builder.phi(kind) for kind in kinds]
    now, left, right = list(sums), places[0], places[1]
    for _ in range(_UNROLL):
        now = [_opaque(builder, x) for x in _step(builder, rows, vectors, now, left, right)]
        left = builder.gep(left, [_I64(8 * _WORDS * rows)])
        right = builder.gep(right, [b_step])
    rest = builder.sub(count, _I64(1))
    for phi, start, value in zip(
        [count, *places, *sums],
        [steps, a, b, *(ir.Constant(kind, None) for kind in kinds)],
        [rest, left, right, *now],
        strict=True,
    ):
        phi.add_incoming(start, before)
        phi.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_unsigned("!=", rest, _I64(0)), loop, after)
    builder.position_at_end(after)
    return _tile_totals(builder, now)


@intrinsic
def _tile(typing_context, rows, vectors, steps, a, a_at, b, b_at, b_step, c, c_at, c_step):  # type: ignore[no-untyped-def]
    """c[row, :] += sum over k of a[k, row] * b[k, :], in registers.

    rows, vectors: literals, the tile is rows x (vectors * LANES) words. steps: groups of
    `_UNROLL` values of k, at least one. a: packed, at byte a_at. b: at byte b_at, b_step bytes
    between values of k. c: at byte c_at, c_step bytes between rows.
    """
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(vectors, types.IntegerLiteral)):
        raise RequireLiteralValue("the size of a tile is literal")
    height, width = rows.literal_value, vectors.literal_value

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, steps, a_, a_at, b_, b_at, b_step, c_, c_at, c_step = arguments
        left = _address(context, builder, a, a_, a_at)
        right = _address(context, builder, b, b_, b_at)
        totals = _emit_tile(builder, height, width, steps, left, right, b_step)
        place = _address(context, builder, c, c_, c_at)
        for row in range(height):
            for v in range(width):
                old = _word_at(builder, place, 8 * LANES * v, _VECTOR)
                new = builder.add(old, totals[row * width + v])
                there = builder.gep(place, [_I64(8 * LANES * v)])
                builder.store(new, builder.bitcast(there, _VECTOR.as_pointer()), align=8)
            place = builder.gep(place, [c_step])
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(rows, vectors, i64, a, i64, b, i64, i64, c, i64, i64), generate


@intrinsic
def _word(typing_context, array, offset):  # type: ignore[no-untyped-def]
    """The word at a byte offset from the start of an array of any strides."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        address = _address(context, builder, array, *arguments)
        return _word_at(builder, address, 0, _I64)

    return types.uint64(array, types.int64), generate


@numba.njit
def _pack_left(a, top, rows, start, depth, packed, at):  # type: ignore[no-untyped-def]
    """Pack a[top : top+rows, start : start+depth] as [k][row][_WORDS], zeros up to _UNROLL."""
    down, right = a.strides
    for row in range(rows):
        base = (top + row) * down + start * right
        for k in range(depth):
            value = _word(a, base + k * right)
            place = at + (k * rows + row) * _WORDS
            packed[place] = value
            if SPLIT:
                packed[place + 1] = (value << np.uint64(32)) | (value >> np.uint64(32))
    for place in range(at + depth * rows * _WORDS, at + _padded(depth) * rows * _WORDS):
        packed[place] = 0


@numba.njit
def _pack_right(b, start, depth, left, columns, packed, at):  # type: ignore[no-untyped-def]
    """Pack b[start : start+depth, left : left+columns] as [k][whole vectors], zeros beyond."""
    down, right = b.strides
    width = (columns + LANES - 1) // LANES * LANES
    for k in range(depth):
        base, place = (start + k) * down + left * right, at + k * width
        if right == 8:
            for j in range(columns):
                packed[place + j] = _word(b, base + 8 * j)
        else:
            for j in range(columns):
                packed[place + j] = _word(b, base + right * j)
        for j in range(columns, width):
            packed[place + j] = 0
    for place in range(at + depth * width, at + _padded(depth) * width):
        packed[place] = 0


@numba.njit
def _padded(depth):  # type: ignore[no-untyped-def]
    return (depth + _UNROLL - 1) // _UNROLL * _UNROLL


@numba.njit
def _pack_block_left(a, top, height, start, depth, packed):  # type: ignore[no-untyped-def]
    """Pack whole panels of ROWS rows, then the rest row by row; panel of row i starts at
    i * padded depth * _WORDS."""
    row = 0
    while row < height:
        rows = ROWS if height - row >= ROWS else 1
        _pack_left(a, top + row, rows, start, depth, packed, row * _padded(depth) * _WORDS)
        row += rows


@numba.njit
def _run_tile(rows, vectors, steps, a, a_at, b, b_at, b_step, c, c_at, c_step):  # type: ignore[no-untyped-def]
    if rows == 1:
        if vectors == 1:
            _tile(1, 1, steps, a, a_at, b, b_at, b_step, c, c_at, c_step)
        else:
            _tile(1, 2, steps, a, a_at, b, b_at, b_step, c, c_at, c_step)
    elif vectors == 1:
        _tile(ROWS, 1, steps, a, a_at, b, b_at, b_step, c, c_at, c_step)
    else:
        _tile(ROWS, 2, steps, a, a_at, b, b_at, b_step, c, c_at, c_step)


@numba.njit
def _panel(packed_a, height, depth, packed_b, b_at, columns, c, top, left, edge):  # type: ignore[no-untyped-def]
    """c[top : top+height, left : left+columns] += packed block of a times one panel of b."""
    width = (columns + LANES - 1) // LANES * LANES
    row, padded = 0, _padded(depth)
    while row < height:
        rows = ROWS if height - row >= ROWS else 1
        a_at = 8 * row * padded * _WORDS
        steps, vectors = padded // _UNROLL, width // LANES
        if width == columns:
            c_at = (top + row) * c.strides[0] + 8 * left
            _run_tile(
                rows, vectors, steps, packed_a, a_at, packed_b, 8 * b_at, 8 * width,
                c, c_at, c.strides[0],
            )  # fmt: skip
        else:
            edge[:] = 0
            _run_tile(
                rows, vectors, steps, packed_a, a_at, packed_b, 8 * b_at, 8 * width,
                edge, 0, 8 * width,
            )  # fmt: skip
            for i in range(rows):
                for j in range(columns):
                    c[top + row + i, left + j] += edge[i * width + j]
        row += rows


_ANY = types.Array(types.uint64, 2, "A", readonly=True)


@numba.njit(types.void(_ANY, _ANY, types.uint64[:, ::1]), nogil=True, cache=True)
def multiply_add(a, b, c):  # type: ignore[no-untyped-def]
    """c += a @ b modulo 2^64: uint64 [m, k], [k, n] of any strides, [m, n] in C order."""
    (m, depths), n = a.shape, b.shape[1]
    panel = 2 * LANES
    block = min(_padded(depths), _DEPTH)
    packed_a = np.empty(min(m, _HEIGHT) * block * _WORDS, dtype=np.uint64)
    packed_b = np.empty((min(n, _WIDTH) + LANES) * block, dtype=np.uint64)
    edge = np.empty(ROWS * panel, dtype=np.uint64)
    for left in range(0, n, _WIDTH):
        width = min(_WIDTH, n - left)
        for start in range(0, depths, _DEPTH):
            depth = min(_DEPTH, depths - start)
            for j in range(0, width, panel):
                at, columns = j * _padded(depth), min(panel, width - j)
                _pack_right(b, start, depth, left + j, columns, packed_b, at)
            for top in range(0, m, _HEIGHT):
                height = min(_HEIGHT, m - top)
                _pack_block_left(a, top, height, start, depth, packed_a)
                for j in range(0, width, panel):
                    at, columns = j * _padded(depth), min(panel, width - j)
                    _panel(
                        packed_a, height, depth, packed_b, at, columns, c, top, left + j, edge
                    )
