"""What a dealer tells Prometheus. Parties are called as their certificates call them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from masque.wire.metrics import Metric, by, counter, jobs
from services.dealer.dealing import Dealing

DEALT, FAILED = "dealt", "failed"
"""How dealing ends."""


@dataclass
class Tally:
    """What has been dealt since the start. Not thread-safe: its owner holds a lock."""

    sent: Counter[str] = field(default_factory=Counter)
    streams: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Tally:
        """The same numbers, apart from these."""
        return Tally(Counter(self.sent), self.streams, Counter(self.ended))


def figures(tally: Tally, active: list[Dealing]) -> Iterator[Metric]:
    """All metrics, from the tally and what is being dealt now."""
    waiting: Counter[str] = Counter(dict.fromkeys(tally.sent, 0))
    for dealing in active:
        for party, size in dealing.waiting().items():
            waiting[party] += size
    yield from jobs({"dealing": len(active)}, {how: tally.ended[how] for how in (DEALT, FAILED)})
    yield Metric(
        "masque_material_bytes_total",
        "counter",
        "Bytes of material (corrections) dealt to a party, or received from the dealer.",
        **by("peer", tally.sent),
    )
    yield Metric(
        "masque_material_waiting_bytes",
        "gauge",
        "Bytes of material in stock: made or received, not yet taken.",
        **by("peer", waiting),
    )
    yield counter(
        "masque_material_streams_total",
        "Streams of material given out, a seed each.",
        tally.streams,
    )
