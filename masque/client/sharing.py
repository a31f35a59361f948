"""A file to shares at all parties: streamed to all of them at once, visible at all or at none.

Every party gets its own stream. Only when all of them have taken everything are the uploads
committed, one party after the other; whatever goes wrong before, no party shows anything.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from masque.client.services import BRIEF, Peer
from masque.data import schema as schemas
from masque.data.chunks import checksum
from masque.data.shares import Chunk, Progress, share_stream
from masque.data.table import TableInfo
from masque.errors import MasqueError, SpecError
from masque.jobs.conditions import Conditions
from masque.jobs.section import NAME
from masque.mpc import prg
from masque.v1 import party_pb2 as messages
from masque.wire import conditions as signed
from masque.wire.tls import Credentials

WAITING = 4
"""Chunks that wait for one party at most."""

SLOWEST = 100_000
"""Bytes a second: an upload that is slower runs into its deadline."""

_PATIENCE = 600.0


@dataclass(frozen=True)
class Shared:
    """A data set that all parties now hold a share of."""

    name: str
    upload_id: str
    info: TableInfo
    parties: tuple[str, ...]

    @property
    def bytes_sent(self) -> int:
        """To all parties together."""
        return self.info.share_bytes * len(self.parties)


class Stream(Protocol):
    """Shares on their way; `masque.data.shares.ShareStream` says what they are."""

    @property
    def info(self) -> TableInfo:
        """What everybody may know about them."""

    @property
    def identifiers(self) -> tuple[NDArray[np.uint64], ...] | None:
        """Each party's share of the identifier digest."""

    def chunks(self) -> Iterator[Chunk]:
        """All rows in order."""


def share(
    parties: Sequence[Peer],
    path: str | Path,
    schema: str | Path,
    name: str,
    *,
    replace: bool = False,
    conditions: Attach | None = None,
    progress: Progress | None = None,
) -> Shared:
    """Check the file, split it, upload it. Memory stays bounded whatever the file's size.

    `conditions` signs what its owner allows for the upload (`signing`).
    Raises DataError naming file, row and column; Conflict for a name that exists; Unavailable.
    """
    _check_name(name)
    seed = prg.reader(secrets.token_bytes(prg.SEED_SIZE))
    stream = share_stream(path, schemas.load(schema), len(parties), seed, progress=progress)
    return send(parties, stream, name, replace=replace, conditions=conditions)


Attach = Callable[[str, str, TableInfo, Sequence[str]], str]
"""Signs conditions: name, upload, description and parties of a data set in, text out."""


def signing(conditions: Conditions, credentials: Credentials) -> Attach:
    """The conditions of a data set's owner, to be signed by its key for the upload."""

    def attach(name: str, upload: str, info: TableInfo, parties: Sequence[str]) -> str:
        return signed.attach(
            conditions, credentials, dataset=name, upload=upload, info=info, parties=parties
        )

    return attach


def send(
    parties: Sequence[Peer],
    stream: Stream,
    name: str,
    *,
    replace: bool = False,
    conditions: Attach | None = None,
) -> Shared:
    """Upload what is split already.

    Raises Conflict for a name that exists, or whose conditions would be lost; Unavailable.
    """
    _check_name(name)
    _check_free(parties, name, replace, conditions is not None)
    upload_id, names = secrets.token_hex(16), tuple(party.name for party in parties)
    text = conditions(name, upload_id, stream.info, names) if conditions else ""
    _send(parties, stream, name, upload_id, replace, text)
    return Shared(name, upload_id, stream.info, names)


def _check_name(name: str) -> None:
    import re

    if not re.fullmatch(NAME, name):
        raise SpecError(
            f"{name!r} cannot be the name of a data set.",
            hint="Use 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first.",
            field="name",
        )


def _check_free(parties: Sequence[Peer], name: str, replace: bool, conditioned: bool) -> None:
    """Ask before a long upload what each party would say after it."""
    from masque.errors import Conflict

    for party in parties:
        with party.calling() as stub:
            reply = stub.ListDatasets(messages.ListDatasetsRequest(), timeout=BRIEF)
        there = [found for found in reply.datasets if found.name == name]
        if there and not replace:
            raise Conflict(
                f"The data set {name!r} exists already at {party.identity}.",
                hint="Choose another name, or replace it with --replace.",
                dataset=name,
            )
        if there and there[0].conditions and not conditioned:
            raise Conflict(
                f"The data set {name!r} has conditions at {party.identity}, and would lose them.",
                hint="Give them again with --conditions; or delete it first, if they are to go.",
                dataset=name,
            )


class _Upload:
    """One party's stream: what is put here travels to it in order."""

    def __init__(self, party: Peer, timeout: float) -> None:
        self.party = party
        self._waiting: queue.Queue[Any] = queue.Queue(WAITING)
        self._idle = threading.Event()
        self._over = threading.Event()
        self.call = party.stub.Upload.future(self._messages(), timeout=timeout)
        self.call.add_done_callback(lambda _: self._over.set())

    def put(self, message: Any) -> None:
        """Hand over the next message; raises what the party said against it."""
        self._idle.clear()
        while True:
            self.check()
            try:
                self._waiting.put(message, timeout=0.1)
                return
            except queue.Full:
                continue

    def settle(self) -> None:
        """Wait until everything has been taken."""
        while not (self._idle.wait(0.05) and self._waiting.empty()):
            self.check()
        self.check()

    def check(self) -> None:
        """Raise if the party has ended the call."""
        if self._over.is_set():
            self.result()
            raise MasqueError(f"{self.party.identity} ended the upload early.")

    def result(self) -> Any:
        """The party's answer."""
        try:
            return self.call.result()
        except grpc.RpcError as error:
            raise self.party.meaning(error) from error

    def end(self) -> None:
        """Break it off unless it is over."""
        self.call.cancel()
        while True:  # the thread that reads our messages must not wait for ever
            try:
                self._waiting.put_nowait(None)
                return
            except queue.Full:
                self._waiting.get_nowait()

    def _messages(self) -> Iterator[Any]:
        while True:
            if self._waiting.empty():
                self._idle.set()
            message = self._waiting.get()
            if message is None:
                return
            yield message
            if message.WhichOneof("part") == "commit":
                return


def _send(
    parties: Sequence[Peer],
    stream: Stream,
    name: str,
    upload_id: str,
    replace: bool,
    conditions: str,
) -> None:
    timeout = _PATIENCE + stream.info.share_bytes / SLOWEST
    uploads = [_Upload(party, timeout) for party in parties]
    committed: list[Peer] = []
    try:
        for index, upload in enumerate(uploads):
            upload.put(_header(stream, index, name, upload_id, replace, conditions))
        for chunk in stream.chunks():
            for index, upload in enumerate(uploads):
                upload.put(_chunk(chunk, index))
        for upload in uploads:
            upload.settle()
        for upload in uploads:
            upload.put(messages.UploadMessage(commit=True))
            upload.result()
            committed.append(upload.party)
    except BaseException:
        if not replace:
            _take_back(committed, name)
        raise
    finally:
        for upload in uploads:
            upload.end()


def _header(
    stream: Stream, index: int, name: str, upload_id: str, replace: bool, conditions: str
) -> messages.UploadMessage:
    words: list[int] = []
    if stream.identifiers is not None:
        words = [int(word) for word in stream.identifiers[index]]
    return messages.UploadMessage(
        header=messages.UploadHeader(
            name=name,
            upload_id=upload_id,
            table_json=stream.info.model_dump_json(),
            replace=replace,
            identifiers=words,
            conditions=conditions,
        )
    )


def _chunk(chunk: Any, index: int) -> messages.UploadMessage:
    payload = chunk.payload(index)
    return messages.UploadMessage(
        chunk=messages.UploadChunk(
            first_row=chunk.first_row,
            rows=chunk.rows,
            share=payload,
            checksum=int(np.uint32(checksum(payload))),
        )
    )


def _take_back(committed: Sequence[Peer], name: str) -> None:
    """Remove what only some parties have, as far as they answer."""
    for party in committed:
        try:
            with party.calling() as stub:
                stub.DeleteDataset(messages.DeleteDatasetRequest(name=name), timeout=BRIEF)
        except MasqueError:  # the first error is the one to tell
            continue
