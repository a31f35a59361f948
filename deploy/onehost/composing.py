"""The compose file: a container a service, and the networks between them.

    network     who is in it               who calls whom there
    exchange    parties                    parties one another: masked values
    dealing     dealer, parties            parties the dealer
    ordering    dealer, coordinator        coordinator the dealer
    control     parties, coordinator       coordinator the parties
    *-door      one of dealer, parties,    the client on this host, through a port of 127.0.0.1
                coordinator

The first four lead nowhere else. The doors publish ports and hide no addresses behind the host's,
so that no container gets an answer from the world. A network works both ways; what keeps the dealer
from the coordinator is that the coordinator listens at its door only.
"""

from __future__ import annotations

from typing import Any

import yaml

from deploy.onehost.files import STATE, at
from deploy.onehost.host import PORT, Host, Service
from masque.client.containers import LABEL, confined, digest, lasting

INNER = ("exchange", "dealing", "ordering", "control")
DOORS = {"dealer": "dealer-door", "party": "parties-door", "coordinator": "coordinator-door"}
MEMBERSHIP = {
    "dealer": ("dealing", "ordering"),
    "party": ("exchange", "dealing", "control"),
    "coordinator": ("ordering", "control"),
}


def write(host: Host, image: str) -> None:
    """Write the file; `image` is what all containers run."""
    text = yaml.safe_dump(_content(host, image), sort_keys=False)
    head = "# Written by `make up`; do not edit.\n"
    host.compose_file.write_text(head + text, encoding="utf-8")


def _content(host: Host, image: str) -> dict[str, Any]:
    volumes = [
        host.volume(service, kind) for service in host.services for kind in ("config", "state")
    ]
    return {
        "services": {service.name: _service(host, service, image) for service in host.services},
        "networks": {
            **{name: {"name": f"{host.name}-{name}", "internal": True} for name in INNER},
            **{name: _door(host, name) for name in DOORS.values()},
        },
        "volumes": {name.removeprefix(f"{host.name}-"): {"name": name} for name in volumes},
    }


def _door(host: Host, name: str) -> dict[str, Any]:
    hidden = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    return {"name": f"{host.name}-{name}", "driver": "bridge", "driver_opts": hidden}


def _service(host: Host, service: Service, image: str) -> dict[str, Any]:
    joined = {name: {"aliases": [at(service, name)]} for name in MEMBERSHIP[service.role]}
    return {
        "image": image,
        "container_name": host.container(service),
        "hostname": service.name,
        "environment": {"SERVICE": service.role},
        "labels": {LABEL: _digest(host, service)},
        "depends_on": _stopped_after(host, service),
        "networks": {**joined, DOORS[service.role]: {"aliases": [at(service, "door")]}},
        "ports": [f"{host.address(service)}:{PORT}"],
        "volumes": [f"{service.name}-config:/etc/masque:ro", f"{service.name}-state:{STATE}"],
        **confined(),
        **lasting(),
    }


def _stopped_after(host: Host, service: Service) -> list[str]:
    """The coordinator ends first, so that its jobs are parked before parties leave it."""
    if service.role != "coordinator":
        return []
    return [other.name for other in host.services if other != service]


def _digest(host: Host, service: Service) -> str:
    """Of what a service reads once, when it starts: a container with another is made anew."""
    files = (host.folder(service) / name for name in (f"{service.role}.yaml", "policy.yaml"))
    return digest(file.read_bytes() if file.exists() else b"" for file in files)
