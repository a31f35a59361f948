"""What each service saw and sent, in numbers that the services themselves tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masque.client.opening import Result
from masque.client.services import BRIEF, Services
from masque.client.sharing import Shared
from masque.v1 import dealer_pb2, party_pb2


@dataclass(frozen=True)
class Glance:
    """Counters of dealer and parties at one moment, since they were started."""

    dealer: Mapping[str, int]
    corrections: Mapping[str, int]
    parties: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Seen:
    """What the services saw of one job, and what they sent.

    `dealer`: bytes of corrections sent by party, seeds given out, bytes of data received (none).
    `parties`: by name; bytes of random-looking shares stored, masked bytes received and sent,
    messages to each peer, declared openings, sealed outputs, bytes from the dealer.
    `coordinator`: sealed bytes kept, which only their recipient can open.
    """

    dealer: dict[str, Any]
    parties: dict[str, dict[str, int]]
    coordinator: dict[str, int]

    @property
    def sent(self) -> dict[str, int]:
        """Bytes sent by each service."""
        return {
            "dealer": int(self.dealer["sent"]),
            **{name: party["sent"] for name, party in self.parties.items()},
            "coordinator": self.coordinator["sealed_bytes"],
        }


def look(services: Services) -> Glance:
    """The counters now. Without a dealer in the profile, its own are missing."""
    dealer: dict[str, int] = {}
    corrections: dict[str, int] = {}
    if services.dealer is not None:
        with services.dealer.calling() as stub:
            told = stub.Describe(dealer_pb2.DescribeDealerRequest(), timeout=BRIEF)
        dealer = {"sent": int(told.bytes_sent), "streams": int(told.streams)}
        corrections = {name: int(count) for name, count in told.bytes_by_party.items()}
    parties = {}
    for party in services.parties:
        with party.calling() as stub:
            reply = stub.Describe(party_pb2.DescribePartyRequest(), timeout=BRIEF)
        parties[party.name] = {
            name: int(getattr(reply.traffic, name))
            for name in (
                "exchanges",
                "sent",
                "received",
                "corrections",
                "declared_openings",
                "sealed_outputs",
            )
        }
    return Glance(dealer, corrections, parties)


def seen(before: Glance, after: Glance, shared: Sequence[Shared], result: Result) -> Seen:
    """The difference of two looks, with the shares and the sealed result between them."""
    share_bytes = sum(item.info.share_bytes for item in shared)
    return Seen(
        dealer={
            "sent": after.dealer.get("sent", 0) - before.dealer.get("sent", 0),
            "seeds": after.dealer.get("streams", 0) - before.dealer.get("streams", 0),
            "by_party": {
                name: count - before.corrections.get(name, 0)
                for name, count in after.corrections.items()
            },
            "shapes": {
                "tables": [[t.info.rows, t.info.columns] for t in result.bound.tables],
            },
            "received_data": 0,
        },
        parties={
            name: {"share_bytes": share_bytes}
            | {key: count - before.parties[name][key] for key, count in counters.items()}
            for name, counters in after.parties.items()
        },
        coordinator={"sealed_bytes": result.sealed_bytes, "shares": 0, "openings": 0},
    )
