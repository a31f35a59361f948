"""One upload of shares on its way into a party's store; see `store`."""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field

from masque.data.chunks import IDENTIFIER_WORDS, MAX_CHUNK_BYTES, checksum
from masque.data.commitments import KEY_BYTES, Commitment
from masque.data.disk import create, full, sync
from masque.data.keys import StoreKey
from masque.data.pages import PageWriter
from masque.data.table import TableInfo, canonical_json
from masque.errors import InputError, MasqueError, ProtocolError

ROWS = "rows.u64"
IDENTIFIERS = "identifiers.u64"
COMMITMENT = "commitment.key"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """`name`, if a data set may be called so (no paths, no surprises); InputError otherwise."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} cannot be the name of a data set.",
            hint="Use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit.",
            name=name[:80],
        )
    return name


class Entry(BaseModel):
    """One visible data set. `upload_id` is the same at all parties of one upload.

    `commitment` is that to the share (`masque.data.commitments`). `conditions`: what its owner has
    signed, if anything. `seal`: of all the rest, by the store's key; nothing is believed without.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    owner: str
    upload_id: str
    info: TableInfo
    created: float
    folder: str = Field(pattern=r"^[0-9a-f]{32}$", repr=False)
    key_name: str
    commitment: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    conditions: str = Field(default="", repr=False)
    seal: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", repr=False)

    def sealed(self, key: StoreKey) -> Entry:
        """The same with its seal."""
        return self.model_copy(update={"seal": self._seal(key)})

    def intact(self, key: StoreKey) -> bool:
        """Whether nobody without the key has changed anything."""
        try:
            due = self._seal(key)
        except ValueError:  # a number without a spelling: nobody has sealed that
            return False
        return hmac.compare_digest(self.seal.encode(), due.encode())

    def _seal(self, key: StoreKey) -> str:
        content = self.model_dump(mode="json", exclude={"seal"})
        return key.seal(self.folder, canonical_json(content))

    @property
    def size(self) -> int:
        """Bytes of this party's shares."""
        return self.info.share_bytes


@dataclass(eq=False)
class Writer:
    """One upload in progress: `write` chunks in order, then `commit`; or `abort`.

    A context manager that aborts what was not committed.
    """

    name: str
    info: TableInfo
    upload_id: str
    owner: str
    replace: bool
    folder: Path = field(repr=False)
    key: StoreKey = field(repr=False)
    publish: Callable[[Writer], Entry] = field(repr=False)
    forget: Callable[[Writer], None] = field(repr=False)
    conditions: str = field(default="", repr=False)
    row: int = 0
    _file: IO[bytes] | None = field(default=None, repr=False)
    _pages: PageWriter | None = field(default=None, repr=False)
    _identifiers: bytes | None = field(default=None, repr=False)
    _commitment: Commitment | None = field(default=None, repr=False)
    _open: bool = field(default=True, repr=False)

    def __post_init__(self) -> None:
        with self._disk():
            self.folder.mkdir(mode=0o700)
            self._file = create(self.folder / ROWS)
            self._pages = self._encrypted(self._file, ROWS)
            key = os.urandom(KEY_BYTES)
            self._write_small(COMMITMENT, key)
        self._commitment = Commitment(key, self.info)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def missing(self) -> int:
        """Bytes that are still to come."""
        return (self.info.rows - self.row) * self.info.columns * 8

    def write(self, first_row: int, rows: int, payload: bytes | memoryview, crc: int) -> None:
        """Takes the next chunk: uint64 [rows, columns], C order, little-endian.

        Errors: ProtocolError for a chunk out of order, of another size or with a wrong checksum,
        after which the upload is over; Refused if the disk is full.
        """
        pages = self._check_open()
        try:
            self._check_chunk(first_row, rows, payload, crc)
            with self._disk():
                pages.write(payload)
        except MasqueError:
            self.abort()
            raise
        assert self._commitment is not None, "the upload is open"
        self._commitment.update(payload)
        self.row += rows

    def write_identifiers(self, payload: bytes | memoryview) -> None:
        """Takes this party's share of the identifier digest: 4 uint64 words, once.

        Errors: ProtocolError if the table has no identifiers, or it came before.
        """
        self._check_open()
        problem = ""
        if not self.info.has_identifiers:
            problem = "an identifier digest for a table without identifiers"
        elif memoryview(payload).nbytes != 8 * IDENTIFIER_WORDS:
            problem = f"an identifier digest that has not {8 * IDENTIFIER_WORDS} bytes"
        elif self._identifiers is not None:
            problem = "an identifier digest twice"
        if problem:
            self.abort()
            raise self._refusal(problem)
        with self._disk():
            self._write_small(IDENTIFIERS, payload)
        self._identifiers = bytes(payload)

    def commit(self) -> Entry:
        """Makes the data set durable and visible, at once or not at all.

        Errors: ProtocolError if rows or identifiers are missing, Conflict if the name was taken
        in the meantime, Refused if the disk is full, MasqueError if it is visible and may not last.
        """
        pages = self._check_open()
        try:
            identified = self._identifiers is not None
            if self.row != self.info.rows or identified != self.info.has_identifiers:
                lacking = "" if identified else " and without its identifier digest"
                raise self._refusal(
                    f"it ended after {self.row} of {self.info.rows} rows"
                    + (lacking if self.info.has_identifiers else "")
                )
            with self._disk():
                pages.finish()
                sync(self.folder)
                sync(self.folder.parent)
                entry = self.publish(self)
        except BaseException:
            self.abort()
            raise
        return entry

    def visible(self) -> None:
        """The store has it: `abort` does nothing any more."""
        self._open = False
        self._close()

    def commitment(self) -> str:
        """The commitment to the share, once all of it has come."""
        assert self._commitment is not None and not self.missing, "the share is whole"
        found = self._commitment.copy()
        found.update(self._identifiers or b"")
        return found.value()

    def abort(self) -> None:
        """Gives the upload up and removes what it wrote. Does nothing after `commit`."""
        if not self._open:
            return
        self._open = False
        self._close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.forget(self)

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk cannot flush its last bytes
                self._file.close()

    def _write_small(self, name: str, content: bytes | memoryview) -> None:
        with create(self.folder / name) as file:
            pages = self._encrypted(file, name)
            pages.write(content)
            pages.finish()

    def _encrypted(self, file: IO[bytes], name: str) -> PageWriter:
        return PageWriter(file, self.key.cipher(self.folder.name, name))

    def _check_open(self) -> PageWriter:
        if not self._open or self._pages is None:
            raise ProtocolError(
                f"the upload of {self.name!r} is over.", hint="Begin another.", dataset=self.name
            )
        return self._pages

    def _check_chunk(
        self, first_row: int, rows: int, payload: bytes | memoryview, crc: int
    ) -> None:
        size = memoryview(payload).nbytes
        problem = ""
        if first_row != self.row:
            problem = f"a chunk begins at row {first_row} where row {self.row} is due"
        elif rows < 1 or self.row + rows > self.info.rows:
            problem = f"a chunk of {rows} rows at row {self.row} of {self.info.rows}"
        elif size != rows * self.info.columns * 8:
            problem = f"a chunk of {rows} rows has {size} bytes, not {rows * self.info.columns * 8}"
        elif size > max(MAX_CHUNK_BYTES, self.info.columns * 8):
            problem = f"a chunk of {size} bytes is larger than {MAX_CHUNK_BYTES}"
        elif checksum(payload) != crc:
            problem = f"the chunk at row {first_row} does not match its checksum"
        if problem:
            raise self._refusal(problem)

    def _refusal(self, problem: str) -> ProtocolError:
        return ProtocolError(
            f"upload of {self.name!r}: {problem}.",
            hint="Nothing of it was kept; share the data again.",
            dataset=self.name,
        )

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.abort()
            raise full(self.info.share_bytes, error.strerror) from None
