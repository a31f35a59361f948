"""Streams: golden vectors, positions that never meet, labels that never look alike."""

from __future__ import annotations

import copy
import hashlib
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.errors import InputError
from masque.mpc import prg

SEED = bytes(range(32))
LABELS = st.lists(st.text(max_size=6) | st.integers(), max_size=4)


def blocks(seed: bytes, position: int, count: int) -> bytes:
    """The definition, block by block, from the bare block cipher."""
    cipher = Cipher(algorithms.AES(seed), modes.ECB()).encryptor()
    counters = (position.to_bytes(8, "big") + j.to_bytes(8, "big") for j in range(count))
    return b"".join(cipher.update(counter) for counter in counters)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.binary(min_size=32, max_size=32),
    position=st.integers(0, 2**64 - 1),
    size=st.integers(0, 200),
)
def test_a_position_is_the_cipher_of_its_counters(seed: bytes, position: int, size: int) -> None:
    expected = blocks(seed, position, 13)[:size]
    assert prg.expand(seed, position, size).tobytes() == expected


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1, 2**17 + 5, 300_000])
def test_long_positions_go_on_where_a_chunk_ends(size: int) -> None:
    drawn = prg.expand(SEED, 7, size)
    assert drawn.tobytes() == blocks(SEED, 7, size // 16 + 1)[:size]


def test_the_order_of_calls_does_not_matter() -> None:
    stream = prg.Stream(SEED)
    first = {position: stream.expand(position, 50).tobytes() for position in (5, 0, 2**64 - 1)}
    stream.expand(9, 100_000)
    for position in (0, 2**64 - 1, 5):
        assert stream.expand(position, 50).tobytes() == first[position]


def test_what_is_drawn_is_fresh_writable_and_aligned() -> None:
    stream = prg.Stream(SEED)
    one, two = stream.expand(0, 33), stream.expand(0, 33)
    assert one.dtype == np.uint8 and one.flags.writeable and not np.shares_memory(one, two)
    assert one.ctypes.data % 8 == 0
    np.testing.assert_array_equal(stream.words(3, 5), stream.expand(3, 40).view("<u8"))
    assert stream.words(3, 0).shape == (0,)


def test_no_block_is_ever_drawn_twice() -> None:
    stream = prg.Stream(SEED)
    drawn = b"".join(stream.expand(position, 16 * 64).tobytes() for position in range(64))
    assert len({drawn[i : i + 16] for i in range(0, len(drawn), 16)}) == 64 * 64


def test_words_are_uniform() -> None:
    drawn = prg.expand(prg.derive(SEED, "uniform"), 0, 1 << 20)
    counts = np.bincount(drawn, minlength=256)
    assert ((counts - 4096.0) ** 2 / 4096).sum() < 360  # 255 expected; 1 in 10^5
    ones = int(np.unpackbits(drawn).sum())
    assert abs(ones - 4 * 2**20) < 5 * 2**10.5 * np.sqrt(2)


@pytest.mark.parametrize(("position", "size"), [(-1, 8), (2**64, 8), (0, -1), (0, 2**68)])
def test_what_a_stream_does_not_hold_is_our_own_bug(position: int, size: int) -> None:
    with pytest.raises(AssertionError):
        prg.Stream(SEED).expand(position, size)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_seed_of_another_length_is_refused_and_not_shown(size: int) -> None:
    seed = b"\xab" * size
    for call in (
        lambda: prg.Stream(seed),
        lambda: prg.derive(seed, "label"),
        lambda: prg.expand(seed, 0, 1),
    ):
        with pytest.raises(InputError, match=f"32 bytes, got {size}") as caught:
            call()
        assert "ab" * 4 not in str(caught.value) and "\\xab" not in repr(caught.value)


def test_a_stream_does_not_show_or_give_away_its_seed() -> None:
    stream = prg.Stream(SEED)
    assert repr(stream) == str(stream) == "Stream(seed=hidden)"
    assert not hasattr(stream, "__dict__")
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="seed"):
            leak(stream)


@settings(max_examples=300, deadline=None)
@given(one=LABELS, two=LABELS)
def test_labels_never_look_alike(one: list[str | int], two: list[str | int]) -> None:
    # Compared by kind and value: "1" is not 1.
    same = [(type(x), x) for x in one] == [(type(x), x) for x in two]
    assert (prg.derive(SEED, *one) == prg.derive(SEED, *two)) == same


def test_derive_is_keyed_blake2b_of_the_labels() -> None:
    encoded = b"s\x00\x00\x00\x03job" + b"i\x00\x00\x00\x02-7"
    expected = hashlib.blake2b(encoded, key=SEED, digest_size=32, person=b"masque derive 1")
    assert prg.derive(SEED, "job", -7) == expected.digest()
    assert prg.derive(bytes(32), "job", -7) != expected.digest()


def test_readers_take_one_position_a_call() -> None:
    draw = prg.reader(SEED)
    drawn = [draw(size).tobytes() for size in (5, 0, 40)]
    expected = [prg.expand(SEED, p, size).tobytes() for p, size in ((0, 5), (1, 0), (2, 40))]
    assert drawn == expected


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_a_permutation_is_one(count: int) -> None:
    order = prg.permutation(3, "epoch 1", count)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))


def test_permutations_differ_by_seed_and_label() -> None:
    orders = [prg.permutation(s, x, 50).tolist() for s in (0, 1, -1, 2**70) for x in ("a", "b", 1)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_permutations_are_uniform() -> None:
    counts = np.zeros((5, 5))
    for seed in range(2000):
        counts[np.arange(5), prg.permutation(seed, "u", 5)] += 1
    assert ((counts - 400) ** 2 / 400).sum() < 60  # 16 degrees of freedom; 1 in 10^6


def test_golden_vectors() -> None:
    assert prg.derive(SEED, "job", 1, "party", 0).hex() == DERIVED
    assert prg.expand(SEED, 0, 32).tobytes().hex() == FIRST
    assert prg.expand(SEED, 2**63 + 5, 20).tobytes().hex() == LATER
    assert prg.permutation(7, "epoch 1", 12).tolist() == ORDER


DERIVED = "d077fa9c82127e51a244b1b726c40fbbdba155d751af2dc62dbdfbdd250385ad"
FIRST = "f29000b62a499fd0a9f39a6add2e7780f05d76ae4ab99fe5a6f69b3148c2363d"
LATER = "4795cd1f134aadc93d2a16e6ca6e2682e048dbed"
ORDER = [8, 3, 4, 1, 7, 11, 9, 2, 5, 6, 0, 10]
