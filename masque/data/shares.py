"""From an owner's file to one stream of shares for each party, in bounded memory.

The file is read twice: first every cell is checked, so that nothing at all is sent of a file with
a fault in its last row; then it is read again, encoded, split and cut into chunks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from masque.data.chunks import MAX_CHUNK_BYTES
from masque.data.encode import Encoder
from masque.data.faults import fault
from masque.data.identifiers import IdentifierDigest
from masque.data.readers import Block, Reader, open_table
from masque.data.schema import Schema
from masque.data.table import TableInfo
from masque.errors import DataError
from masque.mpc import sharing

Words = NDArray[np.uint64]
Progress = Callable[[Literal["check", "share"], int, int | None], None]
"""`progress(phase, rows done, rows in all if known)`."""

CHUNK_BYTES = 2**20
MAX_DESCRIPTION = 3 * 2**20
"""Bytes of a table's public description, which travels in one message."""

MAX_FAULTS = 5
"""Faulty columns after which a file is not read any further."""


@dataclass(frozen=True)
class Chunk:
    """Rows `first_row`.. (from 0): one uint64 matrix [rows, columns] a party, in party order."""

    first_row: int
    rows: int
    shares: tuple[Words, ...] = field(repr=False)

    def payload(self, party: int) -> bytes:
        """The share of `party` as it travels: C order, little-endian."""
        return self.shares[party].astype("<u8", copy=False).tobytes()


class ShareStream:
    """A checked file, ready to be sent: `info`, `identifiers` and `chunks()`.

    `identifiers` holds one uint64 array [4] a party (its share of the identifier digest), or
    None. `chunks()` may be run again after a failed upload: each run is a fresh, whole sharing.
    """

    def __init__(
        self,
        reader: Reader,
        parties: int,
        randomness: sharing.Randomness,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        progress: Progress | None = None,
    ) -> None:
        assert parties >= 2, "sharing takes two parties or more"
        assert 0 < chunk_bytes <= MAX_CHUNK_BYTES, "chunks must stay well under 4 MiB"
        self._reader = reader
        self._parties = parties
        self._randomness = randomness
        self._chunk_bytes = chunk_bytes
        self._progress = progress
        self._fingerprint = _fingerprint(reader.path)
        self.info, self._digest = check(reader, progress)
        if len(self.info.model_dump_json()) > MAX_DESCRIPTION:
            raise fault(
                reader.path,
                f"has {self.info.columns} encoded columns, whose names alone are too much for one "
                "message.",
                "Shorten the names, or ignore columns that are not needed.",
            )
        self.identifiers: tuple[Words, ...] | None = None
        if self._digest is not None:
            self.identifiers = tuple(sharing.split(self._digest, parties, randomness))

    def __repr__(self) -> str:
        return f"ShareStream({self._reader.path.name}, {self.info.rows} rows)"

    def chunks(self) -> Iterator[Chunk]:
        """All rows in order. Errors: DataError if the file changed since it was checked.

        The error may come after chunks were given out: commit an upload only at the end.
        """
        row = 0
        per_chunk = max(1, self._chunk_bytes // (8 * self.info.columns))
        for matrix in recut(self._matrices(), per_chunk):
            shares = tuple(sharing.split(matrix, self._parties, self._randomness))
            yield Chunk(row, len(matrix), shares)
            row += len(matrix)
            if self._progress:
                self._progress("share", row, self.info.rows)

    def _matrices(self) -> Iterator[Words]:
        encoder = Encoder(self._reader)
        identifiers = _identifier_digest(self._reader)
        rows = 0
        for block in self._reader.blocks():
            rows += block.rows
            if rows > self.info.rows:
                break
            if identifiers is not None:
                identifiers.update(block)
            yield encoder.encode(block)
        same = rows == self.info.rows and self._fingerprint == _fingerprint(self._reader.path)
        if identifiers is not None and self._digest is not None:
            same = same and bool(np.array_equal(identifiers.words(), self._digest))
        if not same:
            raise _changed(self._reader.path)


def share_stream(
    path: str | Path,
    schema: Schema,
    parties: int,
    randomness: sharing.Randomness,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress | None = None,
) -> ShareStream:
    """Check the whole of `path`, then offer its shares for `parties` parties as chunks.

    `randomness`: `os.urandom`, or `prg.reader` of a fresh seed (faster). Memory: a few blocks of
    the file and chunks, whatever its size. Errors: DataError naming file, row and column.
    """
    reader = open_table(path, schema)
    return ShareStream(reader, parties, randomness, chunk_bytes=chunk_bytes, progress=progress)


def check(reader: Reader, progress: Progress | None = None) -> tuple[TableInfo, Words | None]:
    """Read and encode everything once: the table's description and its identifier digest.

    The first fault of each column is reported, of up to `MAX_FAULTS` columns together.

    The digest (uint64 [4], or None without identifiers) is secret: share it, never show it.
    """
    encoder = Encoder(reader)
    identifiers = _identifier_digest(reader)
    checks: dict[str, Callable[[Block], None]] = {
        name: partial(encoder.encode_column, name=name) for name in encoder.sources
    }
    if identifiers is not None:
        checks[reader.schema.identifiers[0]] = identifiers.update
    faults: list[DataError] = []
    rows = 0
    for block in reader.blocks():
        for name in list(checks):
            try:
                checks[name](block)
            except DataError as error:
                faults.append(error)
                del checks[name]
                if len(faults) == MAX_FAULTS:
                    raise together(faults) from None
        rows += block.rows
        if progress:
            progress("check", rows, None)
    if faults:
        raise together(faults)
    return reader.schema.describe(rows), identifiers.words() if identifiers else None


def together(faults: list[DataError]) -> DataError:
    """One error for the first fault of each of several columns; `where` is that of the first."""
    first, *others = faults
    if not others:
        return first
    more = "".join(f"\n- {other.message}" for other in others)
    return DataError(
        first.message, hint=f"{first.hint}\nOther columns have faults too:{more}", **first.where
    )


def recut(matrices: Iterable[Words], rows: int) -> Iterator[Words]:
    """The rows of `matrices`, in order, as matrices of exactly `rows` rows (the last has less)."""
    waiting: list[Words] = []
    count = 0
    for matrix in matrices:
        start = 0
        while count + len(matrix) - start >= rows:
            stop = start + rows - count
            waiting.append(matrix[start:stop])
            yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
            waiting, count, start = [], 0, stop
        if start < len(matrix):
            waiting.append(matrix[start:])
            count += len(matrix) - start
    if waiting:
        yield np.concatenate(waiting)


def _identifier_digest(reader: Reader) -> IdentifierDigest | None:
    names = reader.schema.identifiers
    return IdentifierDigest(reader, names[0]) if names else None


def _fingerprint(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _changed(path: Path) -> DataError:
    return fault(
        path,
        "has changed while it was being shared; nothing of it was kept.",
        "Wait until whatever writes it is done, then share it again.",
    )
