"""Network policies of `deploy/kubernetes`: who reaches whom, as docs/deployment.md says."""

from __future__ import annotations

import itertools
import re
from ipaddress import IPv4Network

import pytest

from tests.deploy.kustomizing import Resource
from tests.deploy.manifests import Peer, flows
from tests.deploy.overlays import ORGANISATIONS, PAGE, door, only, port, rendered

CLIENTS, STRANGERS = "203.0.113.0/24", "192.0.2.128/25"
CALLS = {
    "exchange": ("party", "party"),
    "dealing": ("party", "dealer"),
    "ordering": ("coordinator", "dealer"),
    "control": ("coordinator", "party"),
}
"""Who calls whom in each network of docs/deployment.md."""

overlays = pytest.mark.parametrize("name", ORGANISATIONS)
Project = dict[str, list[Resource]]


@pytest.fixture
def project() -> Project:
    """Every organisation's resources."""
    return {name: rendered(name) for name in ORGANISATIONS}


def peer(block: str) -> Peer:
    return Peer(block=IPv4Network(block))


def reached(project: Project, caller: str, called: str) -> set[str]:
    """The networks whose policies let one organisation call the other; both must, on its port."""
    there = project[called]
    source, target = peer(ORGANISATIONS[caller][1]), peer(ORGANISATIONS[called][1])
    leaving = [flow for flow in flows(project[caller], "Egress") if flow.touches(target)]
    coming = [flow for flow in flows(there, "Ingress") if flow.touches(source)]
    for flow, other, called_at in [
        *((flow, target, door(there)) for flow in leaving),
        *((flow, source, "grpc") for flow in coming),
    ]:
        assert flow.covers(other)
        assert (flow.protocol, flow.port) == ("TCP", called_at)
    names = {flow.policy for flow in leaving}
    assert names == {flow.policy for flow in coming}, (caller, called)
    return names


def test_organisations_reach_each_other_as_the_page_says(project: Project) -> None:
    for caller, called in itertools.permutations(ORGANISATIONS, 2):
        roles = ORGANISATIONS[caller][0], ORGANISATIONS[called][0]
        wanted = {name for name, pair in CALLS.items() if pair == roles}
        assert reached(project, caller, called) == wanted, (caller, called)


def test_the_page_has_these_networks() -> None:
    rows = re.findall(r"^\| `masque-([a-z]+)` \| ([^|]+) \|", PAGE.read_text("utf-8"), re.M)
    words = {"parties": "party"}
    table = {name: {words.get(word, word) for word in who.split(", ")} for name, who in rows}
    assert table == {name: {*pair} for name, pair in CALLS.items()}
    text = " ".join(PAGE.read_text("utf-8").split())
    assert "The dealer never reaches the coordinator" in text


def test_the_dealer_reaches_nobody() -> None:
    assert flows(rendered("dealer-organisation"), "Egress") == []


@overlays
def test_what_else_is_reached(name: str) -> None:
    found, role = rendered(name), ORGANISATIONS[name][0]
    names = Peer(namespace="kube-system", labels=(("k8s-app", "kube-dns"),))
    pods = Peer(namespace=f"masque-{name}", labels=(("app.kubernetes.io/name", "masque"),))
    leaving, coming = flows(found, "Egress"), flows(found, "Ingress")
    asked = {(flow.protocol, flow.port) for flow in leaving if flow.touches(names)}
    assert asked == (set() if role == "dealer" else {("UDP", 53), ("TCP", 53)})
    for stranger in (peer(STRANGERS), pods):
        assert not [flow for flow in leaving + coming if flow.touches(stranger)]
    assert not [flow for flow in leaving if flow.touches(peer(CLIENTS))]
    clients = [flow for flow in coming if flow.touches(peer(CLIENTS))]
    assert [flow.policy for flow in clients] == ([] if role == "dealer" else ["door"])
    assert all((flow.protocol, flow.port) == ("TCP", "grpc") for flow in clients)


@overlays
def test_metrics_are_for_the_cluster_that_asks(name: str) -> None:
    prometheus = Peer(namespace="monitoring", labels=(("app", "prometheus"),))
    coming = [flow for flow in flows(rendered(name), "Ingress") if flow.touches(prometheus)]
    scraped = port(rendered(name), "metrics")
    assert [flow.port for flow in coming] == (["metrics"] if scraped else [])
    (entry,) = only(rendered(name), "Service")["spec"]["ports"]
    assert entry["targetPort"] == "grpc"


@pytest.mark.parametrize("called", ["research-centre", "hospital-a"])
def test_a_way_for_the_dealer_is_found_out(project: Project, called: str) -> None:
    policies = (item for item in project["dealer-organisation"] if item["kind"] == "NetworkPolicy")
    planted = next(item for item in policies if item["metadata"]["name"] == "ordering")
    block = {"ipBlock": {"cidr": ORGANISATIONS[called][1]}}
    planted["spec"].update(
        policyTypes=["Ingress", "Egress"],
        egress=[{"to": [block], "ports": [{"protocol": "TCP", "port": 7000}]}],
    )
    with pytest.raises(AssertionError, match=f"'dealer-organisation', '{called}'"):
        test_organisations_reach_each_other_as_the_page_says(project)


def test_a_pod_that_no_policy_denies_is_found_out(project: Project) -> None:
    dealer = project["dealer-organisation"]
    dealer[:] = [item for item in dealer if item["metadata"]["name"] != "nothing"]
    with pytest.raises(AssertionError, match="no policy denies Egress"):
        flows(dealer, "Egress")
