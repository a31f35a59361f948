"""Containers stopped at bad moments, and files that services refuse: what is told, what is kept."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.onehost import engine
from masque.client.local_files import PROJECT
from masque.client.ports import free_ports
from masque.wire.authority import open_authority
from masque.wire.certificates import fingerprint, load_certificate
from masque.wire.identity import Identity, Role
from tests.deploy.engine import Deployment, a_name, inspect, run, share, train

pytestmark = pytest.mark.engine

COUNT = 2
PATIENCE = 60
MANY = 600
"""Epochs: a job that is not over before it can be stopped."""


def job(deployment: Deployment, name: str) -> dict[str, Any]:
    found = {item["job_id"]: item for item in deployment.masque("jobs")["jobs"]}
    return dict(found[name])


def until_it_trains(deployment: Deployment, name: str, attempt: int = 1) -> None:
    """Return once the first epochs are done."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        progress = job(deployment, name)["progress"]
        if progress["attempt"] >= attempt and progress["round"] > 3 and progress["round_name"]:
            return
        time.sleep(0.2)
    raise AssertionError(f"{name} does not train: {progress}")


def until_it_has_gone_on(deployment: Deployment, name: str) -> str:
    """To its end; why it was broken off before."""
    until_it_trains(deployment, name, attempt=2)
    events = deployment.masque("watch", name, lines=True)
    assert events[-1]["state"] == "succeeded"
    assert deployment.masque("result", name)["metrics"]["accuracy"] > 0.9
    broken = next(event for event in events if event["state"] == "waiting")
    assert not broken["ended"] and broken["progress"]["round"] > 0, "it goes on from there"
    return str(broken["progress"]["reason"])


def names(deployment: Deployment) -> set[str]:
    return {item["name"] for item in deployment.masque("datasets")["datasets"]}


def test_compose_stopped_in_the_middle_of_a_job(deployment: Deployment, tmp_path: Path) -> None:
    share(deployment, tmp_path)
    train(deployment, tmp_path, "long", epochs=MANY, watch=False)
    until_it_trains(deployment, "long")
    engine.composing(deployment.host, "stop")
    engine.composing(deployment.host, "start")
    deployment.make("up")  # waits until all are healthy
    assert until_it_has_gone_on(deployment, "long") == "the coordinator was stopped"
    assert names(deployment) == {"a", "b"}
    train(deployment, tmp_path, "again", epochs=2)
    assert job(deployment, "again")["state"] == "succeeded"


def test_containers_killed_in_the_middle_of_a_job(deployment: Deployment, tmp_path: Path) -> None:
    share(deployment, tmp_path)
    train(deployment, tmp_path, "killed", epochs=MANY, watch=False)
    until_it_trains(deployment, "killed")
    containers = [deployment.host.container(service) for service in deployment.host.services]
    run("docker", "kill", *reversed(containers))
    deployment.make("up")
    assert until_it_has_gone_on(deployment, "killed")
    assert names(deployment) == {"a", "b"}


def test_data_stays_when_containers_and_networks_go(deployment: Deployment, tmp_path: Path) -> None:
    share(deployment, tmp_path)
    before = deployment.host
    deployment.make("down")
    listed = run("docker", "container", "ls", "--all", "--format", "{{.Names}}").stdout.split()
    assert not any(name.startswith(deployment.name) for name in listed)
    deployment.make("up")
    assert deployment.host == before
    assert names(deployment) == {"a", "b"}


def test_what_a_service_refuses_is_told_by_make(deployment: Deployment) -> None:
    """And once it is mended, `make up` takes it up."""
    folder = deployment.host.home / "services" / "party-1"
    good = (folder / "policy.yaml").read_text()
    (folder / "policy.yaml").write_text("outputs: [sealed, shouted]\n")
    done = deployment.make("up", check=False)
    assert done.returncode != 0
    assert "Party 'party-1' does not stay up" in done.stderr
    assert "policy.yaml" in done.stderr
    (folder / "policy.yaml").write_text(good)
    deployment.make("up")


def test_a_policy_that_changes_is_taken_up(deployment: Deployment, tmp_path: Path) -> None:
    """Policies are read at the start: the party's container is made anew, no other."""
    share(deployment, tmp_path)
    policy = deployment.host.home / "services" / "party-2" / "policy.yaml"
    good = policy.read_text()
    policy.write_text("outputs: [kept]\n")
    deployment.make("up")
    with pytest.raises(AssertionError, match="party-2"):
        train(deployment, tmp_path, "refused", epochs=2)
    policy.write_text(good)
    deployment.make("up")


def served(deployment: Deployment, name: str) -> str:
    """The fingerprint of the certificate that a party shows to who connects."""
    service = next(s for s in deployment.host.services if s.name == name)
    host, _, port = deployment.host.address(service).rpartition(":")
    shown = ssl.get_server_certificate((host, int(port)), timeout=10)
    return fingerprint(load_certificate(shown.encode()))


def test_a_certificate_near_its_end_is_renewed_and_taken_up(deployment: Deployment) -> None:
    """By `make up`, while the service runs; and its file is checked in its container."""
    container = f"{deployment.name}-party-1"
    started = inspect("container", container)["State"]["StartedAt"]
    folder = deployment.host.home / "services" / "party-1" / "certificates"
    identity = Identity(PROJECT, Role.PARTY, "party-1")
    short = dt.timedelta(days=3)
    authority = open_authority(deployment.host.home / "authority")
    authority.issue(identity, folder, hosts=["127.0.0.1"], lifetime=short, replace=True)
    near = fingerprint(load_certificate(folder / f"{identity.stem}.pem"))
    deployment.make("up")
    renewed = fingerprint(load_certificate(folder / f"{identity.stem}.pem"))
    assert renewed != near
    assert served(deployment, "party-1") == renewed
    assert inspect("container", container)["State"]["StartedAt"] == started
    told = run("docker", "exec", container, "masque-service", "check-config").stdout
    assert "party 'party-1' of project 'local' can start with" in told


def test_a_port_in_use_is_told_before_anything_starts(image: str, tmp_path: Path) -> None:
    fresh = Deployment(a_name(), tmp_path, image)
    (first,) = free_ports(1)
    port = first + 1
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        done = fresh.make("up", PORT=str(first), check=False)
    assert done.returncode != 0
    assert f"Port {port}, meant for party 'party-1', is in use" in done.stderr
    assert not (tmp_path / fresh.name).exists()


def test_volumes_whose_keys_are_gone_are_told(deployment: Deployment, tmp_path: Path) -> None:
    elsewhere = Deployment(deployment.name, tmp_path, deployment.image)
    done = elsewhere.make("up", check=False)
    assert done.returncode != 0
    assert f"{deployment.name}-party-1-state" in done.stderr
    assert "its keys are not in" in done.stderr


def test_without_an_engine_make_says_what_to_do(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "masque", ignore_errors=True)
    done = Deployment("masque-none", tmp_path, "masque").make(
        "up", check=False, DOCKER_HOST=f"unix://{tmp_path}/no.sock"
    )
    assert done.returncode != 0
    assert "No Docker engine answers" in done.stderr
