"""The files of a local network: certificates, configurations, the analyst's profile."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from masque.client import processes
from masque.client.processes import Place
from masque.errors import InputError
from masque.wire.authority import Authority, create_authority, open_authority
from masque.wire.identity import Identity, Role
from masque.wire.recipients import create_recipient
from masque.wire.tls import find_credentials

PROJECT = "local"
ANALYST = "analyst"
DEALER, COORDINATOR = "dealer", "coordinator"
LIFETIME = dt.timedelta(days=365)
RECORD = "network.json"
"""Says how many parties there are."""


@dataclass(frozen=True)
class Network:
    """A local network: its directory and the number of its parties."""

    home: Path
    parties: int

    @property
    def party_names(self) -> tuple[str, ...]:
        """`party-1`, `party-2`, ..."""
        return tuple(f"party-{index + 1}" for index in range(self.parties))

    @property
    def places(self) -> tuple[Place, ...]:
        """The services: dealer, parties, coordinator."""
        return (
            Place("dealer", DEALER, self.home),
            *(Place("party", name, self.home) for name in self.party_names),
            Place("coordinator", COORDINATOR, self.home),
        )

    @property
    def profile(self) -> Path:
        """The analyst's profile."""
        return self.home / "profile.yaml"

    @property
    def running(self) -> tuple[Place, ...]:
        """The services that run."""
        return tuple(place for place in self.places if processes.pid_of(place) is not None)


def write(network: Network, addresses: Sequence[str]) -> None:
    """Everything that the services need; what is there of an earlier time stays, addresses aside.

    `addresses`: host:port, in the order of `network.places`. Raises InputError if the directory
    cannot be written.
    """
    home = network.home
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = _authority(home / "authority")
        _client(network, authority)
        for place in network.places:
            identity = Identity(PROJECT, Role(place.role), place.name)
            authority.issue(
                identity, home / place.name / "certificates", lifetime=LIFETIME, replace=True
            )
        _configure(network, addresses)
        record = json.dumps({"parties": network.parties}) + "\n"
        (home / RECORD).write_text(record, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{home} cannot be written: {error.strerror}.",
            hint="Choose another --dir, or mend its permissions.",
            directory=str(home),
        ) from None


def _authority(directory: Path) -> Authority:
    if directory.exists():
        return open_authority(directory)
    return create_authority(directory, PROJECT)


def _client(network: Network, authority: Authority) -> None:
    """The analyst's certificate and key pair, kept from an earlier time; the public key to all."""
    certificates = network.home / "client" / "certificates"
    recipients = network.home / "client" / "recipients"
    identity = Identity(PROJECT, Role.CLIENT, ANALYST)
    public = recipients / f"{ANALYST}.recipient.pub"
    if not public.exists():
        authority.issue(identity, certificates, lifetime=LIFETIME, replace=True)
        create_recipient(recipients, find_credentials(certificates, identity.stem), replace=True)
    for name in network.party_names:
        directory = network.home / name / "recipients"
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(public, directory / public.name)
        policy = network.home / name / "policy.yaml"
        if not policy.exists():  # it is the operator's to change
            _yaml(policy, {"outputs": ["sealed", "kept", "open"]})


def _configure(network: Network, addresses: Sequence[str]) -> None:
    dealer, *parties, coordinator = (
        {"name": place.name, "address": address}
        for place, address in zip(network.places, addresses, strict=True)
    )
    by_name = {party["name"]: party["address"] for party in parties}
    special: dict[str, dict[str, Any]] = {
        DEALER: {"coordinator": COORDINATOR},
        COORDINATOR: {"store": "jobs.sqlite", "dealer": dealer, "parties": parties},
    }
    for place, address in zip(network.places, addresses, strict=True):
        own = special.get(place.name) or {
            "peers": {name: at for name, at in by_name.items() if name != place.name},
            "dealer": dealer,
            "coordinator": COORDINATOR,
            "data": "data",
            "recipients": "recipients",
            "policy": "policy.yaml",
        }
        _yaml(
            place.config,
            {
                "name": place.name,
                "project": PROJECT,
                "listen": address,
                "ready_file": str(place.ready),
                "tls": {"directory": "certificates"},
                **own,
            },
        )
    _yaml(network.profile, analysts_profile([dealer, *parties, coordinator]))


def analysts_profile(peers: Sequence[dict[str, str]]) -> dict[str, Any]:
    """The profile of the analyst, from name and address of dealer, parties and coordinator."""
    dealer, *parties, coordinator = peers
    return {
        "project": PROJECT,
        "name": ANALYST,
        "tls": {"directory": "client/certificates"},
        "coordinator": coordinator,
        "dealer": dealer,
        "parties": parties,
        "recipients": "client/recipients",
    }


def _yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
