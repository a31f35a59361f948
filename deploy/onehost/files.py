"""The files of a deployment: certificates, configurations, keys of stores, the analyst's profile.

What is there stays: certificates until they have less than a month to go, the policies of parties
for good, since they are their operators' to change.
"""

from __future__ import annotations

import datetime as dt
import secrets
import shutil
from pathlib import Path
from typing import Any

import yaml

from deploy.onehost.host import COORDINATOR, DEALER, PORT, Host, Service
from masque.client.local_files import ANALYST, PROJECT, analysts_profile
from masque.errors import InputError
from masque.wire.authority import Authority, create_authority, open_authority
from masque.wire.certificates import describe, load_certificate
from masque.wire.identity import Identity, Role
from masque.wire.keyfiles import PRIVATE, write_files
from masque.wire.recipients import create_recipient
from masque.wire.tls import find_credentials

LIFETIME = dt.timedelta(days=365)
RENEWED_BEFORE = dt.timedelta(days=30)
STATE = "/var/lib/masque"


def at(service: Service, network: str) -> str:
    """The name by which a service is met in one network, and in no other."""
    return f"{service.name}.{network}"


def write(host: Host) -> None:
    """Everything that containers and client need. Raises InputError if it cannot be written."""
    try:
        host.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = _authority(host.home / "authority")
        for service in host.services:
            identity = Identity(PROJECT, Role(service.role), service.name)
            names = [
                at(service, network) for network in ("dealing", "exchange", "control", "ordering")
            ]
            _certify(authority, identity, host.folder(service) / "certificates", names)
            _yaml(host.folder(service) / f"{service.role}.yaml", _configuration(host, service))
        _client(host, authority)
        _yaml(host.profile, _profile(host))
        host.save()
    except OSError as error:
        raise InputError(
            f"{host.home} cannot be written: {error.strerror}.",
            hint="Mend its permissions, or run make as the user who made it.",
            directory=str(host.home),
        ) from None


def _authority(directory: Path) -> Authority:
    if directory.exists():
        return open_authority(directory)
    return create_authority(directory, PROJECT)


def _certify(authority: Authority, identity: Identity, directory: Path, names: list[str]) -> None:
    file = directory / f"{identity.stem}.pem"
    if file.exists() and describe(load_certificate(file)).remaining() > RENEWED_BEFORE:
        return
    hosts = ["localhost", "127.0.0.1", *names]
    authority.issue(identity, directory, hosts=hosts, lifetime=LIFETIME, replace=True)


def _client(host: Host, authority: Authority) -> None:
    """The analyst's certificate and keys; the public one, a policy and a store key to parties."""
    certificates = host.home / "client" / "certificates"
    recipients = host.home / "client" / "recipients"
    identity = Identity(PROJECT, Role.CLIENT, ANALYST)
    _certify(authority, identity, certificates, [])
    public = recipients / f"{ANALYST}.recipient.pub"
    if not public.exists():
        create_recipient(recipients, find_credentials(certificates, identity.stem), replace=True)
    for service in host.services:
        if service.role != "party":
            continue
        folder = host.folder(service)
        (folder / "recipients").mkdir(exist_ok=True)
        shutil.copyfile(public, folder / "recipients" / public.name)
        if not (folder / "policy.yaml").exists():
            _yaml(folder / "policy.yaml", {"outputs": ["sealed", "kept", "open"]})
        if not (folder / "store.key").exists():
            write_files({folder / "store.key": (secrets.token_bytes(32), PRIVATE)})


def _configuration(host: Host, service: Service) -> dict[str, Any]:
    by_name = {other.name: other for other in host.services}
    dealer, coordinator = by_name[DEALER], by_name[COORDINATOR]
    parties = [by_name[name] for name in host.party_names]
    common = {
        "name": service.name,
        "project": PROJECT,
        "listen": f"0.0.0.0:{PORT}",
        "tls": {"directory": "certificates"},
    }
    if service == dealer:
        return {**common, "coordinator": COORDINATOR}
    if service == coordinator:
        # It calls dealer and parties, and neither calls it: it listens where only clients are.
        return {
            **common,
            "listen": f"{at(service, 'door')}:{PORT}",
            "store": f"{STATE}/jobs.sqlite",
            "dealer": _peer(dealer, "ordering"),
            "parties": [_peer(party, "control") for party in parties],
        }
    return {
        **common,
        "peers": {
            party.name: f"{at(party, 'exchange')}:{PORT}" for party in parties if party != service
        },
        "dealer": _peer(dealer, "dealing"),
        "coordinator": COORDINATOR,
        "data": f"{STATE}/data",
        "key_file": "store.key",
        "policy": "policy.yaml",
        "recipients": "recipients",
    }


def _peer(service: Service, network: str) -> dict[str, str]:
    return {"name": service.name, "address": f"{at(service, network)}:{PORT}"}


def _profile(host: Host) -> dict[str, Any]:
    return analysts_profile(
        [{"name": service.name, "address": host.address(service)} for service in host.services]
    )


def _yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
