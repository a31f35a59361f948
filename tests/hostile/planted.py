"""Secrets that a test knows, and whether a text shows one of them in any usual spelling."""

from __future__ import annotations

import base64
from collections.abc import Iterator

SECRET = bytes(range(0xB0, 0xD0))
"""Stands in valid samples and in uploads wherever a share, a mask or a seed would be."""

WORD = 8
SHORTEST = 8
"""Characters; what is shorter stands in a text by chance."""


class Planted:
    """Looks for eight bytes in a row, as they lie at multiples of eight, of any of `secrets`."""

    def __init__(self, *secrets: bytes) -> None:
        self._spellings = {
            spelling
            for secret in secrets
            for start in range(0, len(secret) - WORD + 1, WORD)
            for spelling in _spellings(secret[start : start + WORD])
            if len(spelling) >= SHORTEST or not spelling.isascii()
        }

    def shown(self, text: str) -> bool:
        """Does a text hold any of them?"""
        return any(spelling in text for spelling in self._spellings)


def _spellings(word: bytes) -> Iterator[str]:
    written = repr(word)[2:-1]
    yield from (written, written.replace("\\", "\\\\"))  # as it is, and within JSON
    yield from (word.hex(), word.hex().upper())
    latin = word[:6].decode("latin-1")
    if not latin.isascii():
        yield latin
    for signed in (False, True):
        for order in ("little", "big"):
            yield str(int.from_bytes(word, order, signed=signed))
    yield ", ".join(str(byte) for byte in word)
    for shift in range(3):  # base64 of something that holds the word at any place
        first, last = -(-8 * shift // 6), (8 * (shift + len(word))) // 6
        yield base64.b64encode(bytes(shift) + word + bytes(3))[first:last].decode()


def shows(text: str) -> bool:
    """Does a text hold a part of `SECRET`?"""
    return _OF_SECRET.shown(text)


_OF_SECRET = Planted(SECRET)
