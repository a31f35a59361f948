"""Comparison on the bits of an opened c = x + r: tables and kernels (docs/protocol.md, 5).

The borrow of c - r is `c < r` on the low bits. r is cut into chunks of four bits; the dealer deals
XOR shares of all 15 products of a chunk's bits, so that `less` and `equal` of a chunk with a
public one are sums (XOR) of shares chosen by the public chunk: a parity of the share word and a
table entry. Up to five chunks are combined in one opening, from dealt products of the bits' masks;
again a parity of words with a table entry chosen by the opened bits.

All tables come from one fact: a product of (o_j xor m_j) over j in S is the XOR, over T within S,
of (product of o_j, j in S - T) * (product of m_j, j in T).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numba as nb
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from masque.mpc.types import Array, Bytes, Ring

CHUNK = 4  # bits a chunk
ARITY = 4  # most chunks a node that goes on to another
LAST_ARITY = 5  # and of the last one, which computes `less` only
SIGN_BIT = 15  # of the top chunk's word: the top bit of r itself

Subset = tuple[int, ...]


@dataclass(frozen=True)
class Combination:
    """How `arity` pairs (less_j, equal_j), j from the bottom, become one; `last`: `less` only.

    A node opens `bits` bits: equal_top, then less_j and equal_j downwards, without equal_0 if it is
    the last; less_top enters linearly. `products` are the sets of masks whose products are dealt.
    Tables: what to take from the word (masks, then products) for each value of the opened bits.
    """

    arity: int
    last: bool
    bits: int
    products: tuple[Subset, ...]
    less: Array
    less_one: Bytes
    equal: Array
    equal_one: Bytes
    dealt: Array

    @property
    def dtype(self) -> str:
        """Of a node's dealt products."""
        return next(f"<u{size}" for size in (1, 2, 4, 8) if len(self.products) <= 8 * size)


def _terms(arity: int, *, last: bool) -> tuple[list[Subset], list[Subset]]:
    """The sets of opened bits whose products sum to `less` (less_top aside) and to `equal`."""
    top = arity - 1
    less = [(*range(0, 2 * k + 1, 2), 2 * k + 1) for k in range(top)]
    return less, [] if last else [tuple(range(0, 2 * top + 1, 2))]


@cache
def combination(arity: int, last: bool) -> Combination:
    """The tables of one kind of node, made once."""
    less, equal = _terms(arity, last=last)
    bits = 2 * (arity - 1) + (not last)
    found: list[Subset] = []
    for term in (*less, *equal):
        for size in range(2, len(term) + 1):
            found += [s for s in combinations(sorted(term), size) if s not in found]
    products = tuple(found)
    dealt = np.zeros(1 << bits, dtype=np.uint64)
    for masks in range(1 << bits):
        for index, subset in enumerate(products):
            dealt[masks] |= np.uint64(all(masks >> j & 1 for j in subset) << index)
    tables = (*_node_table(less, products, bits), *_node_table(equal, products, bits))
    return Combination(arity, last, bits, products, *tables, dealt)


def _expand(term: Subset, opened: int) -> list[Subset]:
    """The subsets T of `term` whose complement in it is all ones in `opened`."""
    kept = [j for j in term if not opened >> j & 1]
    free = [j for j in term if opened >> j & 1]
    return [
        tuple(sorted((*kept, *extra)))
        for size in range(len(free) + 1)
        for extra in combinations(free, size)
    ]


def _node_table(
    terms: list[Subset], products: tuple[Subset, ...], bits: int
) -> tuple[Array, Bytes]:
    masks, ones = np.zeros(1 << bits, dtype=np.uint64), np.zeros(1 << bits, dtype=np.uint8)
    for opened in range(1 << bits):
        for term in terms:
            for subset in _expand(term, opened):
                if not subset:
                    ones[opened] ^= 1
                elif len(subset) == 1:
                    masks[opened] ^= np.uint64(1 << subset[0])
                else:
                    masks[opened] ^= np.uint64(1 << (bits + products.index(subset)))
    return masks, ones


@cache
def levels(count: int) -> tuple[int, ...]:
    """Arities of the levels that combine `count` pairs, chunks first, one opening each.

    Fewest openings, then fewest nodes, then fewest bits.
    """
    if count == 1:
        return ()
    if count <= LAST_ARITY:
        return (count,)
    found = []
    for arity in range(2, ARITY + 1):
        plan = (arity, *levels(-(-count // arity)))
        found.append((len(plan), *_size(count, plan), plan))
    return min(found)[-1]


def _size(count: int, plan: tuple[int, ...]) -> tuple[int, int]:
    """Nodes of a plan, and the bits they open and need."""
    nodes = bits = 0
    for k, arity in enumerate(plan):
        count = -(-count // arity)
        kind = combination(arity, k == len(plan) - 1)
        nodes += count
        bits += count * (kind.bits + len(kind.products))
    return nodes, bits


def _subset_sums(truth: list[int]) -> tuple[int, int]:
    """Algebraic normal form of a function of a 4-bit r: (mask over words 1..15, constant)."""
    form = list(truth)
    for j in range(CHUNK):
        for index in range(16):
            if index >> j & 1:
                form[index] ^= form[index ^ (1 << j)]
    return sum(bit << (subset - 1) for subset, bit in enumerate(form) if subset), form[0]


def _chunk_table(relation: str) -> tuple[Array, Bytes]:
    masks, ones = np.zeros(16, dtype=np.uint16), np.zeros(16, dtype=np.uint8)
    for c in range(16):
        truth = [int(c < r) if relation == "less" else int(c == r) for r in range(16)]
        masks[c], ones[c] = _subset_sums(truth)
    return masks, ones


CHUNK_LESS, CHUNK_LESS_ONE = _chunk_table("less")
CHUNK_EQUAL, CHUNK_EQUAL_ONE = _chunk_table("equal")
CHUNK_PRODUCTS = np.array(
    [sum(1 << (s - 1) for s in range(1, 16) if s & r == s) for r in range(16)], dtype=np.uint16
)


def chunks_of(length: int) -> int:
    """Chunks that `length` bits are cut into."""
    return -(-length // CHUNK)


@intrinsic
def _parity(typing_context, word):  # type: ignore[no-untyped-def]
    """Whether a word has an odd number of ones: uint8 0 or 1."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        ones = builder.ctpop(builder.zext(arguments[0], ir.IntType(64)))
        return builder.trunc(builder.and_(ones, ones.type(1)), ir.IntType(8))

    return types.uint8(types.uint64), generate


@nb.njit("u2[:,::1](u8[::1], i8, i8, u2[::1])", nogil=True, cache=True)
def _deal_words(r: Ring, low: int, length: int, products: Array) -> Array:  # pragma: no cover
    count = (length + 3) // 4
    words = np.empty((r.size, count), dtype=np.uint16)
    pad = np.uint64(4 * count - length)
    keep = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - length)
    for i in range(r.size):
        bits = r[i] >> np.uint64(low)
        top = (bits >> np.uint64(length)) & np.uint64(1) if low + length < 64 else np.uint64(0)
        bits = (bits & keep) << pad
        for j in range(count):
            words[i, j] = products[(bits >> np.uint64(4 * j)) & np.uint64(15)]
        words[i, count - 1] |= np.uint16(top << np.uint64(15))
    return words


def deal_words(r: Ring, low: int, length: int) -> Array:
    """The dealer's products of r's bits: uint16 [size, chunks], bit s-1 the product over subset s.

    Bits `low` to `low + length` - 1 of r are the chunks (padded below), bit `low + length` rides in
    bit 15 of the last word.
    """
    return np.asarray(_deal_words(r, low, length, CHUNK_PRODUCTS))


@nb.njit(
    "void(u8[::1], u2[:,::1], i8, b1, u2[::1], u1[::1], u2[::1], u1[::1], u1[:,::1])",
    nogil=True,
    cache=True,
)
def _compare_chunks(  # type: ignore[no-untyped-def]
    c, words, length, first, less, less_one, equal, equal_one, out
):  # pragma: no cover (compiled)
    count = words.shape[1]
    pad = np.uint64(4 * count - length)
    keep = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - length)
    for i in range(c.size):
        bits = (c[i] & keep) << pad
        row = i % words.shape[0]
        for j in range(count):
            chunk = (bits >> np.uint64(4 * j)) & np.uint64(15)
            word = words[row, j]
            is_less = _parity(np.uint64(word & less[chunk]))
            is_equal = _parity(np.uint64(word & equal[chunk]))
            if first:
                is_less ^= less_one[chunk]
                is_equal ^= equal_one[chunk]
            out[i, j] = is_less | (is_equal << 1)


def compare_chunks(c: Ring, words: Array, length: int, *, first: bool) -> Bytes:
    """XOR shares of (c < r, c == r) a chunk: uint8 [size of c, chunks], bit 0 less, bit 1 equal.

    `c` may hold several values for each row of `words`, one after the other.
    """
    out = np.empty((c.size, words.shape[1]), dtype=np.uint8)
    tables = (CHUNK_LESS, CHUNK_LESS_ONE, CHUNK_EQUAL, CHUNK_EQUAL_ONE)
    _compare_chunks(c, words, length, first, *tables, out)
    return out


def pad_pairs(pairs: Bytes, arity: int, *, first: bool) -> Bytes:
    """[..., m] -> [..., groups, arity]: the missing top pairs are (not less, equal)."""
    missing = -pairs.shape[-1] % arity
    if missing:
        widths = [(0, 0)] * (pairs.ndim - 1) + [(0, missing)]
        pairs = np.pad(pairs, widths, constant_values=2 if first else 0)
    groups = pairs.shape[-1] // arity
    return np.ascontiguousarray(pairs).reshape(*pairs.shape[:-1], groups, arity)


@nb.njit("void(u1[:,::1], i8, b1, b1, u1[:,::1], u1[:,::1])", nogil=True, cache=True)
def _node_inputs(  # type: ignore[no-untyped-def]
    pairs, arity, last, first, bits, top_less
):  # pragma: no cover (compiled)
    count = pairs.shape[1]
    missing = np.uint8(2 if first else 0)
    keep = np.uint8((1 << (2 * arity - 2)) - 1 if last else 255)
    for i in range(pairs.shape[0]):
        for g in range(bits.shape[1]):
            at = arity * (g + 1) - 1
            pair = pairs[i, at] if at < count else missing
            top_less[i, g] = pair & 1
            word = np.int64(pair >> 1)
            for k in range(1, arity):
                pair = pairs[i, at - k] if at - k < count else missing
                word |= np.int64(pair & 3) << (2 * k - 1)
            bits[i, g] = np.uint8(word) & keep


def node_inputs(pairs: Bytes, kind: Combination, *, first: bool) -> tuple[Bytes, Bytes]:
    """[..., m] pairs in groups from the bottom: what each group opens and its top `less`.

    Both uint8 [..., groups]. Missing top pairs: (not less, equal).
    """
    count = pairs.shape[-1]
    shape = (*pairs.shape[:-1], -(-count // kind.arity))
    bits, top = np.empty(shape, dtype=np.uint8), np.empty(shape, dtype=np.uint8)
    if bits.size:
        flat = np.ascontiguousarray(pairs).reshape(-1, count)
        out = bits.reshape(len(flat), -1), top.reshape(len(flat), -1)
        _node_inputs(flat, kind.arity, kind.last, first, *out)
    return bits, top


def deal_products(masks: Bytes, kind: Combination) -> Array:
    """The dealer's products of each node's mask bits, in `kind.dtype`."""
    table = kind.dealt.astype(kind.dtype)
    return np.asarray(table[masks & (len(table) - 1)])


_COMBINE = (
    "void(u1[::1], u1[::1], {}[::1], u1[::1], i8, b1, u8[::1], u1[::1], u8[::1], u1[::1], u1[::1])"
)


@nb.njit([_COMBINE.format(word) for word in ("u1", "u2", "u4", "u8")], nogil=True, cache=True)
def _combine(  # type: ignore[no-untyped-def]
    opened, masks, products, top, bits, first, less, less_one, equal, equal_one, out
):  # pragma: no cover (compiled)
    keep = np.uint64((1 << bits) - 1)
    for i in range(opened.size):
        o = opened[i]
        word = (np.uint64(masks[i]) & keep) | np.uint64(products[i]) << np.uint64(bits)
        is_less = _parity(word & less[o]) ^ top[i]
        is_equal = _parity(word & equal[o])
        if first:
            is_less ^= less_one[o]
            is_equal ^= equal_one[o]
        out[i] = is_less | (is_equal << 1)


def combine(
    opened: Bytes, masks: Bytes, products: Array, top: Bytes, kind: Combination, *, first: bool
) -> Bytes:
    """XOR shares of (less, equal) of whole groups, from opened bits and shares of words.

    `masks`: the share of the mask bits; `products`: of their products; `top`: of the top chunk's
    `less`, which enters linearly.
    """
    out = np.empty(opened.size, dtype=np.uint8)
    tables = (kind.less, kind.less_one, kind.equal, kind.equal_one)
    flat = (np.ascontiguousarray(part).reshape(-1) for part in (opened, masks, products, top))
    _combine(*flat, kind.bits, first, *tables, out)
    return out.reshape(opened.shape)


def gaps(x: Array) -> Array:
    """x_i - x_j for all i < j of a row: [rows, classes] -> [rows, pairs]."""
    left, right = np.triu_indices(x.shape[1], k=1)
    return np.asarray(x[:, left] - x[:, right])


def warm() -> None:
    """Compile nothing: every kernel here has an explicit signature and is built on import."""
