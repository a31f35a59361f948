"""The pods of `deploy/kubernetes` on a real engine: from the manifests to a trained model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from masque.client.reading import read
from masque.data import bundled
from masque.wire import withdrawing
from masque.wire.authority import Authority, create_authority
from masque.wire.identity import Identity, Role
from masque.wire.publishing import publish
from masque.wire.recipients import create_recipient
from masque.wire.tls import find_credentials
from tests.deploy.engine import JOB, left, run, sweep
from tests.deploy.overlays import ORGANISATIONS, container, pod, rendered, where
from tests.deploy.pods import Cluster, Files, a_cluster, masque

pytestmark = pytest.mark.engine

SERVICES = {
    "dealer": Role.DEALER,
    "hospital-a": Role.PARTY,
    "hospital-b": Role.PARTY,
    "coordinator": Role.COORDINATOR,
}
PARTIES = [name for name, role in SERVICES.items() if role is Role.PARTY]


@dataclass(frozen=True)
class Project:
    """All organisations' pods, and what the analyst has."""

    cluster: Cluster
    authority: Authority
    folder: Path

    def certificates(self, service: str) -> Files:
        """A service's, issued anew."""
        folder = self.folder / service
        identity = Identity("demo", SERVICES[service], service)
        self.authority.issue(identity, folder, hosts=["localhost"], replace=True)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def start(self, service: str) -> None:
        public = next(self.folder.glob("analyst/*.recipient.pub"))
        secrets = {
            "certificates": self.certificates(service),
            "store-key": {"store.key": os.urandom(32)},
            "recipients": {public.name: public.read_bytes()},
        }
        self.cluster.start(service, rendered(where(service)), secrets)

    @property
    def profile(self) -> Path:
        """Of the analyst, with the ports of this host that lead to the pods."""
        path = self.folder / "profile.yaml"
        address = self.cluster.address
        content = {
            "project": "demo",
            "name": "analyst",
            "tls": {"directory": "analyst"},
            "coordinator": {"name": "coordinator", "address": address("coordinator")},
            "parties": [{"name": name, "address": address(name)} for name in PARTIES],
            "recipients": "analyst",
        }
        path.write_text(yaml.safe_dump(content))
        return path


@pytest.fixture(scope="module")
def project(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Started from the manifests; nothing of it is left."""
    folder = tmp_path_factory.mktemp("project")
    authority = create_authority(folder / "authority", "demo")
    authority.issue(Identity("demo", Role.CLIENT, "analyst"), folder / "analyst")
    create_recipient(folder / "analyst", find_credentials(folder / "analyst"))
    made = Project(a_cluster(image), authority, folder)
    try:
        for service in SERVICES:
            made.start(service)
        for service in SERVICES:
            made.cluster.wait(service, rendered(where(service)))
        yield made
    finally:
        sweep(made.cluster.name)
    assert left([made.cluster.name]) == []


@pytest.fixture(scope="module")
def files(project: Project, tmp_path_factory: pytest.TempPathFactory) -> bundled.Files:
    """Two owners' files, shared among the pods of the parties as data sets a and b."""
    made = bundled.write("breast-cancer", tmp_path_factory.mktemp("files"), hospitals=2)
    for name, path in zip("ab", made.hospitals, strict=True):
        masque(project.profile, "share", path, "--schema", made.schema, "--name", name)
    return made


def test_every_overlay_has_a_pod() -> None:
    assert {where(service): role.value for service, role in SERVICES.items()} == {
        name: role for name, (role, _) in ORGANISATIONS.items()
    }


@pytest.mark.parametrize("service", SERVICES)
def test_probes_say_that_it_serves(project: Project, service: str) -> None:
    for kind in ("startup", "readiness", "liveness"):
        assert project.cluster.probe(service, rendered(where(service)), kind) == ""


@pytest.mark.parametrize("service", SERVICES)
def test_keys_are_read_as_they_are_mounted(project: Project, service: str) -> None:
    for mount in container(rendered(where(service)))["volumeMounts"]:
        if mount["name"] not in ("certificates", "store-key"):
            continue
        listed = f"stat -L -c '%a %u %g' {mount['mountPath']}/*.key"
        done = run("docker", "exec", f"{project.cluster.name}-{service}", "sh", "-c", listed)
        assert done.stdout.split() == ["440", "0", "10001"]


def test_a_model_is_trained(project: Project, files: bundled.Files, tmp_path: Path) -> None:
    profile = project.profile
    (tmp_path / "job.yaml").write_text(JOB % 5)
    masque(profile, "train", tmp_path / "job.yaml", "--id", "one", "--watch")
    masque(profile, "result", "one", "--out", tmp_path / "model.json")
    model = read(tmp_path / "model.json")
    assert files.heldout is not None
    rows, labels = model.read(files.heldout, files.schema)
    assert (model.predict(rows) == labels).mean() > 0.9


def test_a_renewed_certificate_is_taken_up(project: Project) -> None:
    for service in SERVICES:
        assert "certificate renewed" not in project.cluster.logs(service)
        project.cluster.fill(service, "certificates", project.certificates(service))
    for service in SERVICES:
        assert project.cluster.probe(service, rendered(where(service))) == ""
        assert "certificate renewed" in project.cluster.logs(service)


def test_a_revocation_list_is_kept(project: Project) -> None:
    """The directory of certificates is read-only: what services are told is with their state."""
    authority, analyst = project.authority, find_credentials(project.folder / "analyst")
    authority.issue(Identity("demo", Role.CLIENT, "leaver"), project.folder / "leaver")
    lists = withdrawing.revoke(authority, withdrawing.find(authority, "leaver.client"))
    for service, role in SERVICES.items():
        identity = Identity("demo", role, service)
        told = publish(project.cluster.address(service), identity, analyst, lists)
        assert told.kept
        assert told.revoked == 1


def test_data_outlives_a_pod_that_ends_in_time(project: Project, files: bundled.Files) -> None:
    before = masque(project.profile, "datasets")
    assert [view["name"] for view in before["datasets"]] == ["a", "b"]
    seconds = pod(rendered("hospital-a"))["spec"]["terminationGracePeriodSeconds"]
    assert project.cluster.stop("hospital-a", seconds) == 0
    run("docker", "start", f"{project.cluster.name}-hospital-a")
    project.cluster.wait("hospital-a", rendered("hospital-a"))
    assert masque(project.profile, "datasets") == before
