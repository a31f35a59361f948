"""Files of shares at rest: pages of 64 KiB, each encrypted and authenticated by itself.

A page is AES-256-GCM under a key of its file, with the page's number as nonce. The file key is
derived from the store's key and the file's random, never repeated folder name, and every page is
written once, so no nonce is used twice. A flipped bit, a page of another file or place, or another
key is an error and never a number. Any rows can be read without those before them.

Source: NIST SP 800-38D (GCM), section 8.2.1 (deterministic nonces).
"""

from __future__ import annotations

import os
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from masque.data.disk import damaged, flush

PAGE = 2**16
"""Bytes of content in a page; the last one of a file may have less."""

TAG = 16
"""Bytes that each page is longer on disk."""


def stored_size(size: int) -> int:
    """Bytes on disk of `size` bytes of content."""
    return size + TAG * (-(-size // PAGE))


class PageWriter:
    """Writes content of any chunking as pages to an open file; `finish` writes the last one."""

    def __init__(self, file: IO[bytes], cipher: AESGCM) -> None:
        self._file = file
        self._cipher = cipher
        self._waiting = bytearray()
        self._page = 0

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Takes more content. Errors: OSError."""
        self._waiting += content
        full = len(self._waiting) - len(self._waiting) % PAGE
        for start in range(0, full, PAGE):
            self._put(self._waiting[start : start + PAGE])
        del self._waiting[:full]

    def finish(self) -> None:
        """Writes what is left and makes all of it durable. Errors: OSError."""
        if self._waiting:
            self._put(self._waiting)
            self._waiting = bytearray()
        flush(self._file)

    def _put(self, content: bytearray) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._page), content, None))
        self._page += 1


def read_pages(file: int, dataset: str, cipher: AESGCM, first: int, size: int) -> bytearray:
    """Bytes first .. first + size of the content behind the file descriptor `file`.

    Errors: MasqueError naming `dataset` if a page is missing, damaged or of another file.
    """
    if size == 0:
        return bytearray()
    content = bytearray()
    start = first // PAGE
    try:
        for page in range(start, (first + size - 1) // PAGE + 1):
            sealed = os.pread(file, PAGE + TAG, page * (PAGE + TAG))
            content += cipher.decrypt(_nonce(page), sealed, None)
    except (OSError, InvalidTag, ValueError):
        raise damaged(dataset) from None
    skip = first - start * PAGE
    if len(content) < skip + size:
        raise damaged(dataset)
    return content[skip : skip + size] if (skip, size) != (0, len(content)) else content


def _nonce(page: int) -> bytes:
    return page.to_bytes(12, "big")
