"""`deploy/kubernetes`: every overlay as a cluster would take it, without a cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

import masque
from masque.data.keys import KEY_BYTES
from masque.jobs import policy
from masque.wire.authority import create_authority
from masque.wire.identity import Identity, Role
from masque.wire.recipients import create_recipient
from masque.wire.server import GRACE
from masque.wire.tls import find_credentials
from services.dealer.settings import DealerSettings
from services.party.settings import PartySettings
from tests.deploy.kustomizing import Resource, documents, render
from tests.deploy.manifests import selects, violations
from tests.deploy.overlays import (
    FOLDER,
    ORGANISATIONS,
    PAGE,
    ROOT,
    addresses,
    container,
    door,
    only,
    pod,
    port,
    rendered,
    settings,
    where,
)
from tests.test_docs import script, snippets

TEST = "tests/deploy/test_kubernetes.py::test_the_commands_of_the_page"
VERSIONS = ("1.29", "1.33", kubernetes_validate.latest_version())
overlays = pytest.mark.parametrize("name", ORGANISATIONS)


# -- what kustomize makes of them --------------------------------------------------------------


def test_there_is_one_overlay_an_organisation() -> None:
    assert {path.name for path in (FOLDER / "overlays").iterdir()} == set(ORGANISATIONS)


def test_every_file_is_in_a_kustomization() -> None:
    for folder in FOLDER.rglob("*"):
        if not (folder / "kustomization.yaml").exists():
            assert not folder.is_dir() or not list(folder.glob("*.*")), folder
            continue
        (wanted,) = documents(folder / "kustomization.yaml")
        named = set(wanted["resources"])
        named |= {entry["path"] for entry in wanted.get("patches", []) if "path" in entry}
        for entry in wanted.get("configMapGenerator", []):
            named |= set(entry["files"])
        files = {path.name for path in folder.iterdir() if path.is_file()}
        assert files - {"kustomization.yaml"} == {item for item in named if "/" not in item}


@overlays
def test_kustomize_renders_the_same(name: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: overlays were rendered by the tests alone")
    printed = subprocess.run(
        ["kubectl", "kustomize", FOLDER / "overlays" / name],
        env={**os.environ, "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    def order(item: Resource) -> tuple[str, str]:
        return item["kind"], item["metadata"]["name"]

    assert sorted(yaml.safe_load_all(printed), key=order) == sorted(rendered(name), key=order)


def test_a_feature_that_the_tests_do_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("kind: Kustomization\nnamePrefix: a-\n")
    with pytest.raises(AssertionError, match="namePrefix"):
        render(tmp_path)


# -- schemas -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@overlays
def test_every_document_is_valid(name: str, version: str) -> None:
    found = rendered(name)
    kinds = {item["kind"] for item in found}
    assert kinds >= {"Namespace", "ServiceAccount", "Service", "StatefulSet", "NetworkPolicy"}
    for item in found:
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("StatefulSet", lambda item: item["spec"].update(replica=1)),
        ("StatefulSet", lambda item: item["spec"].update(replicas="1")),
        ("StatefulSet", lambda item: item["spec"].pop("selector")),
        ("Service", lambda item: item["spec"]["ports"][0].update(port="grpc")),
        ("NetworkPolicy", lambda item: item["spec"].update(podSelectors={})),
    ],
)
def test_a_planted_mistake_is_invalid(kind: str, change: Callable[[Resource], object]) -> None:
    item = next(item for item in rendered("hospital-a") if item["kind"] == kind)
    change(item)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, VERSIONS[0], strict=True)


@overlays
def test_names_lead_to_each_other(name: str) -> None:
    found = rendered(name)
    template, service = pod(found), only(found, "Service")["spec"]
    labels = template["metadata"]["labels"]
    stateful = only(found, "StatefulSet")
    assert stateful["spec"]["replicas"] == 1
    assert selects(stateful["spec"]["selector"], labels)
    assert stateful["spec"]["serviceName"] == only(found, "Service")["metadata"]["name"]
    assert selects({"matchLabels": service["selector"]}, labels)
    assert labels["app.kubernetes.io/component"] == ORGANISATIONS[name][0]
    account = only(found, "ServiceAccount")
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False
    assert template["spec"]["automountServiceAccountToken"] is False
    places = {item["metadata"].get("namespace") for item in found if item["kind"] != "Namespace"}
    assert places == {only(found, "Namespace")["metadata"]["name"]} == {f"masque-{name}"}
    assert container(found)["image"] == f"masque:{masque.__version__}"


# -- pod security ------------------------------------------------------------------------------


@overlays
def test_pods_are_restricted(name: str) -> None:
    found = rendered(name)
    labels = only(found, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert violations(pod(found)) == set()
    assert container(found)["securityContext"]["readOnlyRootFilesystem"] is True
    security = pod(found)["spec"]["securityContext"]
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert user is not None
    assert [security["runAsUser"], security["runAsGroup"]] == [int(user[1]), int(user[2])]
    assert security["fsGroup"] == int(user[2])


def _secure(template: Resource) -> Any:
    return template["spec"]["containers"][0]["securityContext"]


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("privileged", lambda pod: _secure(pod).update(privileged=True)),
        ("allowPrivilegeEscalation", lambda pod: _secure(pod).pop("allowPrivilegeEscalation")),
        ("capabilities", lambda pod: _secure(pod)["capabilities"].update(add=["NET_ADMIN"])),
        ("capabilities", lambda pod: _secure(pod).pop("capabilities")),
        ("runAsNonRoot", lambda pod: _secure(pod).update(runAsNonRoot=False)),
        ("runAsUser", lambda pod: pod["spec"]["securityContext"].update(runAsUser=0)),
        ("seccompProfile", lambda pod: pod["spec"]["securityContext"].pop("seccompProfile")),
        ("hostNetwork", lambda pod: pod["spec"].update(hostNetwork=True)),
        ("volumes: hostPath", lambda pod: pod["spec"]["volumes"].append({"hostPath": {}})),
        ("hostPort", lambda pod: pod["spec"]["containers"][0]["ports"][0].update(hostPort=1)),
    ],
)
def test_a_pod_that_is_not_is_found_out(rule: str, change: Callable[[Resource], object]) -> None:
    template = pod(rendered("hospital-a"))
    change(template)
    assert violations(template) == {rule}


# -- configurations ----------------------------------------------------------------------------


@overlays
def test_services_understand_their_files(name: str, tmp_path: Path) -> None:
    role, (spec, ours) = ORGANISATIONS[name][0], (pod(rendered(name))["spec"], tmp_path)
    found = settings(name, ours)
    assert container(rendered(name))["env"] == [{"name": "SERVICE", "value": role}]
    sources = {volume["name"]: set(volume) - {"name"} for volume in spec["volumes"]}
    (claim,) = only(rendered(name), "StatefulSet")["spec"]["volumeClaimTemplates"]
    sources[claim["metadata"]["name"]] = {"claim"}
    mounts = {
        PurePosixPath(mount["mountPath"]): (sources[mount["name"]], mount.get("readOnly", False))
        for mount in container(rendered(name))["volumeMounts"]
    }
    paths = {"tls": found.tls.directory, "revoked": found.tls.revoked}
    paths |= {key: value for key, value in found if isinstance(value, Path)}
    kept = dict.fromkeys(("data", "store", "revoked"), "claim")
    kept |= dict.fromkeys(("policy", "recipients"), "configMap")
    for key, path in paths.items():
        inside = Path("/etc/masque") / path.relative_to(ours) if path.is_relative_to(ours) else path
        (mount,) = (mount for mount in mounts if PurePosixPath(inside).is_relative_to(mount))
        wanted = kept.get(key, "secret")
        assert mounts[mount] == ({wanted}, wanted != "claim"), (key, inside)
    assert (ours / "policy.yaml").exists() == (role == "party")
    if role == "party":
        assert policy.load(found.policy).outputs == ("sealed",)
    writable = {str(mount) for mount, (_, fixed) in mounts.items() if not fixed}
    assert writable == {"/tmp", "/var/lib/masque"}


@overlays
def test_secrets_are_files_that_nobody_else_reads(name: str) -> None:
    found = rendered(name)
    volumes = [volume["secret"] for volume in pod(found)["spec"]["volumes"] if "secret" in volume]
    assert volumes
    assert all(volume["defaultMode"] == 0o400 for volume in volumes)
    assert not any("subPath" in mount for mount in container(found)["volumeMounts"])
    assert "Secret" not in {item["kind"] for item in found}
    assert all("valueFrom" not in entry for entry in container(found)["env"])
    assert "envFrom" not in container(found)


@overlays
def test_probes_and_ends(name: str, tmp_path: Path) -> None:
    found = container(rendered(name))
    probes = {kind: found[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    for probe in probes.values():
        assert probe["exec"]["command"] == ["masque-service", "probe"]
    startup, liveness = probes["startup"], probes["liveness"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300
    assert liveness["failureThreshold"] > probes["readiness"]["failureThreshold"]
    its = settings(name, tmp_path)
    patience = pod(rendered(name))["spec"]["terminationGracePeriodSeconds"]
    assert patience >= its.stop_seconds + GRACE + 10
    assert its.listen == f"0.0.0.0:{port(rendered(name), 'grpc')}"
    scraped = port(rendered(name), "metrics")
    assert (its.metrics and its.metrics.listen) == (f"0.0.0.0:{scraped}" if scraped else None)


def test_the_files_of_one_project_fit_together(tmp_path: Path) -> None:
    by_name: dict[str, Any] = {}
    for name in ORGANISATIONS:
        (tmp_path / name).mkdir()
        found = settings(name, tmp_path / name)
        by_name[found.name] = found
    meant = {name: f"{name}.example:{door(rendered(where(name)))}" for name in by_name}
    assert {found.project for found in by_name.values()} == {"demo"}
    parties = [name for name, found in by_name.items() if isinstance(found, PartySettings)]
    coordinator = by_name["coordinator"]
    assert [peer.name for peer in coordinator.parties] == parties
    for found in by_name.values():
        if isinstance(found, DealerSettings | PartySettings):
            assert found.coordinator == coordinator.name
        for name, address in addresses(found).items():
            assert address == meant[name]
    for party in parties:
        assert set(by_name[party].peers) == set(parties) - {party}


# -- the page ----------------------------------------------------------------------------------

RECORDER = """#!/bin/sh
printf '%s\\0' "$@" >> "$CALLS" && printf '\\n' >> "$CALLS"
"""
"""Stands where kubectl is on a host with a cluster, and notes what it was told."""


@pytest.fixture
def operator(tmp_path: Path) -> Path:
    """A clone at a hospital, with the certificates and recipients that it was given."""
    authority = create_authority(tmp_path / "authority", "demo")
    party, analyst = Identity("demo", Role.PARTY, "hospital-a"), Identity("demo", Role.CLIENT, "x")
    clone = tmp_path / "clone"
    authority.issue(party, clone / "certificates")
    authority.issue(analyst, tmp_path / "analyst")
    create_recipient(tmp_path / "analyst", find_credentials(tmp_path / "analyst", analyst.stem))
    (clone / "recipients").mkdir()
    shutil.copy(tmp_path / "analyst" / "x.recipient.pub", clone / "recipients")
    (clone / "deploy").symlink_to(ROOT / "deploy", target_is_directory=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").write_text(RECORDER)
    (tmp_path / "bin" / "kubectl").chmod(0o755)
    return clone


def test_the_commands_of_the_page(operator: Path) -> None:
    """They run, and tell the cluster of things that the overlay has and waits for."""
    parts = [part for part in snippets(PAGE) if part.by == TEST]
    calls = operator.parent / "calls"
    path = os.pathsep.join([str(operator.parent / "bin"), "/usr/bin", "/bin"])
    subprocess.run(
        ["bash", "-s"],
        input=script(parts, PAGE.name),
        cwd=operator,
        env={"PATH": path, "CALLS": str(calls)},
        text=True,
        check=True,
    )
    told = [line.rstrip("\0").split("\0") for line in calls.read_text().splitlines()]
    found = rendered("hospital-a")
    waiting = {
        source.get("secretName") or source["name"]: kind
        for volume in pod(found)["spec"]["volumes"]
        for kind, source in volume.items()
        if kind in ("secret", "configMap") and not source.get("name", "").startswith("config-")
    }
    made = {}
    for words in told:
        match words:
            case ["apply", "-k", folder]:
                assert (operator / folder).resolve() == FOLDER / "overlays" / "hospital-a"
            case ["-n", place, "create", "secret", "generic", name, source, *_]:
                made[name] = "secret"
            case ["-n", place, "create", "configmap", name, source]:
                made[name] = "configMap"
            case ["-n", place, "rollout", "status", which]:
                assert which == f"statefulset/{only(found, 'StatefulSet')['metadata']['name']}"
            case _:
                assert words == ["apply", "-f", "-"]
        if words[0] == "-n":
            assert place == only(found, "Namespace")["metadata"]["name"]
        if "create" in words:
            assert (operator / source.removeprefix("--from-file=")).exists()
    assert made == waiting
    assert (operator / "store.key").stat().st_size == KEY_BYTES
    assert (operator / "store.key").stat().st_mode & 0o077 == 0
