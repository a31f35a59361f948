"""The binary frame in which parties exchange masked values: 32 bytes of header, then a payload.

    offset  bytes  field      value
         0      4  magic      b"MSQX"
         4      1  version    1
         5      1  kind       0 greeting, 1 payload
         6      2  reserved   0
         8      4  chunk      0, 1, ... chunks - 1
        12      4  chunks     messages that carry this payload, at least 1
        16      8  position   number of the swap in this attempt of the job, from 0
        24      8  size       bytes of the whole payload, all chunks together
        32      *  payload    chunk number `chunk` of it: at most `CHUNK` bytes

All integers are little-endian and unsigned. A greeting has no payload; it says that the stream is
accepted. A payload beyond `CHUNK` bytes travels in as many messages as it needs, so that none comes
near gRPC's limit of 4 MiB.

All payloads of a swap have equal length, so a party knows every header it is going to receive: it
is the one it sent. Decoding is therefore one comparison; only when that fails are the fields read,
to name the first that differs. Nothing is ever allocated on a peer's word.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from masque.errors import ProtocolError

MAGIC, VERSION = b"MSQX", 1
HEADER = struct.Struct("<4sBBHIIQQ")
CHUNK = 1 << 20
"""Bytes of payload in one message, at most."""

Buffer = bytes | memoryview


class Kind(IntEnum):
    """What a frame is for."""

    GREETING = 0
    PAYLOAD = 1


def chunks_of(size: int) -> int:
    """Messages that carry a payload of `size` bytes: one even if it is empty."""
    return max(1, -(-size // CHUNK))


def header(position: int, size: int, chunk: int = 0, kind: Kind = Kind.PAYLOAD) -> bytes:
    """The 32 bytes before chunk `chunk` of the payload, `size` bytes in all, of swap `position`."""
    return HEADER.pack(MAGIC, VERSION, kind, 0, chunk, chunks_of(size), position, size)


GREETING = header(0, 0, kind=Kind.GREETING)
"""The first message of every stream: accepted."""


def frame(position: int, payload: Buffer, chunk: int = 0) -> bytes:
    """The message that carries chunk `chunk` of `payload` in swap `position`. One copy."""
    start = header(position, len(payload), chunk)
    if len(payload) <= CHUNK:
        return b"".join((start, payload))
    return b"".join((start, memoryview(payload)[chunk * CHUNK : (chunk + 1) * CHUNK]))


class Assembly:
    """The payload of one peer in one swap, as its messages arrive.

    `size` is what the payload must have: the size of our own. The messages of a payload of one
    chunk are not copied; a longer one is gathered in a buffer of exactly `size` bytes.
    """

    __slots__ = ("_buffer", "_chunk", "_peer", "_position", "_single", "_size")

    def __init__(self, peer: str, position: int, size: int) -> None:
        self._peer, self._position, self._size = peer, position, size
        self._chunk = 0
        self._single: memoryview | None = None
        self._buffer = bytearray(size) if size > CHUNK else None

    def add(self, message: bytes) -> None:
        """Take the next message; `ProtocolError` unless it is exactly the expected one."""
        assert self._chunk < chunks_of(self._size), "no message after the last"
        start = self._chunk * CHUNK
        length = min(CHUNK, self._size - start)
        expected = header(self._position, self._size, self._chunk)
        if len(message) != HEADER.size + length or not message.startswith(expected):
            raise difference(message, expected, length, self._peer)
        if self._buffer is None:
            self._single = memoryview(message)[HEADER.size :]
        else:
            self._buffer[start : start + length] = memoryview(message)[HEADER.size :]
        self._chunk += 1

    def payload(self) -> memoryview:
        """The whole payload, `size` bytes, once every message is in."""
        assert self._chunk == chunks_of(self._size), "a message is missing"
        return self._single if self._single is not None else memoryview(self._buffer or b"")


def check_greeting(message: bytes, peer: str) -> None:
    """`ProtocolError` unless `message` is the greeting with which a stream begins."""
    if message != GREETING:
        raise difference(message, GREETING, 0, peer)


_PLAUSIBLE = 1 << 40
_FIELDS = ("magic", "version", "kind", "reserved field", "chunk", "chunks", "position", "size")
_MEANING = {
    "magic": ("It does not speak this protocol.", "Check which program answers as that party."),
    "version": ("It speaks another version.", "Run the same version of Masque at both parties."),
    "position": ("It is in another swap.", "Run the same version of Masque at both parties."),
    "size": ("It runs another program.", "Run the same version of Masque at both parties."),
}
_ORDER = ("magic", "version", "kind", "reserved field", "position", "size", "chunks", "chunk")


def difference(message: bytes, expected: bytes, length: int, peer: str) -> ProtocolError:
    """What is wrong with `message`, which should be the header `expected` and `length` bytes."""
    wanted = dict(zip(_FIELDS, HEADER.unpack(expected), strict=True))
    position = wanted["position"]
    before = f"Party {peer!r} sent a wrong frame in swap {position}: "
    if len(message) < HEADER.size:
        found = f"{len(message)} bytes, where a header alone has {HEADER.size}."
        return _error(before + found, peer, position, "length")
    got = dict(zip(_FIELDS, HEADER.unpack_from(message), strict=True))
    for field in _ORDER:
        if got[field] != wanted[field]:
            found = f"{field} {_shown(got[field])} instead of {wanted[field]!r}."
            return _error(before + found, peer, position, field)
    surplus = len(message) - HEADER.size - length
    what = "trailing bytes" if surplus > 0 else "bytes missing"
    found = f"{abs(surplus)} {what}, where {length} bytes of payload were due."
    return _error(before + found, peer, position, "length")


def _shown(value: object) -> str:
    """A field's value; not one that can only be bytes of a payload."""
    plausible = not isinstance(value, int) or value < _PLAUSIBLE
    return repr(value) if plausible else f"beyond {_PLAUSIBLE}"


def _error(text: str, peer: str, position: int, field: str) -> ProtocolError:
    meaning, cure = _MEANING.get(field, ("", "The job cannot go on; see the log of that party."))
    message = f"{text} {meaning}".strip()
    return ProtocolError(message, hint=cure, party=peer, swap=position, field=field)
