"""Connections to the services that a profile names; every error says which of them, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc

from masque.client.profile import Profile
from masque.errors import MasqueError, Unavailable
from masque.v1.coordinator_pb2_grpc import CoordinatorStub
from masque.v1.dealer_pb2_grpc import DealerStub
from masque.v1.party_pb2_grpc import PartyStub
from masque.wire import preflight, tracing
from masque.wire.identity import Identity, Role
from masque.wire.pinned import Pinned
from masque.wire.settings import PeerSettings
from masque.wire.tls import Credentials

BRIEF = 15.0
"""Seconds for what a service answers at once."""


@dataclass(frozen=True)
class Peer:
    """One service: who it is, where, and the stub that calls it."""

    identity: Identity
    address: str
    stub: Any = field(repr=False)
    credentials: Credentials = field(repr=False)
    forget: Callable[[], None] = field(repr=False)

    @property
    def name(self) -> str:
        """Its name without role and project."""
        return self.identity.name

    @contextmanager
    def calling(self) -> Iterator[Any]:
        """The stub; errors of its calls leave the block as the MasqueError they mean."""
        try:
            yield self.stub
        except grpc.RpcError as error:
            raise self.meaning(error) from error

    def meaning(self, error: grpc.RpcError) -> MasqueError:
        """What a failed call means, with a second look at a connection that broke."""
        found = preflight.explain(error, self.address, self.identity, self.credentials)
        if isinstance(found, Unavailable):
            self.forget()
        return found

    def check(self, patience: float = preflight.PATIENCE) -> bool:
        """Is it serving? Raises IdentityError or Unavailable if it cannot be reached."""
        return preflight.check(self.address, self.identity, self.credentials, patience=patience)


class Services:
    """Channels, opened when first used; close them, or use it in a `with` statement.

    All their calls are one request, `trace`.
    """

    def __init__(self, profile: Profile, credentials: Credentials | None = None) -> None:
        self.profile = profile
        self.credentials = credentials or profile.credentials()
        self.trace = tracing.current() or tracing.fresh()
        self._channels: list[Pinned] = []
        self.coordinator = self._peer(Role.COORDINATOR, profile.coordinator, CoordinatorStub)
        self.parties = tuple(self._peer(Role.PARTY, p, PartyStub) for p in profile.parties)
        self.dealer = (
            self._peer(Role.DEALER, profile.dealer, DealerStub) if profile.dealer else None
        )

    @property
    def everybody(self) -> tuple[Peer, ...]:
        """Dealer (if known), parties, coordinator."""
        dealer = (self.dealer,) if self.dealer else ()
        return (*dealer, *self.parties, self.coordinator)

    def close(self) -> None:
        """Close all channels."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _peer(self, role: Role, peer: PeerSettings, stub: Any) -> Peer:
        identity = Identity(self.profile.project, role, peer.name)
        with tracing.use(self.trace):
            pinned = Pinned(peer.address, identity, self.credentials)
        self._channels.append(pinned)
        return Peer(identity, peer.address, stub(pinned.channel), self.credentials, pinned.forget)
