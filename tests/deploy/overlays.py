"""The overlays of `deploy/kubernetes`, rendered, and what tests look up in them."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from masque.wire.settings import ServiceSettings, load_settings
from services.coordinator.settings import CoordinatorSettings
from services.dealer.settings import DealerSettings
from services.party.settings import PartySettings
from tests.deploy.kustomizing import Resource, pods, render

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
PAGE = ROOT / "docs" / "deployment.md"

ORGANISATIONS = {
    "dealer-organisation": ("dealer", "192.0.2.0/28"),
    "hospital-a": ("party", "198.51.100.0/28"),
    "hospital-b": ("party", "198.51.100.16/28"),
    "research-centre": ("coordinator", "198.51.100.32/28"),
}
"""What each overlay runs, and the addresses that others see of it."""

KINDS: dict[str, type[ServiceSettings]] = {
    "dealer": DealerSettings,
    "party": PartySettings,
    "coordinator": CoordinatorSettings,
}


@cache
def _rendered(name: str) -> list[Resource]:
    return render(FOLDER / "overlays" / name)


def rendered(name: str) -> list[Resource]:
    """An overlay, for this test to change as it likes."""
    return copy.deepcopy(_rendered(name))


def only(resources: list[Resource], kind: str) -> Resource:
    (found,) = (item for item in resources if item["kind"] == kind)
    return found


def pod(resources: list[Resource]) -> Resource:
    (template,) = pods(resources)
    return template


def container(resources: list[Resource]) -> Any:
    (found,) = pod(resources)["spec"]["containers"]
    return found


def port(resources: list[Resource], name: str) -> int | None:
    """A port of the container, if it has one of this name."""
    ports = {entry["name"]: entry["containerPort"] for entry in container(resources)["ports"]}
    return ports.get(name)


def settings(name: str, folder: Path) -> Any:
    """An overlay's configuration, read as the service reads it, mounted at `folder`."""
    for file, text in only(rendered(name), "ConfigMap")["data"].items():
        (folder / file).write_text(text)
    role = ORGANISATIONS[name][0]
    return load_settings(KINDS[role], folder / f"{role}.yaml")


def where(service: str) -> str:
    """The organisation of a service."""
    return {"dealer": "dealer-organisation", "coordinator": "research-centre"}.get(service, service)


def addresses(found: Any) -> dict[str, str]:
    """Whom a service calls."""
    peers = [getattr(found, "dealer", None), *getattr(found, "parties", ())]
    return {
        **{peer.name: peer.address for peer in peers if peer},
        **getattr(found, "peers", {}),
    }


def door(resources: list[Resource]) -> int:
    """The port at which others meet a service; their addresses must reach the policies there."""
    spec = only(resources, "Service")["spec"]
    (port,) = spec["ports"]
    assert spec["externalTrafficPolicy"] == "Local"
    assert port["targetPort"] == "grpc"
    if spec["type"] == "NodePort":
        assert 30000 <= port["nodePort"] < 32768
        return int(port["nodePort"])
    assert spec["type"] == "LoadBalancer"
    return int(port["port"])
