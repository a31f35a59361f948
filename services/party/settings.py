"""A computing party's configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from masque.jobs.complaints import Complaint
from masque.jobs.section import Section
from masque.wire.settings import (
    Address,
    DnsName,
    PathField,
    PeerSettings,
    ServiceSettings,
    distinct,
)

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class PartyLimits(Section):
    """What a party spends at most: bytes, jobs at once, seconds.

    `prefetch_bytes`: material of one job that waits to be used. `silence_seconds`: for how long
    the coordinator may leave a job alone before it is given up; `results_seconds`: how long sealed
    results wait to be fetched. `patience_seconds`: how long a round waits for one peer or the
    dealer to send something.
    """

    jobs: Annotated[int, Field(ge=1, le=1000)] = 8
    store_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    prefetch_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 36)] = 16 << 20
    connect_seconds: Seconds = 30.0
    patience_seconds: Seconds = 60.0
    silence_seconds: Seconds = 600.0
    results_seconds: Seconds = 3600.0


class PartySettings(ServiceSettings):
    """`peers`: name and address of every other party, in any order; a job says who is party 0.

    `recipients`: a directory of `<name>.recipient.pub` files: the only keys results are sealed to.
    `key_file`: what encrypts the shares of data sets, made if missing; by default `key` in `data`,
    which protects nothing from whoever takes the whole disk.
    """

    peers: dict[DnsName, Address] = Field(examples=["{hospital-b: 127.0.0.1:7002}"])
    dealer: PeerSettings = Field(examples=["{name: dealer, address: 127.0.0.1:7000}"])
    coordinator: DnsName = Field(examples=["coordinator"])
    data: PathField = Field(examples=["data"])
    key_file: PathField | None = None
    policy: PathField | None = None
    recipients: PathField = Field(examples=["recipients"])
    limits: PartyLimits = PartyLimits()

    @property
    def volume(self) -> Path:
        """Where shares are."""
        return self.data

    def inconsistencies(self) -> list[Complaint]:
        """Also: services that share a name or an address."""
        peers = [(("peers", name), name, address) for name, address in self.peers.items()]
        dealer = (("dealer",), self.dealer.name, self.dealer.address)
        return [*super().inconsistencies(), *distinct("dealer and peers", [*peers, dealer])]
