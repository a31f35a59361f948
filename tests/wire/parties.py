"""Parties with real servers and real TLS, for the tests of exchanges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc

from masque.wire.binding import Binding
from masque.wire.exchange import PeerExchange
from masque.wire.hub import Hub
from masque.wire.identity import Identity, Role
from masque.wire.streams import open_peer_channel
from masque.wire.tls import Credentials, server_options
from tests.wire.conftest import PROJECT, Project

NAMES = ("ann", "ben", "cyd", "dee", "eve")
SPEC, PROGRAM = b"s" * 32, b"p" * 32


@dataclass
class Site:
    """One party: a hub in a server of its own, without any other service."""

    credentials: Credentials
    hub: Hub
    server: grpc.Server
    address: str

    @property
    def name(self) -> str:
        return self.hub.name

    def channel(self, other: Site) -> grpc.Channel:
        """A channel from this party to `other`."""
        expected = Identity(PROJECT, Role.PARTY, other.name)
        return open_peer_channel(other.address, expected, self.credentials)


def start_site(credentials: Credentials, *, direct: bool = True, patience: float = 10.0) -> Site:
    hub = Hub(credentials.identity.name, patience=patience, direct=direct)
    server = grpc.server(futures.ThreadPoolExecutor(8), options=server_options())
    hub.mount(server)
    port = server.add_secure_port("127.0.0.1:0", credentials.for_server())
    server.start()
    return Site(credentials, hub, server, f"127.0.0.1:{port}")


@dataclass
class Ring:
    """Some parties that know each other's addresses, and what each believes of the job."""

    sites: list[Site]
    bindings: list[Binding]

    def believe(self, index: int, **changed: Any) -> None:
        """Let one party see the job otherwise."""
        self.bindings[index] = replace(self.bindings[index], **changed)

    @contextmanager
    def exchange(self, index: int, **options: Any) -> Iterator[PeerExchange]:
        """An exchange of one party, not opened yet; closed in the end, its channels too."""
        site = self.sites[index]
        channels = {
            other.name: site.channel(other) for other in self.sites if other.name != site.name
        }
        defaults: dict[str, Any] = {"patience": 10.0, "opening": 10.0}
        exchange = PeerExchange(site.hub, self.bindings[index], channels, **(defaults | options))
        try:
            yield exchange
        finally:
            exchange.close()
            for channel in channels.values():
                channel.close()

    def run(
        self,
        work: Callable[[int, PeerExchange], Any],
        indices: Sequence[int] | None = None,
        **options: float,
    ) -> list[Any]:
        """`work(index, open exchange)` at every party at once; results, or errors, by party."""
        chosen = range(len(self.sites)) if indices is None else indices
        results: dict[int, Any] = {}

        def party(index: int) -> None:
            try:
                with self.exchange(index, **options) as exchange, exchange.open():
                    results[index] = work(index, exchange)
            except Exception as error:
                results[index] = error

        threads = [threading.Thread(target=party, args=(index,)) for index in chosen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a party hangs"
        return [results[index] for index in chosen]


@contextmanager
def ring(
    project: Project, parties: int, *, direct: bool = True, patience: float = 10.0
) -> Iterator[Ring]:
    """`parties` parties of job "job", attempt 1, that agree on everything."""
    names = NAMES[:parties]
    sites = [
        start_site(project.credentials("party", name), direct=direct, patience=patience)
        for name in names
    ]
    bindings = [Binding("job", 1, names, index, SPEC, PROGRAM) for index in range(parties)]
    try:
        yield Ring(sites, bindings)
    finally:
        for site in sites:
            site.hub.close()
            site.server.stop(0).wait()
