"""What a coordinator's file says, beside what every service's file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from masque.jobs.complaints import Complaint
from masque.wire.settings import PathField, PeerSettings, ServiceSettings, distinct


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Peers = Annotated[tuple[PeerSettings, ...], BeforeValidator(_listed)]
Seconds = Annotated[float, Field(gt=0, le=1_000_000)]


class CoordinatorSettings(ServiceSettings):
    """`store` is the SQLite file of jobs; `parties` are in order: party i holds share i.

    The last three are deadlines: of preparing, of one training round, and of handing over results.
    A service that dies or hangs is noticed long before them, by the silence of its connection.
    """

    store: PathField = Field(examples=["jobs.sqlite"])
    dealer: PeerSettings = Field(examples=["{name: dealer, address: 127.0.0.1:7001}"])
    parties: Annotated[Peers, Field(min_length=2, max_length=64)] = Field(
        examples=["[{name: party-a, address: 127.0.0.1:7002}, ...]"]
    )
    prepare_seconds: Seconds = 600.0
    round_seconds: Seconds = 86_400.0
    fetch_seconds: Seconds = 600.0

    @property
    def volume(self) -> Path:
        """Where jobs and sealed results are."""
        return self.store.parent

    def inconsistencies(self) -> list[Complaint]:
        """Also: services that share a name or an address."""
        peers = [(("parties", at), p.name, p.address) for at, p in enumerate(self.parties)]
        dealer = (("dealer",), self.dealer.name, self.dealer.address)
        return [*super().inconsistencies(), *distinct("dealer and parties", [*peers, dealer])]
