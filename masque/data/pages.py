"""Files of shares at rest: pages of 64 KiB, each encrypted and authenticated by itself.

A page is AES-256-GCM under a key of its file, with the page's number as nonce. The file key is
derived from the store's key and the file's random, never repeated folder name, and every page is
written once, so no nonce is used twice. A flipped bit, a page of another file or place, or another
key is an error and never a number. Any rows can be read without those before them.

Source: NIST SP 800-38D (GCM), section 8.2.1 (deterministic nonces).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from masque.data.disk import damaged, flush, replace, unwritable
from masque.errors import MasqueError
from masque.mpc import prg

PAGE = 2**16
"""Bytes of content in a page; the last one of a file may have less."""

TAG = 16
"""Bytes that each page is longer on disk."""

KEY_BYTES = 32


def stored_size(size: int) -> int:
    """Bytes on disk of `size` bytes of content."""
    return size + TAG * (-(-size // PAGE))


class StoreKey:
    """The key of one store. Its repr never shows it; `name` is public and tells keys apart."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 random bytes."""
        self._secret = secret
        self.name = prg.derive(secret, "store key name")[:8].hex()

    def __repr__(self) -> str:
        return f"StoreKey({self.name})"

    def cipher(self, folder: str, file: str) -> AESGCM:
        """The cipher of one file; `folder` is random and never used again."""
        return AESGCM(prg.derive(self._secret, "store file", folder, file))


def load_key(path: Path, *, create_if_missing: bool) -> StoreKey:
    """The key in the file `path`, a new one if allowed. Errors: MasqueError."""
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        if not create_if_missing:
            raise MasqueError(
                f"the key of the store, {path}, is missing, and its data sets need it.",
                hint="Put the key file back; without it the data must be shared again.",
            ) from None
        secret = os.urandom(KEY_BYTES)
        _keep(path, secret)
    except OSError as error:
        raise MasqueError(
            f"the key of the store, {path}, cannot be read: {error.strerror}.",
            hint="Mend its permissions, or name the right file.",
            file=str(path),
        ) from None
    if len(secret) != KEY_BYTES:
        raise MasqueError(
            f"{path} is not the key of a store: it has not {KEY_BYTES} bytes.",
            hint="Put the right key file there.",
        )
    return StoreKey(secret)


def _keep(path: Path, secret: bytes) -> None:
    """Write a new key, whole or not at all."""
    try:
        replace(path, secret)
    except OSError as error:
        raise unwritable(path, error) from None


def next_key(path: Path) -> Path:
    """Where the key is that replaces the one at `path`, while it is being rotated."""
    return path.with_name(f"{path.name}.next")


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
