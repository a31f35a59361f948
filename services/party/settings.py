"""A computing party's configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from masque.jobs.complaints import Complaint
from masque.jobs.section import Section, listed
from masque.wire.settings import (
    Address,
    DnsName,
    PathField,
    PeerSettings,
    ServiceSettings,
    distinct,
)

Seconds = Annotated[float, Field(gt=0, le=86_400)]


Word = Annotated[str, Field(min_length=1, max_length=4096)]
Command = Annotated[tuple[Word, ...], BeforeValidator(listed), Field(max_length=256)]


class PartyLimits(Section):
    """What a party spends at most: bytes, jobs at once, seconds.

    `store_bytes`: shares of data sets, and what running jobs keep on disk; `owner_bytes`: shares of
    the data sets of each owner. `prefetch_bytes`: material of one job that waits to be used.
    `lease_seconds`: for how long this party waits for a sign of life of anybody that a job needs:
    another party, the dealer, the coordinator. `memory_bytes`: what it lends to jobs together, by
    what they declare; without it, half of what the machine, or the container, has. `job_seconds`:
    for how long it keeps what a job needs to go on after a crash.
    """

    jobs: Annotated[int, Field(ge=1, le=1000)] = 8
    store_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    owner_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    memory_bytes: Annotated[int, Field(ge=1 << 26)] | None = None
    prefetch_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 36)] = 16 << 20
    lease_seconds: Seconds = 60.0
    job_seconds: Annotated[float, Field(gt=0, le=31_536_000)] = 604_800.0


class PartySettings(ServiceSettings):
    """`peers`: name and address of every other party, in any order; a job says who is party 0.

    `recipients`: a directory of `<name>.recipient.pub` files: the only keys results are sealed to.
    `key_file`: what encrypts the shares of data sets, made if missing; by default `key` in `data`,
    which protects nothing from whoever takes the whole disk. `key_command`: an agent instead, a
    program with its arguments that prints the key, as base64 or hexadecimal digits, when the party
    starts. `next_key_command`: what prints the key that `rotate-key` changes over to.
    """

    peers: dict[DnsName, Address] = Field(examples=["{hospital-b: 127.0.0.1:7002}"])
    dealer: PeerSettings = Field(examples=["{name: dealer, address: 127.0.0.1:7000}"])
    coordinator: DnsName = Field(examples=["coordinator"])
    data: PathField = Field(examples=["data"])
    key_file: PathField | None = None
    key_command: Command = ()
    next_key_command: Command = ()
    policy: PathField | None = None
    recipients: PathField = Field(examples=["recipients"])
    limits: PartyLimits = PartyLimits()

    @property
    def volume(self) -> Path:
        """Where shares are."""
        return self.data

    def inconsistencies(self) -> list[Complaint]:
        """Also: services that share a name or an address, and a key that is in two places."""
        peers = [(("peers", name), name, address) for name, address in self.peers.items()]
        found = super().inconsistencies()
        if self.key_file and self.key_command:
            told = "is named beside key_file, and the key can be in one place only"
            found.append(Complaint(("key_command",), told, "Take one of them away."))
        dealer = (("dealer",), self.dealer.name, self.dealer.address)
        return [*found, *distinct("dealer and peers", [*peers, dealer])]
