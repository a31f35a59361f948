"""Kits: services understand them, they hold no secret, one project always makes the same."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from masque.client.profile import load as load_profile
from masque.jobs import policy
from masque.wire.authority import create_authority
from masque.wire.certificates import key_fingerprint
from masque.wire.settings import ServiceSettings, load_settings
from services.coordinator.settings import CoordinatorSettings
from services.dealer.settings import DealerSettings
from services.party.settings import PartySettings
from tests.client.projects import PROJECT
from tests.client.shell import Answer, Shell

KINDS: dict[str, type[ServiceSettings]] = {
    "dealer": DealerSettings,
    "party": PartySettings,
    "coordinator": CoordinatorSettings,
}
SERVICES = {
    "dealer": ("trustee", "dealer"),
    "hospital-a": ("hospital-a", "party"),
    "hospital-b": ("hospital-b", "party"),
    "coordinator": ("university", "coordinator"),
}
THIRD = """\
  - name: hospital-c
    services: [{role: party, name: hospital-c, address: "masque.hospital-c.example:7000"}]
"""


class Provisioning:
    """A project, its authority, and the command."""

    def __init__(self, home: Path, masque: Shell) -> None:
        self.home, self.masque = home, masque
        self.authority = create_authority(home / "authority", "cancer-study")
        self.kits = home / "kits"

    def __call__(self, text: str = PROJECT, *more: str) -> Answer:
        file = self.home / "project.yaml"
        file.write_text(text)
        place = ["--authority", str(self.home / "authority"), "--out", str(self.kits)]
        return self.masque("provision", file, *place, *more)

    def compose(self, organisation: str) -> Any:
        return yaml.safe_load((self.kits / organisation / "compose.yaml").read_text())


@pytest.fixture
def provision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Provisioning:
    return Provisioning(tmp_path, Shell(capsys))


@pytest.fixture
def made(provision: Provisioning) -> Provisioning:
    answer = provision()
    assert answer.code == 0, answer.err
    return provision


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def test_services_and_people_understand_their_files(made: Provisioning) -> None:
    for name, (organisation, role) in SERVICES.items():
        folder = made.kits / organisation / name
        settings = load_settings(KINDS[role], folder / f"{role}.yaml")
        assert (settings.name, settings.project) == (name, "cancer-study")
        assert settings.listen == "0.0.0.0:7000"
        assert settings.tls.directory == folder / "certificates"
        assert (folder / "certificates").is_dir()
        assert (folder.parent / "authority.pem").read_bytes() == made.authority.trust.pem
    party = load_settings(PartySettings, made.kits / "hospital-a" / "hospital-a" / "party.yaml")
    assert party.peers == {"hospital-b": "masque.hospital-b.example:7000"}
    assert party.data == Path("/var/lib/masque/hospital-a/data")
    assert party.policy is not None
    allowed = policy.load(party.policy)
    assert (allowed.clients, allowed.recipients) == (("analyst",), ("analyst",))
    assert allowed.coordinators == ("coordinator",) and "open" not in (allowed.outputs or ())
    for organisation, person in (("university", "analyst"), ("hospital-a", "ward-3")):
        file = made.kits / organisation / "clients" / person / "profile.yaml"
        profile = load_profile(file)
        assert profile.name == person
        assert [found.name for found in profile.parties] == ["hospital-a", "hospital-b"]


def test_nothing_in_a_kit_is_secret(made: Provisioning) -> None:
    key = (made.home / "authority" / "authority.key").read_bytes()
    for path in files(made.kits):
        content = path.read_bytes()
        assert path.suffix != ".key", path
        assert b"PRIVATE KEY" not in content and key not in content, path
    for archive in made.kits.glob("*.tar.gz"):
        with tarfile.open(archive) as packed:
            for entry in packed:
                found = packed.extractfile(entry)
                assert found is not None and b"PRIVATE KEY" not in found.read(), entry.name


def test_an_organisation_gets_what_is_its_own(made: Provisioning) -> None:
    for name, (organisation, _) in SERVICES.items():
        holders = [path.parent.name for path in made.kits.glob(f"*/{name}") if path.is_dir()]
        assert holders == [organisation]
    for archive in made.kits.glob("*.tar.gz"):
        name = archive.name.removesuffix(".tar.gz")
        with tarfile.open(archive) as packed:
            told = {entry.name for entry in packed}
        kit = made.kits / name
        assert told == {f"{name}/{path.relative_to(kit).as_posix()}" for path in files(kit)}


def test_the_same_project_makes_the_same_bytes(made: Provisioning) -> None:
    before = {path: path.read_bytes() for path in files(made.kits)}
    again = made(PROJECT, "--json").json
    assert {path: path.read_bytes() for path in files(made.kits)} == before
    assert not any(kit["changed"] or kit["to_do"] or kit["new"] for kit in again["kits"])
    shutil.rmtree(made.kits)
    assert made().code == 0
    assert {path: path.read_bytes() for path in files(made.kits)} == before


def test_the_fingerprint_of_the_authority_is_told(made: Provisioning) -> None:
    wanted = key_fingerprint(made.authority.certificate)
    assert wanted in made().out
    assert made(PROJECT, "--json").json["authority"] == wanted


def test_instructions_have_ten_steps_at_most(made: Provisioning) -> None:
    pages = list(made.kits.rglob("INSTRUCTIONS.md"))
    assert len(pages) == 7
    for page in pages:
        steps = re.findall(r"^\d+\. .*$", page.read_text(), re.M)
        assert 4 <= len(steps) <= 10, page
        assert "masque pki request" in page.read_text()
    text = (made.kits / "trustee" / "INSTRUCTIONS.md").read_text()
    assert "dealer is called at port 7000 from masque.hospital-a.example" in text
    assert "and calls nobody" in text


def test_compose_gives_every_service_as_little_as_possible(made: Provisioning) -> None:
    for name, (organisation, role) in SERVICES.items():
        content = made.compose(organisation)
        assert set(content["services"]) == {name, "keys"}
        service, keys = content["services"][name], content["services"]["keys"]
        for found in (service, keys):
            assert found["read_only"] is True and found["cap_drop"] == ["ALL"]
            assert found["security_opt"] == ["no-new-privileges:true"]
            assert "privileged" not in found and "user" not in found
        assert service["ports"] == ["7000:7000"]
        assert set(service["environment"]) == {"SERVICE", "CONFIG"}
        assert service["environment"]["CONFIG"] == f"/etc/masque/{name}/{role}.yaml"
        written = [volume for volume in service["volumes"] if not volume.endswith(":ro")]
        assert len(written) == (2 if role == "party" else 1)
        assert service["healthcheck"]["test"] == ["CMD", "masque-service", "probe"]
        assert keys["network_mode"] == "none" and keys["profiles"] == ["keys"]
        assert "ports" not in keys


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="NOT RUN: no docker-compose")
@pytest.mark.parametrize("organisation", ["trustee", "hospital-a", "university"])
def test_compose_understands_its_file(made: Provisioning, organisation: str) -> None:
    file = made.kits / organisation / "compose.yaml"
    command = ["docker-compose", "-f", str(file), "config", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_a_third_party_is_told_to_whom_it_concerns(made: Provisioning) -> None:
    told = made(PROJECT + THIRD, "--json").json
    kits = {kit["organisation"]: kit for kit in told["kits"]}
    assert told["share_anew"] is True
    assert kits["hospital-c"]["new"] and not kits["hospital-c"]["to_do"]
    todo, person = kits["hospital-b"]["to_do"]
    assert "ward-7 takes over" in person
    assert "hospital-b/party.yaml" in todo and "docker compose up -d" in todo
    assert "hospital-b/policy.yaml" not in todo
    assert any("ward-3 takes over" in todo for todo in kits["hospital-a"]["to_do"])
    assert any("coordinator.yaml" in todo for todo in kits["university"]["to_do"])
    assert kits["trustee"]["to_do"] == []
    party = load_settings(PartySettings, made.kits / "hospital-a" / "hospital-a" / "party.yaml")
    assert set(party.peers) == {"hospital-b", "hospital-c"}


def test_a_changed_configuration_makes_the_container_anew(made: Provisioning) -> None:
    def labels() -> dict[str, str]:
        return {
            organisation: made.compose(organisation)["services"][name]["labels"][
                "org.masque.configuration"
            ]
            for name, (organisation, _) in SERVICES.items()
        }

    before = labels()
    assert made(PROJECT + THIRD).code == 0
    after = labels()
    assert {name for name in before if before[name] != after[name]} == {
        "hospital-a", "hospital-b", "university",
    }  # fmt: skip


def test_another_image_concerns_every_host(made: Provisioning) -> None:
    kits = {
        kit["organisation"]: kit for kit in made(PROJECT, "--image", "x:2", "--json").json["kits"]
    }
    for name in ("trustee", "hospital-a", "hospital-b", "university"):
        assert kits[name]["to_do"] == ["take over compose.yaml, then `docker compose up -d`"]


def test_another_analyst_concerns_policies_and_no_data(made: Provisioning) -> None:
    answer = made(PROJECT.replace("[analyst]", "[analyst, student]"), "--json")
    told = answer.json
    kits = {kit["organisation"]: kit for kit in told["kits"]}
    assert told["share_anew"] is False
    assert "hospital-a/policy.yaml" in kits["hospital-a"]["to_do"][0]
    assert kits["university"]["to_do"] == ["student is new here: follow INSTRUCTIONS.md"]


def test_who_leaves_is_told_and_nothing_is_removed(made: Provisioning) -> None:
    assert made(PROJECT + THIRD).code == 0
    key = made.kits / "hospital-c" / "hospital-c" / "certificates" / "hospital-c.party.key"
    key.write_text("made here")
    answer = made()
    assert answer.code == 0
    assert "hospital-c takes part no more: revoke its certificates" in answer.out
    assert "share their data anew" in answer.out
    assert key.read_text() == "made here"


def test_warnings_are_loud(provision: Provisioning) -> None:
    text = PROJECT.replace("name: trustee", "name: trustee\n    owners: [clerk]")
    answer = provision(text)
    assert answer.code == 0
    assert "warning: trustee runs the dealer" in answer.err


@pytest.mark.parametrize(
    ("prepare", "code", "says"),
    [
        ("foreign", 6, "is the authority of 'other', not of 'cancer-study'"),
        ("missing", 9, "authority.pem"),
        ("blocked", 3, "cannot be written"),
        ("record", 3, "what the kits there were made from, cannot be read"),
        ("project", 4, "have 0 dealers"),
    ],
)
def test_what_goes_wrong_is_told(
    provision: Provisioning, prepare: str, code: int, says: str
) -> None:
    text = PROJECT
    if prepare == "foreign":
        create_authority(provision.home / "authority", "other", replace=True)
    elif prepare == "missing":
        shutil.rmtree(provision.home / "authority")
    elif prepare == "blocked":
        provision.kits.write_text("a file")
    elif prepare == "record":
        provision.kits.mkdir()
        (provision.kits / "project.yaml").write_text("nonsense: [")
    else:
        text = PROJECT.replace("role: dealer", "role: party")
    answer = provision(text, "--json")
    assert answer.code == code, answer.err
    assert says in answer.json["error"]["message"]
    assert provision.kits.is_file() or not list(provision.kits.glob("*/compose.yaml"))
