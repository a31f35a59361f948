"""What a deployment on one host consists of, and what everything of it is called.

local/<name>/
  authority/             of this deployment only; no container ever sees it
  client/                certificates and recipients of the analyst
  profile.yaml           for `masque --profile`
  services/<service>/    configuration, certificates, policy: copied into a volume of the service
  compose.yaml           containers, networks and volumes
  host.json              how many parties, and the ports
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from masque.client.ports import free_ports, ports_from
from masque.errors import Conflict, InputError, NotFound

DEALER, COORDINATOR = "dealer", "coordinator"
PORT = 7000
"""Every service's, inside its container."""

MOST_PARTIES = 16
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


@dataclass(frozen=True)
class Service:
    """One container: `role` of `masque.wire.identity`, and its own name."""

    role: str
    name: str


@dataclass(frozen=True)
class Host:
    """A deployment: its name, its directory, its parties, a port of this host for each service."""

    name: str
    home: Path
    parties: int
    ports: tuple[int, ...]

    @property
    def services(self) -> tuple[Service, ...]:
        """Dealer, parties, coordinator: the order of `ports`."""
        return services(self.parties)

    @property
    def party_names(self) -> tuple[str, ...]:
        """`party-1`, `party-2`, ..."""
        return tuple(service.name for service in self.services if service.role == "party")

    def address(self, service: Service) -> str:
        """Where the command line on this host reaches a service."""
        return f"127.0.0.1:{self.ports[self.services.index(service)]}"

    def container(self, service: Service) -> str:
        """What the container is called."""
        return f"{self.name}-{service.name}"

    def volume(self, service: Service, kind: str) -> str:
        """What a volume is called; `kind` is config or state."""
        return f"{self.name}-{service.name}-{kind}"

    def folder(self, service: Service) -> Path:
        """Where the files are that are copied into the service's config volume."""
        return self.home / "services" / service.name

    @property
    def profile(self) -> Path:
        """The analyst's profile."""
        return self.home / "profile.yaml"

    @property
    def compose_file(self) -> Path:
        """What compose reads."""
        return self.home / "compose.yaml"

    def save(self) -> None:
        """Remember it for the next time."""
        record = {"parties": self.parties, "ports": list(self.ports)}
        (self.home / "host.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


def services(parties: int) -> tuple[Service, ...]:
    """Dealer, parties, coordinator."""
    return (
        Service("dealer", DEALER),
        *(Service("party", f"party-{index + 1}") for index in range(parties)),
        Service("coordinator", COORDINATOR),
    )


def find(name: str, base: Path) -> Host:
    """The deployment of this name below `base`. Raises NotFound."""
    home = base.resolve() / checked(name)
    try:
        record = json.loads((home / "host.json").read_text(encoding="utf-8"))
        return Host(name, home, int(record["parties"]), tuple(map(int, record["ports"])))
    except (OSError, ValueError, KeyError, TypeError):
        raise NotFound(
            f"There is no deployment {name!r} in {base}.",
            hint="`make up` makes one.",
            directory=str(home),
        ) from None


def plan(name: str, base: Path, parties: int | None, port: int | None) -> Host:
    """The deployment to be started: as it was, or a new one of 2 parties or as many as wished.

    `port`: the dealer's on this host; parties and coordinator follow. Without it, free ones are
    chosen the first time and kept. Raises InputError, or Conflict if it had other parties.
    """
    try:
        known = find(name, base)
    except NotFound:
        count = 2 if parties is None else parties
        if not 2 <= count <= MOST_PARTIES:
            raise InputError(
                f"{count} parties cannot compute.", hint=f"Choose 2 to {MOST_PARTIES}."
            ) from None
        home = base.resolve() / checked(name)
        return Host(name, home, count, _ports(count + 2, port))
    if parties is not None and known.parties != parties:
        raise Conflict(
            f"The deployment {name!r} has {known.parties} parties, not {parties}: its data was"
            " split among them.",
            hint=f"Give another a name of its own (NAME=other PARTIES={parties} make up), or remove"
            " this one with all its data: make down ARGS=--wipe",
            directory=str(known.home),
        )
    if port is None:
        return known
    return Host(name, known.home, known.parties, _ports(known.parties + 2, port))


def checked(name: str) -> str:
    """`name` if engine and files can bear it. Raises InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a deployment.",
            hint="Use up to 41 of a-z, 0-9 and '-', starting with a letter or digit.",
        )
    return name


def _ports(count: int, base: int | None) -> tuple[int, ...]:
    return tuple(free_ports(count) if base is None else ports_from(base, count))
