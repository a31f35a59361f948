"""A party's commitment to its share of a data set: HMAC-SHA256 under a random key of its own.

    HMAC(key, "masque share 1" | rows, columns, words of the identifier digest, 8 bytes each
                               | the share matrix | the share of the identifier digest)

The key is drawn when the data set is shared, and lies beside the share, encrypted like it.

It hides the share: without the key, nobody can tell by it whether a guess is right, not even all
other parties, who know the data up to this share. It binds: another share or key with the same
commitment is a collision of SHA-256. Source: RFC 2104; the key has a fixed length.
"""

from __future__ import annotations

import hashlib
import hmac

from masque.data.chunks import IDENTIFIER_WORDS
from masque.data.table import TableInfo

KEY_BYTES = 32
_DOMAIN = b"masque share 1"


class Commitment:
    """Takes a share as it arrives: rows in order, then the identifier digest if there is one."""

    def __init__(self, key: bytes, info: TableInfo) -> None:
        assert len(key) == KEY_BYTES
        words = IDENTIFIER_WORDS if info.has_identifiers else 0
        sizes = (info.rows, info.columns, words)
        header = b"".join(size.to_bytes(8, "big") for size in sizes)
        self._hmac = hmac.new(key, _DOMAIN + header, hashlib.sha256)

    def copy(self) -> Commitment:
        """Another that has taken the same so far."""
        found = object.__new__(Commitment)
        found._hmac = self._hmac.copy()
        return found

    def update(self, content: bytes | bytearray | memoryview) -> None:
        """Take more bytes, uint64 little-endian."""
        self._hmac.update(content)

    def value(self) -> str:
        """64 hex digits."""
        return self._hmac.hexdigest()
