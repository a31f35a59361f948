"""The compose file of a kit: the organisation's services, each in a container of its own.

A service sees its own files, read-only, and writes to its volume; a party also makes the key of
its store, in a directory of the kit. The container `keys` runs when it is called for, reaches no
network, and makes the private keys, so that they are born on this host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from masque.client.containers import LABEL, confined, digest, lasting
from masque.client.project import Organisation, Project, Service

_HEAD = """\
# {organisation}'s services of {project}. Written by `masque provision`.
# Works with `docker compose` and with docker-compose 1.29.
"""


def text(project: Project, organisation: Organisation, files: Mapping[str, str], image: str) -> str:
    """The file; `files` are those of the kit by their paths."""
    services = {service.name: _service(service, files, image) for service in organisation.services}
    content = {
        "services": {**services, "keys": _keys(image)},
        "volumes": {
            f"{name}-state": {"name": f"{project.project}-{name}-state"} for name in services
        },
    }
    head = _HEAD.format(organisation=organisation.name, project=project.project)
    return head + yaml.safe_dump(content, sort_keys=False)


def configuration(service: Service) -> str:
    """Where a service's configuration is in its container."""
    return f"/etc/masque/{service.name}/{service.role}.yaml"


def _service(service: Service, files: Mapping[str, str], image: str) -> dict[str, Any]:
    folder = f"/etc/masque/{service.name}"
    volumes = [f"./{service.name}:{folder}:ro", f"{service.name}-state:/var/lib/masque"]
    if service.role == "party":
        volumes.append(f"./{service.name}/store:{folder}/store")
    return {
        "image": image,
        "hostname": service.name,
        "environment": {"SERVICE": service.role, "CONFIG": configuration(service)},
        "labels": {LABEL: _digest(service, files)},
        "ports": [f"{service.port}:{service.port}"],
        "volumes": volumes,
        **confined(),
        **lasting(),
        "healthcheck": {
            "test": ["CMD", "masque-service", "probe"],
            "interval": "10s",
            "timeout": "10s",
            "retries": 3,
            "start_period": "180s",
        },
    }


def _keys(image: str) -> dict[str, Any]:
    return {
        "image": image,
        "profiles": ["keys"],
        "command": ["masque", "pki", "--help"],
        "network_mode": "none",
        "working_dir": "/kit",
        "volumes": [".:/kit"],
        **confined(),
    }


def _digest(service: Service, files: Mapping[str, str]) -> str:
    names = (f"{service.name}/{name}" for name in (f"{service.role}.yaml", "policy.yaml"))
    return digest(files.get(name, "").encode() for name in names)
