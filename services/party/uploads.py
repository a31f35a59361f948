"""Taking in a data set's share: from the messages of one `Upload` call into the store."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from masque.data.store import Store
from masque.data.table import parse_table
from masque.data.upload import Writer
from masque.errors import NotFound, ProtocolError, Refused
from masque.jobs.section import NAME
from masque.v1.party_pb2 import UploadHeader, UploadMessage, UploadReply
from masque.wire.conditions import believe, check_of_upload
from masque.wire.tls import MAX_REPLY
from masque.wire.trust import Trust

MOST_DESCRIBED = MAX_REPLY * 3 // 4
"""Bytes of the descriptions of all data sets together: they are listed in one reply."""

MOST_UPLOADS, MOST_OF_ONE = 24, 8
"""Uploads at a time, of all owners and of one: each holds one of the server's threads."""


class Places:
    """Room for uploads, so that slow ones leave threads for jobs and for other owners."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken: Counter[str] = Counter()

    @property
    def busy(self) -> bool:
        """Whether any upload is under way."""
        with self._lock:
            return self._taken.total() > 0

    @property
    def count(self) -> int:
        """Uploads under way."""
        with self._lock:
            return self._taken.total()

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """A place while the context lasts. Raises Refused if there is none."""
        with self._lock:
            if self._taken[owner] >= MOST_OF_ONE or self._taken.total() >= MOST_UPLOADS:
                raise Refused(
                    f"{self._taken[owner]} uploads of {owner!r} and {self._taken.total()} in all "
                    "are under way, as many as may be.",
                    hint="Share one data set after the other.",
                    peer=owner,
                )
            self._taken[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[owner] -= 1
                self._taken += Counter()  # forgets owners without uploads


def take_in(
    messages: Iterator[UploadMessage], store: Store, owner: str, party: str, trust: Trust
) -> UploadReply:
    """One upload, whole or not at all; visible once the owner's `commit` has come.

    Raises what the store raises; ProtocolError for messages out of order, or if they end early;
    IdentityError for conditions that are not the owner's for this upload.
    """
    first = next(messages, None)
    if first is None or first.WhichOneof("part") != "header":
        raise _wrong("an upload begins with its header", owner)
    _check_conditions(first.header, owner, party, trust)
    with _begin(first.header, store, owner) as writer:
        for message in messages:
            match message.WhichOneof("part"):
                case "chunk":
                    chunk = message.chunk
                    writer.write(chunk.first_row, chunk.rows, chunk.share, chunk.checksum)
                case "commit":
                    entry = writer.commit()
                    return UploadReply(rows=entry.info.rows, bytes=entry.size)
                case other:
                    raise _wrong(f"{other or 'nothing'!r} is no part of an upload's rows", owner)
        raise _wrong(f"the upload of {writer.name!r} ended before its commit", owner)


def _begin(header: UploadHeader, store: Store, owner: str) -> Writer:
    info = parse_table(header.table_json)
    _check_listable(header, store)
    writer = store.begin(
        header.name,
        info,
        header.upload_id,
        owner=owner,
        replace=header.replace,
        conditions=header.conditions,
    )
    if header.identifiers:
        try:
            writer.write_identifiers(
                struct.pack(f"<{len(header.identifiers)}Q", *header.identifiers)
            )
        except BaseException:
            writer.abort()
            raise
    return writer


def _check_conditions(header: UploadHeader, owner: str, party: str, trust: Trust) -> None:
    if header.conditions:
        check_of_upload(
            believe(header.conditions, trust),
            owner=owner,
            dataset=header.name,
            upload=header.upload_id,
            info=parse_table(header.table_json),
            party=party,
        )


def _check_listable(header: UploadHeader, store: Store) -> None:
    """Refused if the list of all data sets would no longer fit one message: it is for everybody."""
    others = (
        e.info.model_dump_json() + e.conditions for e in store.list() if e.name != header.name
    )
    size = len((header.table_json + header.conditions).encode())
    size += sum(len(text.encode()) for text in others)
    if size > MOST_DESCRIBED:
        raise Refused(
            f"the data sets here would have descriptions of {size} bytes together; "
            f"{MOST_DESCRIBED} are the most.",
            hint="Delete data sets that are no longer needed, or share fewer columns.",
            dataset=header.name,
        )


def checked_job_id(job_id: str) -> str:
    """`job_id`, if a job may be called so: it becomes part of a file's name."""
    if not re.fullmatch(NAME, job_id):
        raise NotFound(f"there is no job {job_id[:80]!r}.", hint="Check its id: `masque jobs`.")
    return job_id


def _wrong(what: str, owner: str) -> ProtocolError:
    return ProtocolError(f"{what}.", hint="Nothing of it was kept: share it again.", peer=owner)
