"""A host to be examined: a party's file and certificate, and peers of every kind for it to call."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from masque.client.doctor.findings import Finding, Limits
from masque.client.doctor.report import Report, examine
from masque.client.doctor.subject import of_service
from masque.client.machine import Machine
from masque.client.ports import free_ports
from masque.wire.authority import Authority, create_authority
from masque.wire.host import Host, offer_host
from masque.wire.identity import Identity, Role
from masque.wire.server import Server
from masque.wire.tls import find_credentials

PROJECT = "demo"
QUIET = Limits(free_warn=0, free_fail=0, patience=10, seconds=60)
"""For machines that are slow and full."""


@dataclass
class Site:
    """The host of party `us`, and its project."""

    root: Path
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.authority = create_authority(self.root / "authority", PROJECT)
        self.issue(self.root / "certificates", "party", "us")

    def issue(self, directory: Path, role: str, name: str, **when: Any) -> None:
        identity = Identity(PROJECT, Role(role), name)
        self.authority.issue(identity, directory, replace=True, **when)

    @contextmanager
    def serving(
        self,
        role: str,
        name: str,
        *,
        expired: bool = False,
        ready: bool = True,
        host: type[Host] | None = Host,
        **about: Any,
    ) -> Iterator[str]:
        """A service that answers the doctor; gives its address."""
        directory = self.root / "peers" / name
        past = dt.datetime.now(dt.UTC) - dt.timedelta(days=400) if expired else None
        self.issue(directory, role, name, **({"now": past} if past else {}))
        credentials = find_credentials(directory, f"{name}.{role}", at=past)
        server = Server(credentials, "127.0.0.1:0", {}, [], grace=0.2)
        if host is not None:
            offer_host(server, host(server, self.root, **about))
        with server:
            server.ready(ready)
            yield server.address

    def write(self, **changes: Any) -> Path:
        """The party's file; its port is free, and nobody is its dealer unless `changes` say so."""
        values: dict[str, Any] = {
            "name": "us",
            "project": PROJECT,
            "listen": f"127.0.0.1:{free_port()}",
            "tls": {"directory": "certificates"},
            "peers": {},
            "coordinator": "coordinator",
            "data": "data",
            "recipients": "recipients",
        }
        path = self.root / "party.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    def examined(self, limits: Limits = QUIET, **changes: Any) -> Report:
        """What the doctor says."""
        return examine(of_service(self.write(**changes)), Machine(), limits=limits)

    def peer(self, address: str, limits: Limits = QUIET) -> dict[str, Finding]:
        """What the doctor says of peer `them` at an address, by check."""
        report = self.examined(limits, peers={"them": address})
        about = f"party 'them' at {address}"
        return {f.check: f for f in report.findings if f.about == about}


def free_port() -> int:
    """One that nobody listens at."""
    return free_ports(1)[0]
