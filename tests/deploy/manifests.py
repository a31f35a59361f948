"""What Kubernetes makes of manifests: pod security's restricted profile, and network policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Any

from tests.deploy.kustomizing import Resource, pods

# -- pod security ------------------------------------------------------------------------------

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret"),
}
HOSTS = ("hostNetwork", "hostPID", "hostIPC")
PROFILES = ("RuntimeDefault", "Localhost")


def violations(template: Resource) -> set[str]:
    """The rules of the restricted profile that a pod breaks, by the field that breaks them."""
    spec = template["spec"]
    whole = spec.get("securityContext", {})
    found = {name for name in HOSTS if spec.get(name)}
    found |= {f"volumes: {kind}" for kind in _kinds(spec) - VOLUMES}
    found |= {"sysctls"} if whole.get("sysctls") else set()
    annotations = template["metadata"].get("annotations", {})
    found |= {name for name in annotations if "apparmor" in name or "seccomp" in name}
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            found |= _container(container, whole)
    return found


def _kinds(spec: Resource) -> set[str]:
    return {key for volume in spec.get("volumes", []) for key in volume if key != "name"}


def _container(container: Resource, whole: Resource) -> set[str]:
    own = container.get("securityContext", {})
    both = {**whole, **own}
    capabilities = own.get("capabilities", {})
    rules = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "runAsNonRoot": both.get("runAsNonRoot") is True,
        "runAsUser": both.get("runAsUser") != 0,
        "seccompProfile": both.get("seccompProfile", {}).get("type") in PROFILES,
        "capabilities": capabilities.get("drop") == ["ALL"]
        and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
        "procMount": own.get("procMount", "Default") == "Default",
        "seLinuxOptions": not both.get("seLinuxOptions"),
        "appArmorProfile": both.get("appArmorProfile", {}).get("type", PROFILES[0]) in PROFILES,
        "windowsOptions": not both.get("windowsOptions", {}).get("hostProcess"),
        "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        "host of a probe": not any(_hosts(container)),
    }
    return {name for name, kept in rules.items() if not kept}


def _hosts(container: Resource) -> Iterator[str]:
    handlers = [value for key, value in container.items() if key.endswith("Probe")]
    handlers += container.get("lifecycle", {}).values()
    for handler in handlers:
        for kind in ("httpGet", "tcpSocket"):
            if handler.get(kind, {}).get("host"):
                yield handler[kind]["host"]


# -- network policies --------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """Somebody at the other end: an address outside, or a pod of the cluster by its labels."""

    block: IPv4Network | None = None
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Flow:
    """What a policy's rule lets through: to or from whom, on which port of which protocol."""

    policy: str
    peer: Resource
    protocol: str
    port: int | str

    def touches(self, peer: Peer) -> bool:
        """Whether any packet of this peer could match, whatever its port."""
        block = self.peer.get("ipBlock")
        if block is not None:
            return peer.block is not None and ip_network(block["cidr"]).overlaps(peer.block)
        names = {"kubernetes.io/metadata.name": peer.namespace}
        return peer.block is None and (
            selects(self.peer.get("namespaceSelector", {}), names)
            and selects(self.peer.get("podSelector", {}), dict(peer.labels))
        )

    def covers(self, peer: Peer) -> bool:
        """Whether all packets of this peer match, but for their port."""
        block = self.peer.get("ipBlock")
        if block is None or peer.block is None:
            return self.touches(peer)
        assert "except" not in block
        whole = ip_network(block["cidr"])
        assert isinstance(whole, IPv4Network)
        return peer.block.subnet_of(whole)


def flows(resources: list[Resource], direction: str) -> list[Flow]:
    """Everything that the policies on the one pod allow; `direction`: Ingress or Egress.

    At least one policy must select the pod for it: otherwise everything would be allowed.
    """
    (template,) = pods(resources)
    mine = [
        item
        for item in resources
        if item["kind"] == "NetworkPolicy"
        and direction in item["spec"]["policyTypes"]
        and selects(item["spec"]["podSelector"], template["metadata"]["labels"])
    ]
    assert mine, f"no policy denies {direction}"
    whom = {"Ingress": "from", "Egress": "to"}[direction]
    return [
        Flow(item["metadata"]["name"], peer, port["protocol"], port["port"])
        for item in mine
        for rule in item["spec"].get(direction.lower(), [])
        for peer in rule[whom]
        for port in rule["ports"]
    ]


def selects(selector: Resource, labels: dict[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    wanted: dict[str, Any] = selector.get("matchLabels", {})
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in wanted.items())
