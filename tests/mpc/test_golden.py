"""Golden vectors: what is dealt and sent for fixed seeds, as hashes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from masque.mpc import inprocess
from masque.mpc.doors import Buffer
from masque.mpc.party import Party
from tests.mpc.examples import epochs, rows_of_data
from tests.mpc.harness import seeds, share_inputs, sources

GOLDEN = {
    2: (
        "1ba896dee48972eafb432bb9642b557f62c6c4723022e7554285abef24af2a49",
        "294986c246cc14639331a8b2865f94cf9152916e3ccabfb90cabfd20221610d7",
        "fd260ea9b51523e7867b9d106f8b6d82e22ae3e959973d9dc22eb768fb4ada2b",
    ),
    3: (
        "e347c011a74180b61700e296faab0a3b1a03a401014a8d1e2371c43cea3a3c68",
        "71b058ebf08082510e85717dcdbd8c6a60ea3cc090e7d5491dc9ad4d718fe220",
        "3b2920c57f4d14b6a25185e7aee4fc9bdd6eb4224bd358394e28d832c30df211",
    ),
}


class Heard:
    """An exchange that hashes what passes."""

    def __init__(self, inner: inprocess.Seat, digest: Any) -> None:
        self.inner, self.digest = inner, digest

    def swap(self, payload: bytes) -> list[Buffer]:
        self.digest.update(payload)
        return self.inner.swap(payload)


def vectors(parties: int, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, str]:
    """SHA-256 of all corrections, of party 0's messages, and of all shares of the results."""
    program = epochs(parties, 2)
    corrections, transcript, results = (hashlib.sha256() for _ in range(3))
    for stock in inprocess.stock(program, seeds(parties, 7)):
        for position in sorted(stock.parts):
            corrections.update(stock.parts[position])

    class Noted(Party):
        def __init__(self, *arguments: Any) -> None:
            program, index, seed, supply, exchange, source = arguments
            digest = transcript if index == 0 else hashlib.sha256()
            super().__init__(program, index, seed, supply, Heard(exchange, digest), source)

    with monkeypatch.context() as patch:
        patch.setattr(inprocess, "Party", Noted)
        shares = share_inputs({"data": rows_of_data(7)}, parties, 7)
        run = inprocess.run(program, sources(shares, parties), seeds(parties, 7))
    for party in run.parties:
        results.update(party.output("w").astype("<u8").tobytes())
    return corrections.hexdigest(), transcript.hexdigest(), results.hexdigest()


@pytest.mark.parametrize("parties", GOLDEN)
def test_golden_vectors(parties: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dealt and sent for fixed seeds never changes unnoticed: versions must agree."""
    assert vectors(parties, monkeypatch) == GOLDEN[parties]
