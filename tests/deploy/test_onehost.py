"""`make up` on a real engine: three parties, each service in a container of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.onehost.host import Service
from masque.client.reading import read
from tests.deploy.engine import BIN, Deployment, inspect, run, share, train

pytestmark = pytest.mark.engine

COUNT = 3
SERVICES = ("dealer", "party-1", "party-2", "party-3", "coordinator")
PARTIES = SERVICES[1:4]
PORT = 7000

ENVIRONMENT = {"SERVICE", "PATH", "LANG"}
ENVIRONMENT |= {"PYTHONSAFEPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
ENVIRONMENT |= {"GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256"}  # of a base image that was pulled

KNOCK = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def state(place):
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        return "closed"
    return "open"

with ThreadPoolExecutor(50) as pool:
    print(*pool.map(state, sys.argv[1:]))
"""


def knock(deployment: Deployment, service: str, *places: str) -> list[str]:
    """Of each host:port, whether it is open to a service's container."""
    return deployment.python(service, KNOCK, *places).split()


def everywhere(deployment: Deployment, service: str) -> list[str]:
    """All addresses at which a service might be met, by number and by name."""
    addresses = deployment.addresses(service)
    names = [service, *(f"{service}.{network}" for network in (*addresses, "door"))]
    return [f"{place}:{PORT}" for place in (*addresses.values(), *names)]


# -- up ----------------------------------------------------------------------------------------


def test_every_service_is_healthy_when_make_returns(deployment: Deployment) -> None:
    told = json.loads(deployment.make("ps", ARGS="--json").stdout)
    assert {row["name"]: row["state"] for row in told["services"]} == dict.fromkeys(
        SERVICES, "running, healthy"
    )
    assert told["profile"] == str(deployment.host.profile)


def test_up_again_changes_nothing(deployment: Deployment) -> None:
    def started() -> list[str]:
        states = [inspect("container", f"{deployment.name}-{name}")["State"] for name in SERVICES]
        return [state["StartedAt"] for state in states]

    before = started()
    said = deployment.make("up").stdout
    assert f"export MASQUE_PROFILE={deployment.host.profile}" in said
    assert started() == before


def test_the_demo_runs_against_it_unchanged(deployment: Deployment) -> None:
    profile = deployment.host.profile
    report = json.loads(run(BIN / "masque", "demo", "--profile", profile, "--json").stdout)
    assert report["parties"] == 3
    assert report["held_out"]["masque"]["accuracy"] > 0.9


def test_files_in_and_a_model_out(deployment: Deployment, tmp_path: Path) -> None:
    files = share(deployment, tmp_path)
    train(deployment, tmp_path, "first", epochs=30)
    deployment.masque("result", "first", "--out", tmp_path / "model.json")
    model = read(tmp_path / "model.json")
    assert files.heldout is not None
    rows, labels = model.read(files.heldout, files.schema)
    assert labels is not None
    assert float(np.mean(model.predict(rows) == labels)) > 0.9


# -- who reaches whom --------------------------------------------------------------------------


def test_everybody_reaches_whom_it_needs(deployment: Deployment) -> None:
    for party in PARTIES:
        others = [f"{other}.exchange:{PORT}" for other in PARTIES if other != party]
        needed = [*others, f"dealer.dealing:{PORT}"]
        assert knock(deployment, party, *needed) == ["open"] * len(needed)
    needed = [f"dealer.ordering:{PORT}", *(f"{party}.control:{PORT}" for party in PARTIES)]
    assert knock(deployment, "coordinator", *needed) == ["open"] * len(needed)


def test_the_dealer_does_not_reach_the_coordinator(deployment: Deployment) -> None:
    places = everywhere(deployment, "coordinator")
    assert len(places) >= 6
    assert knock(deployment, "dealer", *places) == ["closed"] * len(places)


def test_parties_do_not_reach_the_coordinator(deployment: Deployment) -> None:
    places = everywhere(deployment, "coordinator")
    assert knock(deployment, "party-1", *places) == ["closed"] * len(places)


@pytest.mark.parametrize("service", ["dealer", "coordinator"])
def test_only_parties_are_where_parties_talk(deployment: Deployment, service: str) -> None:
    numbers = [f"{deployment.addresses(party)['exchange']}:{PORT}" for party in PARTIES]
    names = [f"{party}.exchange:{PORT}" for party in PARTIES]
    assert knock(deployment, service, *numbers, *names) == ["closed"] * 6
    members = inspect("network", f"{deployment.name}-exchange")["Containers"].values()
    assert {member["Name"] for member in members} == {f"{deployment.name}-{p}" for p in PARTIES}


def test_nobody_reaches_the_ports_of_the_host(deployment: Deployment) -> None:
    """They are published on 127.0.0.1 alone, which is the container's own in a container."""
    ports = [
        address.rpartition(":")[2] for address in map(deployment.host.address, services(deployment))
    ]
    for service in ("dealer", "party-1", "coordinator"):
        networks = inspect("container", f"{deployment.name}-{service}")["NetworkSettings"][
            "Networks"
        ]
        gateways = [found["Gateway"] for found in networks.values() if found["Gateway"]]
        places = [f"{gateway}:{port}" for gateway in gateways for port in ports]
        assert places
        assert set(knock(deployment, service, *places)) == {"closed"}


def services(deployment: Deployment) -> list[Service]:
    return list(deployment.host.services)


def test_networks_lead_nowhere_else(deployment: Deployment) -> None:
    for name in ("exchange", "dealing", "ordering", "control"):
        assert inspect("network", f"{deployment.name}-{name}")["Internal"], name
    for name in ("dealer-door", "parties-door", "coordinator-door"):
        options = inspect("network", f"{deployment.name}-{name}")["Options"]
        assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false", name


# -- how it runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_may_do_next_to_nothing(deployment: Deployment, service: str) -> None:
    found = inspect("container", f"{deployment.name}-{service}")
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert {binding["HostIp"] for [binding] in host["PortBindings"].values()} == {"127.0.0.1"}
    mounts = {mount["Destination"]: mount["RW"] for mount in found["Mounts"]}
    assert mounts == {"/etc/masque": False, "/var/lib/masque": True}
    container = f"{deployment.name}-{service}"
    for place in ("/", "/opt/masque", "/etc/masque", "/usr/local/bin"):
        done = run("docker", "exec", container, "touch", f"{place}/x", check=False)
        assert done.returncode != 0, place
    status = run("docker", "exec", container, "cat", "/proc/1/status").stdout
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "Uid:\t10001\t10001\t10001\t10001" in status


def test_secrets_are_files(deployment: Deployment) -> None:
    keys = [path.read_bytes() for path in deployment.host.home.rglob("*.key")]
    assert len(keys) > len(SERVICES)
    for service in SERVICES:
        container = f"{deployment.name}-{service}"
        told = run("docker", "container", "inspect", container).stdout
        assert "PRIVATE KEY" not in told
        environment = inspect("container", container)["Config"]["Env"]
        names = {entry.partition("=")[0] for entry in environment}
        assert names <= ENVIRONMENT
        modes = run(
            "docker", "exec", container, "sh", "-c", "stat -c %a $(find /etc/masque -name *.key)"
        )
        assert set(modes.stdout.split()) == {"600"}
        logs = run("docker", "logs", container)
        assert "PRIVATE" not in logs.stdout + logs.stderr


def test_no_service_has_anothers_keys(deployment: Deployment) -> None:
    for service in SERVICES:
        container = f"{deployment.name}-{service}"
        found = run("docker", "exec", container, "find", "/etc/masque", "-name", "*.key").stdout
        names = {Path(line).name for line in found.split()}
        role = "party" if service in PARTIES else service
        assert names - {"store.key"} == {f"{service}.{role}.key"}


def test_logs_are_shown(deployment: Deployment) -> None:
    assert '"event": "serving"' in deployment.make("logs", ARGS="--no-color dealer").stdout


# -- what goes wrong ---------------------------------------------------------------------------


def test_another_number_of_parties_is_refused(deployment: Deployment) -> None:
    done = deployment.make("up", PARTIES="2", check=False)
    assert done.returncode != 0
    assert "has 3 parties, not 2" in done.stderr
    assert "ARGS=--wipe" in done.stderr
