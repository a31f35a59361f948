"""Pseudo-random streams: AES-256 in counter mode, addressed by position.

A stream is a function of a 32-byte seed and a 64-bit *position*. The position is the high half
of the counter block and the block number within the position the low half:

    block(position, j) = AES-256(seed, position as 8 bytes || j as 8 bytes), both big-endian

so that no two positions of a seed share a block (a position holds up to 2^68 bytes), and any
position can be produced without those before it. Seeds are separated by `derive`: one seed for
each (job, attempt, party, purpose).

Source: NIST SP 800-38A, section 6.5 (counter mode); RFC 7693 (keyed BLAKE2b).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from masque.errors import InputError
from masque.mpc.types import Bytes, Ring

SEED_SIZE = 32
"""Bytes of a seed."""

MAXIMUM_SIZE = 1 << 68
"""Bytes of one position: 2^64 blocks of 16."""

_BLOCK_SIZE = 16
_ZEROS = memoryview(bytes(1 << 16))  # small enough to stay in the first caches
_DOMAIN = b"masque derive 1"


def derive(root: bytes, *labels: str | int) -> bytes:
    """A 32-byte seed for the domain that `labels` name, below the 32-byte seed `root`.

    Keyed BLAKE2b over an encoding of the labels in which no two lists look alike: each label is
    its kind (`s` or `i`), its length in 4 bytes, and its UTF-8 text or its decimal digits.

    Errors: InputError for a root of another length.
    """
    _check_seed(root)
    encoded = [_encode_label(label) for label in labels]
    return hashlib.blake2b(
        b"".join(encoded), key=root, digest_size=SEED_SIZE, person=_DOMAIN
    ).digest()


def _encode_label(label: str | int) -> bytes:
    kind, text = (b"s", label) if isinstance(label, str) else (b"i", str(int(label)))
    body = text.encode()
    return kind + len(body).to_bytes(4, "big") + body


def _check_seed(seed: bytes) -> None:
    if len(seed) != SEED_SIZE:
        raise InputError(
            f"a seed must be {SEED_SIZE} bytes, got {len(seed)}.", hint="Draw it with os.urandom."
        )


class Stream:
    """The key stream of one seed; keeps the cipher's key schedule between calls.

    Not for two threads at once: each makes its own. Its repr never shows the seed.
    """

    __slots__ = ("_encryptor",)

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 bytes, as `derive` makes them. Errors: InputError for any other length."""
        _check_seed(seed)
        cipher = Cipher(algorithms.AES(seed), modes.CTR(bytes(_BLOCK_SIZE)))
        self._encryptor = cipher.encryptor()

    def __repr__(self) -> str:
        return "Stream(seed=hidden)"

    def __reduce__(self) -> str:
        raise TypeError("a Stream holds a seed and is never pickled")

    def expand(self, position: int, size: int) -> Bytes:
        """The first `size` bytes of `position`: fresh, writable, aligned to 8 bytes.

        0 <= position < 2^64 and 0 <= size < 2^68; anything else is a bug of the caller.
        """
        assert 0 <= position < 1 << 64, "a position has 64 bits"
        assert 0 <= size < MAXIMUM_SIZE, "a position holds fewer than 2^68 bytes"
        return self.expand_spans(position, size, ((0, size),))

    def expand_from(self, position: int, offset: int, size: int) -> Bytes:
        """`size` bytes of `position` from byte `offset` on, a multiple of 8: as `expand`'s."""
        assert offset >= 0 and offset % 8 == 0, "arrays lie at whole words"
        skip = offset % _BLOCK_SIZE
        block, first = _room(size + skip), offset // _BLOCK_SIZE
        self._fill(position, first, block, size + skip)
        return block[skip : size + skip]

    def expand_spans(self, position: int, size: int, spans: Sequence[tuple[int, int]]) -> Bytes:
        """As `expand`, but only the bytes of `spans` (start, stop) are expanded, the rest is not.

        In ascending order, each start at a whole block of 16 bytes.
        """
        block = _room(size)
        for start, stop in spans:
            assert start % _BLOCK_SIZE == 0 and stop <= size
            self._fill(position, start // _BLOCK_SIZE, block[start:], stop - start)
        return block[:size]

    def _fill(self, position: int, first: int, into: Bytes, size: int) -> None:
        """`size` bytes from block `first` of `position` on; `into` has room for a block more."""
        self._encryptor.reset_nonce(position.to_bytes(8, "big") + first.to_bytes(8, "big"))
        for at in range(0, size, len(_ZEROS)):
            self._encryptor.update_into(_ZEROS[: size - at], into.data[at:])

    def words(self, position: int, count: int) -> Ring:
        """The first `count` ring elements of `position`: uint64 [count], little-endian words."""
        return self.expand(position, 8 * count).view("<u8").astype(np.uint64, copy=False)


def _room(size: int) -> Bytes:
    """Uninitialised, aligned to 8 bytes, and a block longer: `update_into` asks for that."""
    return np.empty((size + _BLOCK_SIZE + 7) // 8, dtype=np.uint64).view(np.uint8)


def expand(seed: bytes, position: int, size: int) -> Bytes:
    """`Stream(seed).expand(position, size)`, for one call; keep a Stream where there are more."""
    return Stream(seed).expand(position, size)


def reader(seed: bytes) -> Callable[[int], Bytes]:
    """A source of randomness: each call `source(size)` takes the next position, from 0 on.

    `seed` must be fresh: two readers of one seed give the same bytes.
    """
    stream = Stream(seed)
    position = 0

    def draw(size: int) -> Bytes:
        nonlocal position
        position += 1
        return stream.expand(position - 1, size)

    return draw


def permutation(seed: int, label: str | int, count: int) -> NDArray[np.int64]:
    """A public permutation of range(count), int64 [count], of the public `seed` and `label`.

    The order of `count` words of a stream, each with its index in its lowest bits: no two are
    equal, so the order depends on no library's sorting or sampling code, and sorting them yields
    the indices as well. For public shuffles only: `seed` is a number that everybody knows.
    """
    root = derive(bytes(SEED_SIZE), "public permutation", seed, label)
    bits = np.uint64(max(0, count - 1).bit_length())
    words = Stream(root).words(0, count) >> bits << bits | np.arange(count, dtype=np.uint64)
    words.sort()
    return (words & np.uint64((1 << int(bits)) - 1)).astype(np.int64)
