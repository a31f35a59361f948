"""Packed bits against Python's own whole numbers, at every width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.errors import ProtocolError
from masque.mpc import packing
from masque.mpc.types import Ring

COUNTS = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 130]


def words(count: int, seed: int) -> Ring:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def stream(values: Ring, low: int, bits: int) -> bytes:
    """The packed bytes by Python's whole numbers."""
    total = 0
    for index, value in enumerate(values.tolist()):
        total |= (value >> low & (1 << bits) - 1) << index * bits
    return total.to_bytes((len(values) * bits + 7) // 8, "little")


@pytest.mark.parametrize("bits", range(1, 65))
def test_every_width(bits: int) -> None:
    for count in COUNTS:
        for low in {0, (64 - bits) // 2, 64 - bits}:
            values = words(count, seed=count + 1)
            packed = packing.pack(values, low, bits)
            assert packed.dtype == np.uint8
            assert packed.tobytes() == stream(values, low, bits)
            expected = values >> np.uint64(low) & np.uint64((1 << bits) - 1)
            np.testing.assert_array_equal(packing.unpack(packed, count, bits), expected)


@settings(max_examples=200, deadline=None)
@given(
    bits=st.integers(1, 64),
    count=st.integers(0, 300),
    buffers=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_folding_is_unpacking_and_combining(bits: int, count: int, buffers: int, seed: int) -> None:
    mask = np.uint64((1 << bits) - 1)
    values = [words(count, seed + index) & mask for index in range(buffers + 1)]
    packed = [packing.pack(other, 0, bits) for other in values[1:]]
    own, other = values[0].copy(), values[0].copy()
    total = np.bitwise_and(sum(values[1:], values[0]), mask)
    both = np.bitwise_xor.reduce(np.array(values), axis=0)
    assert packing.accumulate(packed, count, bits, own) is own
    assert packing.fold_xor(packed, count, bits, other) is other
    np.testing.assert_array_equal(own, total)
    np.testing.assert_array_equal(other, both)


@pytest.mark.parametrize("bits", [1, 5, 8, 16, 32, 57, 64])
def test_any_buffer_at_any_address_will_do(bits: int) -> None:
    values = words(41, seed=3) & np.uint64((1 << bits) - 1)
    packed = packing.pack(values, 0, bits).tobytes()
    shifted = memoryview(b"-" + packed)[1:]
    array = np.frombuffer(bytearray(packed), dtype=np.uint8)
    for buffer in (packed, bytearray(packed), shifted, array):
        unpacked = packing.unpack(buffer, 41, bits)
        np.testing.assert_array_equal(unpacked, values)
        assert unpacked.flags.writeable and not np.shares_memory(unpacked, array)
        doubled = packing.accumulate([buffer], 41, bits, values.copy())
        np.testing.assert_array_equal(doubled, (values + values) & np.uint64((1 << bits) - 1))


def test_strided_values() -> None:
    values = words(60, seed=4)
    assert packing.pack(values[::3], 7, 13).tobytes() == stream(values[::3], 7, 13)


GOLDEN = [  # bits, low, values, bytes: written out by hand from the definition
    (1, 0, [1, 0, 1, 1, 0, 0, 0, 0, 1], "0d01"),
    (1, 63, [2**63, 0, 2**64 - 1], "05"),
    (4, 0, [0x1, 0x2, 0xF], "210f"),
    (3, 4, [0x10, 0x20, 0x70], "d101"),
    (12, 0, [0xABC, 0x123], "bc3a12"),
    (16, 8, [0xAABBCC, 0x112233], "bbaa2211"),
    (32, 14, [0x1234567 << 14], "67452301"),
    (33, 0, [0x1FFFFFFFF, 1], "ffffffff0300000000"),
    (64, 0, [0x0102030405060708], "0807060504030201"),
]


@pytest.mark.parametrize(("bits", "low", "values", "expected"), GOLDEN)
def test_golden_vectors(bits: int, low: int, values: list[int], expected: str) -> None:
    packed = packing.pack(np.array(values, dtype=np.uint64), low, bits)
    assert packed.tobytes().hex() == expected


@pytest.mark.parametrize(
    ("count", "bits", "size"),
    [(8, 1, 0), (8, 1, 2), (9, 1, 1), (3, 64, 23), (0, 5, 1), (5, 33, 20)],
)
def test_a_buffer_of_the_wrong_length_is_refused(count: int, bits: int, size: int) -> None:
    expected = packing.packed_size(count, bits)
    own = np.zeros(count, dtype=np.uint64)
    complaint = f"take {expected} bytes, got {size}"
    with pytest.raises(ProtocolError, match=complaint):
        packing.unpack(bytes(size), count, bits)
    with pytest.raises(ProtocolError, match=complaint):
        packing.accumulate([bytes(expected), bytes(size)], count, bits, own)
    with pytest.raises(ProtocolError, match=complaint):
        packing.fold_xor([bytes(size)], count, bits, own)


@pytest.mark.parametrize(("low", "bits"), [(0, 0), (0, 65), (-1, 8), (1, 64), (60, 5)])
def test_widths_outside_the_ring_are_our_own_bug(low: int, bits: int) -> None:
    with pytest.raises(AssertionError):
        packing.pack(np.zeros(3, dtype=np.uint64), low, bits)


def test_packed_size() -> None:
    assert [packing.packed_size(*pair) for pair in ((0, 7), (1, 1), (8, 1), (9, 1), (3, 64))] == [
        0,
        1,
        1,
        2,
        24,
    ]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_small_numbers_travel_as_large_ones_do(count: int, bits: int) -> None:
    rng = np.random.default_rng(count + bits)
    small = rng.integers(0, 1 << bits, (3, count), dtype=np.uint8)
    parts = [packing.pack(row, 0, bits) for row in small]
    for row, part in zip(small, parts, strict=True):
        np.testing.assert_array_equal(part, packing.pack(row.astype(np.uint64), 0, bits))
    total = packing.fold_xor(parts[1:], count, bits, small[0].copy())
    assert total.dtype == np.uint8
    np.testing.assert_array_equal(total, small[0] ^ small[1] ^ small[2])


@pytest.mark.parametrize(("low", "bits"), [(0, 64), (0, 46), (19, 27), (63, 1), (8, 56)])
def test_a_difference_is_cut_to_what_is_sent(low: int, bits: int) -> None:
    rng = np.random.default_rng(low)
    x, a = rng.integers(0, 1 << 64, (2, 5, 7), dtype=np.uint64)
    expected = (x - a).reshape(-1) >> np.uint64(low) & np.uint64((1 << bits) - 1)
    np.testing.assert_array_equal(packing.difference(x, a, low, bits), expected)
    np.testing.assert_array_equal(
        packing.difference(x.T, a.T, low, bits).reshape(7, 5).T.reshape(-1), expected
    )
