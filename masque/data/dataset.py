"""A stored data set, opened for reading: the same shares until it is closed, come what may."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from masque.data.chunks import IDENTIFIER_WORDS
from masque.data.commitments import KEY_BYTES, Commitment
from masque.data.disk import damaged
from masque.data.keys import StoreKey
from masque.data.pages import PAGE, read_pages
from masque.data.upload import COMMITMENT, IDENTIFIERS, ROWS, Entry
from masque.errors import NotFound

Words = NDArray[np.uint64]


def contents(entry: Entry) -> dict[str, int]:
    """The files of a data set, rows first, and how many bytes each holds unencrypted."""
    found = {ROWS: entry.size}
    if entry.info.has_identifiers:
        found[IDENTIFIERS] = 8 * IDENTIFIER_WORDS
    if entry.commitment:
        found[COMMITMENT] = KEY_BYTES
    return found


class Dataset:
    """One party's shares of one upload; safe for several threads, and a context manager.

    It stays readable if the data set is replaced or deleted meanwhile, so that a job reads one
    and the same upload from its first round to its last.
    """

    def __init__(self, entry: Entry, folder: Path, key: StoreKey) -> None:
        self.entry = entry
        self._files: dict[str, int] = {}
        self._ciphers = {name: key.cipher(folder.name, name) for name in contents(entry)}
        try:
            for name in contents(entry):
                self._files[name] = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise damaged(entry.name) from None

    def __repr__(self) -> str:
        return f"Dataset({self.entry.name}, {self.entry.info.rows} rows)"

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def rows(self, rows: slice = slice(None)) -> Words:
        """This party's share of contiguous rows: a fresh uint64 array [rows, columns].

        Reads just the pages that hold them, so memory stays bounded. Errors: MasqueError if the
        file is damaged.
        """
        start, stop, step = rows.indices(self.entry.info.rows)
        assert step == 1, "only contiguous rows can be read"
        count = max(0, stop - start)
        width = self.entry.info.columns
        return self._words(ROWS, start * width, count * width).reshape(count, width)

    def identifiers(self) -> Words:
        """This party's share of the identifier digest, uint64 [4]. Errors: NotFound."""
        if not self.entry.info.has_identifiers:
            raise NotFound(
                f"the data set {self.entry.name!r} has no identifiers.",
                hint="Share it with an identifier column, at every owner.",
                dataset=self.entry.name,
            )
        return self._words(IDENTIFIERS, 0, IDENTIFIER_WORDS)

    def content(self, file: str) -> Iterator[bytearray]:
        """All of one of `contents`, page by page. Errors: MasqueError if it is damaged."""
        size = contents(self.entry)[file]
        for first in range(0, size, PAGE):
            yield self._read(file, first, min(PAGE, size - first))

    def commitment(self) -> str:
        """The commitment to what is stored here, computed anew; empty if it has no key."""
        if not self.entry.commitment:
            return ""
        key = b"".join(self.content(COMMITMENT))
        found = Commitment(key, self.entry.info)
        for name in contents(self.entry):
            if name != COMMITMENT:
                for part in self.content(name):
                    found.update(part)
        return found.value()

    def _read(self, file: str, first: int, size: int) -> bytearray:
        assert file in self._files, "the data set is closed"
        cipher = self._ciphers[file]
        return read_pages(self._files[file], self.entry.name, cipher, first, size)

    def _words(self, file: str, first: int, count: int) -> Words:
        content = self._read(file, 8 * first, 8 * count)
        return np.frombuffer(content, dtype="<u8").astype(np.uint64, copy=False)
