"""Whom the doctor looks at: a service by its configuration file, or a client by its profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from masque.client import profile as profiles
from masque.errors import IdentityError
from masque.jobs.section import listed
from masque.wire.identity import Identity, Role
from masque.wire.settings import (
    Address,
    DnsName,
    PathField,
    PeerSettings,
    ServiceSettings,
    load_part,
    own_credentials,
)
from masque.wire.tls import Credentials


@dataclass(frozen=True)
class Peer:
    """A service that the subject calls."""

    identity: Identity
    address: str


@dataclass(frozen=True)
class Subject:
    """Who is looked at: its file, how to load its certificate, where it listens and keeps data (a
    client: nowhere), whom it calls, and how many parties compute.
    """

    file: Path
    identity: Identity
    load: Callable[[], Credentials] = field(repr=False)
    listen: str | None
    volume: Path | None
    peers: tuple[Peer, ...]
    parties: int

    def credentials(self) -> Credentials:
        """Its certificate. Raises IdentityError or NotFound."""
        found = self.load()
        if found.identity != self.identity:
            raise IdentityError(
                f"The certificate is that of {found.identity.uri}, not of {self.identity.uri}.",
                hint=f"Name its file in tls of {self.file}, or correct name and project.",
            )
        return found


class ServiceFile(ServiceSettings):
    """What a service's file says of whom it calls and where it keeps things, whichever it is."""

    peers: dict[DnsName, Address] | None = None
    dealer: PeerSettings | None = None
    parties: Annotated[tuple[PeerSettings, ...] | None, BeforeValidator(listed)] = None
    data: PathField | None = None
    store: PathField | None = None

    @property
    def role(self) -> Role:
        """Only a party has peers, only a coordinator parties."""
        if self.peers is not None:
            return Role.PARTY
        return Role.DEALER if self.parties is None else Role.COORDINATOR

    @property
    def volume(self) -> Path | None:
        """Where it keeps what it keeps."""
        return self.data or (self.store.parent if self.store else None)


def of_service(path: Path) -> Subject:
    """The service of a configuration file. Raises SpecError for a file that says too little."""
    settings = load_part(ServiceFile, path)
    role, project = settings.role, settings.project
    called = [(Role.DEALER, settings.dealer)] if settings.dealer else []
    called += [(Role.PARTY, party) for party in settings.parties or ()]
    peers = [Peer(Identity(project, role, peer.name), peer.address) for role, peer in called]
    others = {n: a for n, a in (settings.peers or {}).items() if n != settings.name}
    peers += [Peer(Identity(project, Role.PARTY, name), at) for name, at in others.items()]
    return Subject(
        path,
        Identity(project, role, settings.name),
        lambda: own_credentials(settings, role),
        settings.listen,
        settings.volume,
        tuple(peers),
        len(others) + 1 if role is Role.PARTY else len(settings.parties or ()),
    )


def of_client(path: Path | None) -> Subject:
    """The client of a profile. Raises NotFound or SpecError."""
    profile = profiles.load(path)
    called = [(Role.COORDINATOR, profile.coordinator)]
    called += [(Role.PARTY, party) for party in profile.parties]
    called += [(Role.DEALER, profile.dealer)] if profile.dealer else []
    return Subject(
        profiles.find(path),
        profile.identity,
        profile.credentials,
        None,
        None,
        tuple(Peer(Identity(profile.project, role, p.name), p.address) for role, p in called),
        len(profile.parties),
    )
