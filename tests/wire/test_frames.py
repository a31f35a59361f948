from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import ProtocolError
from masque.wire.frames import (
    CHUNK,
    GREETING,
    HEADER,
    MAGIC,
    VERSION,
    Assembly,
    Kind,
    check_greeting,
    chunks_of,
    frame,
    header,
)

SIZES = (0, 1, 63, 64, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 4 * CHUNK + 5)


def assemble(messages: list[bytes], position: int, size: int) -> bytes:
    part = Assembly("b", position, size)
    for message in messages:
        part.add(message)
    return bytes(part.payload())


def messages_of(position: int, payload: bytes) -> list[bytes]:
    return [frame(position, payload, chunk) for chunk in range(chunks_of(len(payload)))]


def test_the_header_is_laid_out_as_documented() -> None:
    message = frame(0x0102030405060708, b"abc")
    assert message == (
        b"MSQX\x01\x01\x00\x00"
        b"\x00\x00\x00\x00\x01\x00\x00\x00"
        b"\x08\x07\x06\x05\x04\x03\x02\x01"
        b"\x03\x00\x00\x00\x00\x00\x00\x00abc"
    )


@pytest.mark.parametrize("size", SIZES)
def test_payloads_of_every_size_come_back(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    messages = messages_of(9, payload)
    assert len(messages) == max(1, -(-size // CHUNK))
    assert max(map(len, messages)) <= CHUNK + HEADER.size < 4 << 20
    assert assemble(messages, 9, size) == payload


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_any_payload_at_any_position(payload: bytes, position: int) -> None:
    assert assemble([frame(position, payload)], position, len(payload)) == payload
    assert assemble([frame(position, memoryview(payload))], position, len(payload)) == payload


@given(st.binary(max_size=64), st.data())
def test_a_frame_with_any_other_header_is_refused(payload: bytes, data: st.DataObject) -> None:
    message = bytearray(frame(7, payload))
    at = data.draw(st.integers(0, HEADER.size - 1))
    message[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError, match="Party 'b' sent a wrong frame in swap 7: ") as caught:
        assemble([bytes(message)], 7, len(payload))
    assert caught.value.where["party"] == "b"
    assert caught.value.where["swap"] == 7


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_refused_and_never_crash(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        assemble([message], 3, 40)


def pack(**changed: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {
        "magic": MAGIC,
        "version": VERSION,
        "kind": Kind.PAYLOAD,
        "reserved": 0,
        "chunk": 0,
        "chunks": 1,
        "position": 5,
        "size": 4,
    }
    return HEADER.pack(*(fields | changed).values()) + b"abcd"


@pytest.mark.parametrize(
    ("message", "field", "text"),
    [
        (pack(magic=b"HTTP"), "magic", "magic b'HTTP' instead of b'MSQX'"),
        (pack(version=2), "version", "version 2 instead of 1"),
        (pack(kind=0), "kind", "kind 0 instead of 1"),
        (pack(reserved=1), "reserved field", "reserved field 1 instead of 0"),
        (pack(position=4), "position", "position 4 instead of 5"),
        (pack(position=6), "position", "position 6 instead of 5"),
        (pack(size=2**63), "size", f"size beyond {2**40} instead of 4"),
        (pack(chunks=2), "chunks", "chunks 2 instead of 1"),
        (pack(chunk=1), "chunk", "chunk 1 instead of 0"),
        (pack() + b"e", "length", "1 trailing bytes, where 4 bytes"),
        (pack()[:-1], "length", "1 bytes missing, where 4 bytes"),
        (b"", "length", "0 bytes, where a header alone has 32"),
    ],
)
def test_the_error_names_the_peer_and_the_first_difference(
    message: bytes, field: str, text: str
) -> None:
    with pytest.raises(ProtocolError, match="Party 'b'") as caught:
        assemble([message], 5, 4)
    assert text in str(caught.value)
    assert caught.value.where["field"] == field
    assert caught.value.hint


def test_an_error_never_shows_the_payload() -> None:
    secret = b"\x13\x37 a share"
    with pytest.raises(ProtocolError) as caught:
        assemble([frame(1, secret)], 2, len(secret))
    assert "share" not in str(caught.value) + repr(caught.value.where)


def test_chunks_in_the_wrong_order_are_refused() -> None:
    first, second = messages_of(0, bytes(CHUNK + 1))
    with pytest.raises(ProtocolError, match="chunk 1 instead of 0"):
        assemble([second, first], 0, CHUNK + 1)
    with pytest.raises(ProtocolError, match="chunk 0 instead of 1"):
        assemble([first, first], 0, CHUNK + 1)


def test_a_claimed_size_allocates_nothing() -> None:
    part = Assembly("b", 0, 10)
    with pytest.raises(ProtocolError):
        part.add(header(0, 2**40))
    assert part._buffer is None


def test_greetings() -> None:
    check_greeting(GREETING, "b")
    with pytest.raises(ProtocolError, match="kind 1 instead of 0"):
        check_greeting(frame(0, b""), "b")
    with pytest.raises(ProtocolError, match="trailing"):
        check_greeting(GREETING + b"x", "b")
