"""Bits travel packed: a column of k-bit numbers as one little-endian stream of bits.

Value i takes the bits i*k .. i*k + k - 1 of the stream, lowest bit first; bit j of the stream is
bit j % 8 of byte j // 8. The bits beyond the last value are zero. 1 <= k <= 64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from masque.errors import ProtocolError
from masque.mpc.types import Array, Bytes, Ring

Buffer = bytes | bytearray | memoryview | Bytes

_ADD, _XOR = 0, 1
_WORD_BITS = 64
_NARROW = 56  # up to here a value and its offset within a byte fit one word


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` values of `bits` bits take: ceil(count * bits / 8)."""
    assert 1 <= bits <= _WORD_BITS, "a ring element has 1 to 64 bits to send"
    return (count * bits + 7) // 8


def difference(x: Ring, a: Ring, low: int, bits: int) -> Ring:
    """Bits low .. low + bits - 1 of x - a: uint64 [size], in one pass."""
    out = np.empty(x.size, dtype=np.uint64)
    flat = (np.ascontiguousarray(part).reshape(-1) for part in (x, a))
    _difference(*flat, low, bits, out)
    return out


def pack(values: Array, low: int, bits: int) -> Bytes:
    """Bits low .. low + bits - 1 of each of `values`, as uint8 [ceil(n*bits/8)].

    `values`: uint64 [n], or uint8 [n] for up to 8 bits.
    """
    assert low >= 0 and low + bits <= 8 * values.itemsize, "the bits must lie within the element"
    values = np.ascontiguousarray(values)
    size = packed_size(values.size, bits)
    if bits == _WORD_BITS:
        return values.astype("<u8", copy=True).view(np.uint8)
    packed = np.empty(size + 8, dtype=np.uint8)  # the kernels write whole words
    _pack(values, low, bits, packed)
    return packed[:size]


def unpack(buffer: Buffer, count: int, bits: int) -> Ring:
    """The `count` values of `bits` bits in `buffer`, as uint64 [count]: the reverse of `pack`.

    Errors: ProtocolError if the buffer has not exactly `packed_size(count, bits)` bytes.
    """
    source = _checked(buffer, count, bits)
    if bits == _WORD_BITS:
        return source.view("<u8").astype(np.uint64, copy=True)
    values = np.zeros(count, dtype=np.uint64)
    _fold(source, bits, _XOR, values)
    return values


def accumulate(buffers: Sequence[Buffer], count: int, bits: int, own: Ring) -> Ring:
    """own + the values of every buffer, modulo 2^bits, in place: `own`, uint64 [count].

    `own`: each below 2^bits. One pass over each buffer, and no array is made. Errors:
    ProtocolError for a buffer of the wrong length.
    """
    return _fold_all(buffers, count, bits, own, _ADD)


def fold_xor(buffers: Sequence[Buffer], count: int, bits: int, own: Array) -> Array:
    """own XOR the values of every buffer, in place. Arguments as for `accumulate`.

    `own` may be uint8 for up to 8 bits.
    """
    return _fold_all(buffers, count, bits, own, _XOR)


def _fold_all(buffers: Sequence[Buffer], count: int, bits: int, own: Array, how: int) -> Array:
    assert bits <= 8 * own.itemsize
    assert own.shape == (count,), "own values and packed values must be of one count"
    for source in [_checked(buffer, count, bits) for buffer in buffers]:
        _fold(source, bits, how, own)
    return own


def _checked(buffer: Buffer, count: int, bits: int) -> Bytes:
    source: Bytes = np.frombuffer(buffer, dtype=np.uint8) if len(buffer) else _EMPTY
    size = packed_size(count, bits)
    if source.size != size:
        raise ProtocolError(
            f"{count} values of {bits} bits take {size} bytes, got {source.size}.",
            hint="The peer must run the same program; compare the digests and versions.",
        )
    return source


_EMPTY: Bytes = np.empty(0, dtype=np.uint8)


# Kernels. Words are loaded and stored at any byte, which numba has no expression for.


@intrinsic
def _load(typing_context, array, offset, width):  # type: ignore[no-untyped-def]
    """The little-endian word of `width` (8, 16, 32, 64; literal) bits at byte `offset`."""
    if not isinstance(width, types.IntegerLiteral):
        raise RequireLiteralValue("the width of a word is a literal")
    bits = width.literal_value

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = cgutils.create_struct_proxy(array)(context, builder, value=arguments[0]).data
        kind = ir.IntType(bits)
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), kind.as_pointer())
        return builder.zext(builder.load(pointer, align=1), ir.IntType(64))

    return types.uint64(array, types.int64, width), generate


@intrinsic
def _store(typing_context, array, offset, value, width):  # type: ignore[no-untyped-def]
    """Write the low `width` (literal) bits of `value` at byte `offset`, little-endian."""
    if not isinstance(width, types.IntegerLiteral):
        raise RequireLiteralValue("the width of a word is a literal")
    bits = width.literal_value

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = cgutils.create_struct_proxy(array)(context, builder, value=arguments[0]).data
        kind = ir.IntType(bits)
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), kind.as_pointer())
        builder.store(builder.trunc(arguments[2], kind), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64, width), generate


_SOURCE = types.Array(types.uint8, 1, "C", readonly=True)
_VALUES = types.Array(types.uint64, 1, "C", readonly=True)
_SMALL = types.Array(types.uint8, 1, "C", readonly=True)


@numba.njit
def _mask(bits):  # type: ignore[no-untyped-def]
    return np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - bits)


@numba.njit
def _combine(how, old, new, mask):  # type: ignore[no-untyped-def]
    return (old + new) & mask if how == _ADD else old ^ new


@numba.njit
def _value_near_end(source, position, bits):  # type: ignore[no-untyped-def]
    """The value at bit `position`, byte by byte: never reads beyond the source."""
    value, taken = np.uint64(0), 0
    while taken < bits:
        at = position + taken
        rest = np.uint64(source[at >> 3]) >> np.uint64(at & 7)
        value |= rest << np.uint64(taken)
        taken += 8 - (at & 7)
    return value & _mask(bits)


@numba.njit
def _fold_any(source, bits, how, values):  # type: ignore[no-untyped-def]
    """The fold for any width: a word and the byte after it hold any value at any offset."""
    mask, size, count = _mask(bits), len(source), len(values)
    safe = min(count, ((size - 8) * 8 - 1) // bits + 1) if size >= 9 else 0
    if bits <= _NARROW:
        for i in range(safe):
            at = i * bits
            word = _load(source, at >> 3, 64) >> np.uint64(at & 7)
            values[i] = _combine(how, values[i], word & mask, mask)
    else:
        for i in range(safe):
            at = i * bits
            word = _load(source, at >> 3, 64) >> np.uint64(at & 7)
            word |= (_load(source, (at >> 3) + 8, 8) << np.uint64(1)) << np.uint64(63 - (at & 7))
            values[i] = _combine(how, values[i], word & mask, mask)
    for i in range(safe, count):
        value = _value_near_end(source, i * bits, bits)
        values[i] = _combine(how, values[i], value, mask)


@numba.njit
def _fold_bits(source, how, values):  # type: ignore[no-untyped-def]
    whole = len(values) >> 3
    for i in range(whole):
        byte = _load(source, i, 8)
        for j in range(8):
            bit = (byte >> np.uint64(j)) & np.uint64(1)
            values[8 * i + j] ^= bit  # adding modulo 2 is the same
    for i in range(8 * whole, len(values)):
        values[i] ^= _value_near_end(source, i, 1)


@numba.njit(
    types.void(_VALUES, _VALUES, types.int64, types.int64, types.uint64[::1]),
    nogil=True,
    cache=True,
)
def _difference(x, a, low, bits, out):  # type: ignore[no-untyped-def]
    mask, shift = _mask(bits), np.uint64(low)
    for i in range(len(out)):
        out[i] = ((x[i] - a[i]) >> shift) & mask


@numba.njit(
    [
        types.void(_SOURCE, types.int64, types.int64, values)
        for values in (types.uint64[::1], types.uint8[::1])
    ],
    nogil=True,
    cache=True,
)
def _fold(source, bits, how, values):  # type: ignore[no-untyped-def]
    """values[i] = values[i] + (or XOR) value i of the stream, modulo 2^bits."""
    mask = _mask(bits)
    if bits == 64:
        for i in range(len(values)):
            values[i] = _combine(how, values[i], _load(source, 8 * i, 64), mask)
    elif bits == 32:
        for i in range(len(values)):
            values[i] = _combine(how, values[i], _load(source, 4 * i, 32), mask)
    elif bits == 16:
        for i in range(len(values)):
            values[i] = _combine(how, values[i], _load(source, 2 * i, 16), mask)
    elif bits == 8:
        for i in range(len(values)):
            values[i] = _combine(how, values[i], _load(source, i, 8), mask)
    elif bits == 1:
        _fold_bits(source, how, values)
    else:
        _fold_any(source, bits, how, values)


@numba.njit
def _pack_any(values, low, bits, packed):  # type: ignore[no-untyped-def]
    """The pack for any width: fill a word, write it, keep what did not fit."""
    mask, shift = _mask(bits), np.uint64(low)
    word, fill, at = np.uint64(0), 0, 0
    for i in range(len(values)):
        value = (values[i] >> shift) & mask
        word |= value << np.uint64(fill)
        fill += bits
        if fill >= 64:
            _store(packed, at, word, 64)
            at += 8
            fill -= 64
            word = (value >> np.uint64(bits - fill - 1)) >> np.uint64(1)  # none left: fill is 0
    _store(packed, at, word, 64)


@numba.njit
def _pack_bits(values, low, packed):  # type: ignore[no-untyped-def]
    shift, one, whole = np.uint64(low), np.uint64(1), len(values) >> 3
    for i in range(whole):
        byte = np.uint64(0)
        for j in range(8):
            byte |= ((values[8 * i + j] >> shift) & one) << np.uint64(j)
        _store(packed, i, byte, 8)
    byte = np.uint64(0)
    for i in range(8 * whole, len(values)):
        byte |= ((values[i] >> shift) & one) << np.uint64(i & 7)
    _store(packed, whole, byte, 8)


@numba.njit(
    [
        types.void(values, types.int64, types.int64, types.uint8[::1])
        for values in (_VALUES, _SMALL)
    ],
    nogil=True,
    cache=True,
)
def _pack(values, low, bits, packed):  # type: ignore[no-untyped-def]
    """Write the stream of the chosen bits; `packed` has 8 bytes beyond the stream."""
    shift = np.uint64(low)
    if bits == 32:
        for i in range(len(values)):
            _store(packed, 4 * i, values[i] >> shift, 32)
    elif bits == 16:
        for i in range(len(values)):
            _store(packed, 2 * i, values[i] >> shift, 16)
    elif bits == 8:
        for i in range(len(values)):
            _store(packed, i, values[i] >> shift, 8)
    elif bits == 1:
        _pack_bits(values, low, packed)
    else:
        _pack_any(values, low, bits, packed)


def warm() -> None:
    """Nothing left to do: importing this module compiled its kernels, or loaded them."""
