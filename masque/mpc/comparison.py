"""Comparison on the bits of an opened c = x + r: tables and kernels (docs/protocol.md, 5).

The borrow of c - r is `c < r` on the low bits. r is cut into chunks of four bits; the dealer deals
XOR shares of all 15 products of a chunk's bits, so that `less` and `equal` of a chunk with a
public one are sums (XOR) of shares chosen by the public chunk: a parity of the share word and a
table entry. Four chunks are combined in one opening of 7 bits, from dealt products of the 7 masks,
22 bits; again a parity of words with a table entry chosen by the opened bits.

All tables come from one fact: a product of (o_j xor m_j) over j in S is the XOR, over T within S,
of (product of o_j, j in S - T) * (product of m_j, j in T).
"""

from __future__ import annotations

from itertools import combinations

import numba as nb
import numpy as np

from masque.mpc.types import Array, Bytes, Ring

CHUNK = 4  # bits a chunk
ARITY = 4  # chunks a node
SIGN_BIT = 15  # of the top chunk's word: the top bit of r itself

# The 7 bits a node opens, in order: equal_3, less_2, equal_2, less_1, equal_1, less_0, equal_0.
E3, L2, E2, L1, E1, L0, E0 = range(7)
LESS_TERMS = ((E3, L2), (E3, E2, L1), (E3, E2, E1, L0))
EQUAL_TERM = (E3, E2, E1, E0)
NODE_BITS = 7


def _node_products() -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for term in (*LESS_TERMS, EQUAL_TERM):
        for size in range(2, len(term) + 1):
            for subset in combinations(sorted(term), size):
                if subset not in found:
                    found.append(subset)
    return found


NODE_PRODUCTS = _node_products()
PRODUCT_BITS = len(NODE_PRODUCTS)
assert PRODUCT_BITS == 22


def _expand(term: tuple[int, ...], opened: int) -> list[tuple[int, ...]]:
    """The subsets T of `term` whose complement in it is all ones in `opened`."""
    kept = [j for j in term if not opened >> j & 1]
    free = [j for j in term if opened >> j & 1]
    return [
        tuple(sorted((*kept, *extra)))
        for size in range(len(free) + 1)
        for extra in combinations(free, size)
    ]


def _node_table(terms: tuple[tuple[int, ...], ...]) -> tuple[Array, Bytes]:
    masks, ones = np.zeros(128, dtype=np.uint32), np.zeros(128, dtype=np.uint8)
    for opened in range(128):
        for term in terms:
            for subset in _expand(term, opened):
                if not subset:
                    ones[opened] ^= 1
                elif len(subset) == 1:
                    masks[opened] ^= np.uint32(1 << subset[0])
                else:
                    masks[opened] ^= np.uint32(1 << (NODE_BITS + NODE_PRODUCTS.index(subset)))
    return masks, ones


NODE_LESS, NODE_LESS_ONE = _node_table(LESS_TERMS)
NODE_EQUAL, NODE_EQUAL_ONE = _node_table((EQUAL_TERM,))


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


@nb.njit(nogil=True, cache=True)
def _parity(x: int) -> int:  # pragma: no cover (compiled)
    x ^= x >> 16
    x ^= x >> 8
    x ^= x >> 4
    return (0x6996 >> (x & 15)) & 1


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
            is_less = _parity(np.uint32(word & less[chunk]))
            is_equal = _parity(np.uint32(word & equal[chunk]))
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


def pad_pairs(pairs: Bytes, *, first: bool) -> Bytes:
    """[..., m] -> [..., groups, 4]: the missing top pairs are (not less, equal)."""
    missing = -pairs.shape[-1] % ARITY
    if missing:
        widths = [(0, 0)] * (pairs.ndim - 1) + [(0, missing)]
        pairs = np.pad(pairs, widths, constant_values=2 if first else 0)
    groups = pairs.shape[-1] // ARITY
    return np.ascontiguousarray(pairs).reshape(*pairs.shape[:-1], groups, ARITY)


@nb.njit("void(u1[:,::1], b1, u1[:,::1], u1[:,::1])", nogil=True, cache=True)
def _node_inputs(  # type: ignore[no-untyped-def]
    pairs, first, bits, less3
):  # pragma: no cover (compiled)
    count = pairs.shape[1]
    missing = np.uint8(2 if first else 0)
    for i in range(pairs.shape[0]):
        for g in range(bits.shape[1]):
            at = 4 * g
            p0 = pairs[i, at]
            p1 = pairs[i, at + 1] if at + 1 < count else missing
            p2 = pairs[i, at + 2] if at + 2 < count else missing
            p3 = pairs[i, at + 3] if at + 3 < count else missing
            bits[i, g] = p3 >> 1 | (p2 & 3) << 1 | (p1 & 3) << 3 | (p0 & 3) << 5
            less3[i, g] = p3 & 1


def node_inputs(pairs: Bytes, *, first: bool) -> tuple[Bytes, Bytes]:
    """[..., m] pairs in groups of four from the bottom: what each group opens and its top `less`.

    Both uint8 [..., groups]: 7 bits (E3 first) and one. Missing top pairs: (not less, equal).
    """
    count = pairs.shape[-1]
    shape = (*pairs.shape[:-1], -(-count // ARITY))
    bits, less3 = np.empty(shape, dtype=np.uint8), np.empty(shape, dtype=np.uint8)
    if bits.size:
        flat = np.ascontiguousarray(pairs).reshape(-1, count)
        _node_inputs(flat, first, bits.reshape(len(flat), -1), less3.reshape(len(flat), -1))
    return bits, less3


def _product_table() -> Array:
    table = np.zeros(128, dtype=np.uint32)
    for masks in range(128):
        for index, subset in enumerate(NODE_PRODUCTS):
            table[masks] |= np.uint32(all(masks >> j & 1 for j in subset) << index)
    return table


_PRODUCTS = _product_table()


def deal_products(masks: Bytes) -> Array:
    """The dealer's 22 products of each node's 7 mask bits: uint32."""
    return np.asarray(_PRODUCTS[masks & 127])


@nb.njit(
    "void(u1[::1], u4[::1], u1[::1], b1, u4[::1], u1[::1], u4[::1], u1[::1], u1[::1])",
    nogil=True,
    cache=True,
)
def _combine(  # type: ignore[no-untyped-def]
    opened, words, less3, first, less, less_one, equal, equal_one, out
):  # pragma: no cover (compiled)
    for i in range(opened.size):
        is_less = _parity(words[i] & less[opened[i]]) ^ less3[i]
        is_equal = _parity(words[i] & equal[opened[i]])
        if first:
            is_less ^= less_one[opened[i]]
            is_equal ^= equal_one[opened[i]]
        out[i] = is_less | (is_equal << 1)


def combine(opened: Bytes, words: Array, less3: Bytes, *, first: bool) -> Bytes:
    """XOR shares of (less, equal) of whole groups, from opened bits and words of shares.

    `words`: uint32, mask bits 0 to 6, products from bit 7; `less3`: the share of the top chunk's
    `less`, which enters linearly.
    """
    out = np.empty(opened.size, dtype=np.uint8)
    tables = (NODE_LESS, NODE_LESS_ONE, NODE_EQUAL, NODE_EQUAL_ONE)
    flat = (np.ascontiguousarray(part).reshape(-1) for part in (opened, words, less3))
    _combine(*flat, first, *tables, out)
    return out.reshape(opened.shape)


def warm() -> None:
    """Compile nothing: every kernel here has an explicit signature and is built on import."""
