"""What is in an organisation's kit: the text of every file by its path. Nothing in it is secret.

    INSTRUCTIONS.md
    authority.pem                       the project's authority, whose fingerprint is compared
    compose.yaml                        where the organisation runs a service
    <service>/<role>.yaml               its configuration
    <service>/certificates/             empty: keys are made here, on the host
    <service>/policy.yaml, recipients/, store/          of a party
    clients/<name>/                     of a person: profile.yaml, INSTRUCTIONS.md, authority.pem

Paths in configurations are relative, but for what a service keeps: that is below `STATE`, where
containers have a volume and systemd a state directory.
"""

from __future__ import annotations

from typing import Any

import yaml

from masque.client import kit_compose, kit_instructions
from masque.client.project import Organisation, Project, Service
from masque.wire.authority import AUTHORITY_FILE
from masque.wire.revocation import LISTS_FILE

STATE = "/var/lib/masque"
POLICY = """\
# What this party allows, written for the analysts of the project. It is yours to narrow: every
# key is explained in docs/policy.md.
"""
CERTIFICATES = """\
`masque pki request` makes the private key here. No .key file ever leaves this directory.
"""
RECIPIENTS = """\
Put the .recipient.pub file of every analyst here: results are sealed to these keys alone. Each is
signed by its owner's certificate, so it may come by mail.
"""
STORE = """\
The party makes store.key here when it first starts. Shares cannot be read without it: keep a copy,
and not where the backup of the shares is.
"""


def contents(
    project: Project, organisation: Organisation, authority: str, image: str
) -> dict[str, str]:
    """The kit of one organisation; `authority` is the project's certificate in PEM."""
    files = {"INSTRUCTIONS.md": kit_instructions.for_organisation(project, organisation, image)}
    for service in organisation.services:
        files |= _below(service.name, _service(project, service))
    for name in organisation.people:
        files |= _below(f"clients/{name}", _client(project, name, authority))
    if organisation.services:
        files[AUTHORITY_FILE] = authority
        files["compose.yaml"] = kit_compose.text(project, organisation, files, image)
    return dict(sorted(files.items()))


def _below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{path}": text for path, text in files.items()}


def _service(project: Project, service: Service) -> dict[str, str]:
    special = {"dealer": _dealer, "party": _party, "coordinator": _coordinator}
    everywhere = "[::]" if ":" in service.host else "0.0.0.0"
    configuration = {
        "name": service.name,
        "project": project.project,
        "listen": f"{everywhere}:{service.port}",
        "tls": {
            "directory": "certificates",
            "revoked": f"{STATE}/{service.name}/{LISTS_FILE}",
        },
        **special[service.role](project, service),
    }
    files = {f"{service.role}.yaml": _yaml(configuration), "certificates/README": CERTIFICATES}
    if service.role == "party":
        files["policy.yaml"] = POLICY + _yaml(_policy(project))
        files["recipients/README"] = RECIPIENTS
        files["store/README"] = STORE
    return files


def _dealer(project: Project, service: Service) -> dict[str, Any]:
    return {"coordinator": project.coordinator.name}


def _party(project: Project, service: Service) -> dict[str, Any]:
    return {
        "peers": {party.name: party.address for party in project.parties if party != service},
        "dealer": _peer(project.dealer),
        "coordinator": project.coordinator.name,
        "data": f"{STATE}/{service.name}/data",
        "key_file": "store/store.key",
        "policy": "policy.yaml",
        "recipients": "recipients",
    }


def _coordinator(project: Project, service: Service) -> dict[str, Any]:
    return {
        "store": f"{STATE}/{service.name}/jobs.sqlite",
        "dealer": _peer(project.dealer),
        "parties": [_peer(party) for party in project.parties],
    }


def _policy(project: Project) -> dict[str, Any]:
    return {
        "coordinators": [project.coordinator.name],
        "clients": list(project.analysts),
        "recipients": list(project.analysts),
        "outputs": ["sealed", "kept"],
    }


def _client(project: Project, name: str, authority: str) -> dict[str, str]:
    profile = {
        "project": project.project,
        "name": name,
        "tls": {"directory": "certificates"},
        "coordinator": _peer(project.coordinator),
        "dealer": _peer(project.dealer),
        "parties": [_peer(party) for party in project.parties],
        "recipients": "recipients",
    }
    return {
        "profile.yaml": _yaml(profile),
        "INSTRUCTIONS.md": kit_instructions.for_person(project, name),
        AUTHORITY_FILE: authority,
    }


def _peer(service: Service) -> dict[str, str]:
    return {"name": service.name, "address": service.address}


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False)
