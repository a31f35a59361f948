"""A computing party's own shares on disk: whole data sets or nothing, through any crash.

    <directory>/key                     encrypts the shares, unless it lies elsewhere
    <directory>/lock                    held by the one process that uses the store
    <directory>/datasets/<name>.json    what is visible: description, owner, conditions, folder;
                                        under a seal by the key: without it, whoever can write
                                        here and has no key could make us believe anything
    <directory>/shares/<random>/        rows.u64 (the share matrix), identifiers.u64 (4 words),
                                        commitment.key (see `commitments`)
    <directory>/deleted/<random>.json   what has gone and is not yet in the ledger

An upload is written to a folder of its own that nothing names yet. `commit` makes it durable and
then renames one small file into `datasets/`: before that the data set does not exist, after it
does, and a replaced one changes over in the same step. Opening the store removes the folders that
nothing names. Files are 0600 and directories 0700; shares are encrypted (see `pages`) and never
logged.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from masque.data.dataset import Dataset, contents
from masque.data.deletions import Deletions, Note
from masque.data.disk import (
    create,
    damaged,
    flush,
    foreign,
    full,
    lock,
    make_directory,
    sync,
    tidy,
    unwritable,
)
from masque.data.keys import StoreKey, store_key
from masque.data.pages import stored_size
from masque.data.quota import Holding, Quota
from masque.data.spool import FileRows
from masque.data.table import TableInfo
from masque.data.upload import Entry, Writer, check_name
from masque.errors import Conflict, InputError, MasqueError, NotFound
from masque.mpc.types import Shape

Words = NDArray[np.uint64]

UPLOAD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SPARE_BYTES = 64 * 2**20


class Store:
    """The data sets of one party. One process at a time; safe for several threads."""

    def __init__(
        self,
        directory: str | Path,
        *,
        key_file: str | Path | None = None,
        key_command: Sequence[str] = (),
        quota: Quota = Quota(),  # noqa: B008 - it never changes
    ) -> None:
        """Opens or creates `directory`, removing what a crash left behind.

        `key_file`: 32 bytes that encrypt the shares, best kept on another disk; the default is
        `directory`/key. It is created with an empty store. `key_command`: an agent that has them
        instead (see `keys`). Errors: Conflict if another process has the store open; MasqueError
        if its key is missing or another.
        """
        self._root = Path(directory)
        self._names = self._root / "datasets"
        self._shares = self._root / "shares"
        self._quota = quota
        self._guard = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._writers: set[Writer] = set()
        self._damaged: dict[str, Entry | None] = {}
        self._spooled = 0
        for path in (self._root, self._names, self._shares):
            make_directory(path)
        self._lock = lock(self._root / "lock")
        try:
            tidy(self._root)
            self._deletions = Deletions(self._root / "deleted")
            self._recover()
            path = Path(key_file) if key_file else self._root / "key"
            empty = not self._entries and not self._damaged
            self._key = store_key(path, key_command, create_if_missing=empty)
            self._check_key()
            self._check_seals()
        except BaseException:
            self._lock.close()
            raise

    @property
    def directory(self) -> Path:
        """Where everything is kept."""
        return self._root

    @property
    def key(self) -> StoreKey:
        """What encrypts the shares."""
        return self._key

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up unfinished uploads and lets another process open the store."""
        for writer in list(self._writers):
            writer.abort()
        self._lock.close()

    def list(self) -> list[Entry]:
        """All data sets, by name."""
        with self._guard:
            return [self._entries[name] for name in sorted(self._entries)]

    def entry(self, name: str) -> Entry:
        """The data set `name`. Errors: NotFound; MasqueError if it is damaged."""
        check_name(name)
        with self._guard:
            entry = self._entries.get(name)
        if name in self._damaged:
            raise damaged(name)
        if entry is None:
            raise NotFound(
                f"there is no data set {name!r} here.",
                hint="`masque datasets` lists those that exist.",
                dataset=name,
            )
        return entry

    @property
    def damaged(self) -> tuple[str, ...]:
        """Names of data sets that cannot be used; the operator deletes them."""
        with self._guard:
            return tuple(sorted(self._damaged))

    def info(self, name: str) -> TableInfo:
        """The public description of `name`. Errors: NotFound."""
        return self.entry(name).info

    @property
    def size(self) -> int:
        """Bytes of shares held and being uploaded."""
        with self._guard:
            return self._size()

    def _size(self) -> int:
        return sum(size for _, size in self._holdings())

    def _holdings(self) -> Iterator[Holding]:
        yield from ((entry.owner, entry.size) for entry in self._entries.values())
        yield from ((writer.owner, writer.info.share_bytes) for writer in self._writers)

    def spool(self, shape: Shape) -> FileRows:
        """Room on disk for a job's opened masked values; counted until it is let go.

        Errors: Refused if the store may not hold so much, or the disk has no room.
        """
        size = 8 * prod(shape)
        with self._guard:
            self._quota.check_spool(size, self._size() + self._spooled)
            self._spooled += size
        try:
            rows = FileRows(self._root, shape)
        except BaseException:
            self._let_go(size)
            raise
        weakref.finalize(rows, self._let_go, size)
        return rows

    def _let_go(self, size: int) -> None:
        with self._guard:
            self._spooled -= size

    def open(self, name: str) -> Dataset:
        """The data set `name` as it is now, to be read from and closed. Errors: as `entry`."""
        with self._guard:
            entry = self.entry(name)
            return Dataset(entry, self._shares / entry.folder, self._key)

    def rows(self, name: str, rows: slice = slice(None)) -> Words:
        """This party's share of these rows; `open` and `Dataset.rows` for more than one read."""
        with self.open(name) as dataset:
            return dataset.rows(rows)

    def identifiers(self, name: str) -> Words:
        """This party's share of the identifier digest, uint64 [4]. Errors: NotFound."""
        with self.open(name) as dataset:
            return dataset.identifiers()

    def begin(
        self,
        name: str,
        info: TableInfo,
        upload_id: str,
        *,
        owner: str = "",
        replace: bool = False,
        conditions: str = "",
    ) -> Writer:
        """A writer for the data set `name`; nothing is visible before its `commit`.

        `conditions`: what its owner has signed; the store keeps it, and does not read it.
        Errors: InputError for a bad name, Conflict if it exists (or belongs to another owner),
        Refused if there is no room.
        """
        check_name(name)
        if not UPLOAD.fullmatch(upload_id):
            raise InputError("the upload id must be 1 to 64 letters, digits, '_' or '-'.")
        with self._guard:
            self._check_free(name, owner, replace)
            self._check_room(info, owner)
            folder = self._shares / secrets.token_hex(16)
            writer = Writer(
                name,
                info,
                upload_id,
                owner,
                replace,
                folder,
                self._key,
                self._publish,
                self._forget,
                conditions,
            )
            self._writers.add(writer)
        return writer

    def delete(self, name: str, *, owner: str | None = None) -> None:
        """Removes `name` and its shares. Errors: NotFound; Refused if `owner` is not its owner;
        MasqueError if the disk fails: try again.

        A damaged one goes as well; if its description says no owner, only `owner=None` removes it.
        """
        check_name(name)
        with self._guard:
            entry = self._damaged[name] if name in self._damaged else self.entry(name)
            if owner is not None and (entry is None or owner != entry.owner):
                raise foreign(name, "Only its owner may delete it.") if entry else damaged(name)
            description = self._names / f"{name}.json"
            try:
                if entry is not None:
                    self._deletions.take(description, entry)
                else:
                    description.unlink(missing_ok=True)
                    sync(self._names)
            except OSError as error:
                raise unwritable(description, error) from None
            self._entries.pop(name, None)
            self._damaged.pop(name, None)
        if entry is not None:
            shutil.rmtree(self._shares / entry.folder, ignore_errors=True)
            self._deletions.gone(entry, replaced=False)

    def on_deletion(self, note: Note) -> None:
        """`note(entry, replaced)` is called whenever a data set has gone; first for those that went
        when nobody heard of it. Errors: those of `note`.
        """
        with self._guard:
            self._deletions.tell(note, self._entries)

    def _check_free(self, name: str, owner: str, replace: bool) -> None:
        if name not in self._entries and name not in self._damaged:
            return
        entry = self._entries.get(name) or self._damaged.get(name)
        if not replace:
            raise Conflict(
                f"a data set {name!r} exists already.",
                hint="Choose another name, or use --replace.",
                dataset=name,
            )
        if entry is None or entry.owner != owner:
            raise foreign(name, "Choose another name.")

    def _check_room(self, info: TableInfo, owner: str) -> None:
        free = shutil.disk_usage(self._root).free - _SPARE_BYTES
        pending = sum(writer.missing for writer in self._writers)
        if info.share_bytes > free - pending:
            raise full(info.share_bytes)
        self._quota.check_upload(info.share_bytes, owner, self._holdings(), self._spooled)

    def _publish(self, writer: Writer) -> Entry:
        entry = Entry(
            name=writer.name,
            owner=writer.owner,
            upload_id=writer.upload_id,
            info=writer.info,
            created=time.time(),
            folder=writer.folder.name,
            key_name=self._key.name,
            commitment=writer.commitment(),
            conditions=writer.conditions,
        ).sealed(self._key)
        with self._guard:
            self._check_free(writer.name, writer.owner, writer.replace)
            old = self._entries.get(writer.name) or self._damaged.get(writer.name)
            if old is not None:
                self._deletions.remember(self._names / f"{writer.name}.json", old)
            described = writer.folder / "entry.json"
            with create(described) as file:
                file.write(entry.model_dump_json().encode())
                flush(file)
            os.replace(described, self._names / f"{writer.name}.json")
            self._entries[writer.name] = entry
            self._damaged.pop(writer.name, None)
            self._writers.discard(writer)
            writer.visible()
            try:
                sync(self._names)
            except OSError as error:  # and what it replaces stays, should this one be lost
                raise MasqueError(
                    f"the data set {writer.name!r} is stored, and may not last: {error.strerror}.",
                    hint="Share it again with --replace.",
                    dataset=writer.name,
                ) from None
            if old is not None:
                shutil.rmtree(self._shares / old.folder, ignore_errors=True)
                self._deletions.replaced(old)
        return entry

    def _forget(self, writer: Writer) -> None:
        with self._guard:
            self._writers.discard(writer)

    def _recover(self) -> None:
        """Reads what is visible; removes share folders that nothing names.

        If a description cannot be read, the folder it names is unknown: then none is removed.
        """
        for path in sorted(self._names.glob("*.json")):
            try:
                entry = Entry.model_validate_json(path.read_bytes())
            except (ValidationError, OSError):
                self._damaged[path.stem] = None
                continue
            self._entries[path.stem] = entry
        named = {entry.folder for entry in self._entries.values()}
        for path in self._shares.iterdir():
            if path.name not in named and not self._damaged:
                shutil.rmtree(path, ignore_errors=True)
        self._drop([name for name, entry in self._entries.items() if not self._whole(name, entry)])

    def _check_key(self) -> None:
        for name, entry in self._entries.items():
            if entry.key_name != self._key.name:
                raise MasqueError(
                    f"the data set {name!r} in {self._root} was stored under another key.",
                    hint="Name the key that it has; `masque party rotate-key` goes on with a"
                    " rotation that was broken off. Without its key the data must be shared again.",
                    dataset=name,
                )

    def _check_seals(self) -> None:
        """What lacks a true seal cannot be used: nothing tells an old entry from a forged one."""
        self._drop([name for name, entry in self._entries.items() if not entry.intact(self._key)])

    def _drop(self, damaged: Sequence[str]) -> None:
        self._damaged |= {name: self._entries.pop(name) for name in damaged}

    def _whole(self, name: str, entry: Entry) -> bool:
        folder = self._shares / entry.folder
        try:
            return entry.name == name and all(
                (folder / file).stat().st_size == stored_size(size)
                for file, size in contents(entry).items()
            )
        except OSError:
            return False
