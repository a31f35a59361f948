"""Sealed results as a party sends them: whole items, and not without end."""

from __future__ import annotations

from itertools import repeat

import pytest

from masque.errors import ProtocolError
from masque.v1.party_pb2 import SealedChunk
from services.coordinator import peers


def chunk(output: str, sealed: bytes, more: bool = False) -> SealedChunk:
    return SealedChunk(output=output, recipient="analyst", sealed=sealed, more=more)


def test_items_are_put_together() -> None:
    chunks = [chunk("a", b"1", True), chunk("a", b"2"), chunk("b", b"3")]
    found = [(item.output, item.content) for item in peers._items("party-a", iter(chunks))]
    assert found == [("a", b"12"), ("b", b"3")]


@pytest.mark.parametrize("chunks", [[("a", True), ("b", False)], [("a", True)]])
def test_items_that_mix_or_break_off_are_refused(chunks: list[tuple[str, bool]]) -> None:
    sent = (chunk(output, b"1", more) for output, more in chunks)
    with pytest.raises(ProtocolError, match="party-a sent sealed results that break off or mix"):
        list(peers._items("party-a", sent))


@pytest.mark.parametrize(("sealed", "more"), [(b"", True), (b"", False), (b"1" * 50, False)])
def test_a_flood_is_cut_off(monkeypatch: pytest.MonkeyPatch, sealed: bytes, more: bool) -> None:
    monkeypatch.setattr(peers, "LARGEST_RESULT", 100_000)
    sent = repeat(chunk("a", sealed, more), 200)  # each takes memory, whatever is in it
    with pytest.raises(ProtocolError, match="party-a"):
        list(peers._items("party-a", sent))
