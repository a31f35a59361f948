"""What a coordinator's file says, beside what every service's file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from masque.jobs.complaints import Complaint
from masque.jobs.section import listed
from masque.wire.settings import PathField, PeerSettings, ServiceSettings, distinct

Peers = Annotated[tuple[PeerSettings, ...], BeforeValidator(listed)]


class CoordinatorSettings(ServiceSettings):
    """`store` is the SQLite file of jobs; `parties` are in order: party i holds share i.

    `jobs`: how many run at once. `lease_seconds`: for how long somebody who was asked for
    something may show no sign of life, or make no progress, before the attempt is broken off and
    he is named. `job_seconds`: the time that a job may take in all, with every attempt and
    whatever it waits for, once it has begun.
    """

    store: PathField = Field(examples=["jobs.sqlite"])
    dealer: PeerSettings = Field(examples=["{name: dealer, address: 127.0.0.1:7001}"])
    parties: Annotated[Peers, Field(min_length=2, max_length=64)] = Field(
        examples=["[{name: party-a, address: 127.0.0.1:7002}, ...]"]
    )
    jobs: Annotated[int, Field(ge=1, le=1000)] = 8
    lease_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    job_seconds: Annotated[float, Field(gt=0, le=31_536_000)] = 604_800.0

    @property
    def volume(self) -> Path:
        """Where jobs and sealed results are."""
        return self.store.parent

    def inconsistencies(self) -> list[Complaint]:
        """Also: services that share a name or an address."""
        peers = [(("parties", at), p.name, p.address) for at, p in enumerate(self.parties)]
        dealer = (("dealer",), self.dealer.name, self.dealer.address)
        return [*super().inconsistencies(), *distinct("dealer and parties", [*peers, dealer])]
