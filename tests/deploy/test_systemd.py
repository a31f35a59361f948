"""The units for hosts without containers: whole, alike, confined, and what systemd understands."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from masque.client.kits import STATE
from masque.client.processes import STOPPING
from masque.client.project import ServiceRole
from tests.deploy.test_pages import PAGE, commands

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "systemd"
ROLES: tuple[ServiceRole, ...] = ("dealer", "party", "coordinator")
CONFINED = {
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictNamespaces": "yes",
    "LimitCORE": "0",
    "UMask": "0077",
}


def unit(role: str) -> configparser.ConfigParser:
    """A unit's sections. Raises if a key is there twice."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((FOLDER / f"masque-{role}@.service").read_text())
    return parser


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_runs_its_service_and_lets_it_do_nothing_else(role: str) -> None:
    service = unit(role)["Service"]
    assert service["ExecStart"].split()[1:] == (
        ["-m", f"services.{role}", "--config", f"/etc/masque/%i/{role}.yaml"]
    )
    for key, value in CONFINED.items():
        assert service[key] == value, key
    assert f"/var/lib/{service['StateDirectory']}" == f"{STATE}/%i"
    assert service["User"] == "masque"
    assert int(service["TimeoutStopSec"]) > STOPPING
    writable = service.get("ReadWritePaths", "")
    assert writable == ("/etc/masque/%i/store" if role == "party" else "")


def test_units_differ_in_their_role_only() -> None:
    def plain(role: str) -> list[str]:
        text = (FOLDER / f"masque-{role}@.service").read_text()
        text = re.sub(r"# The key of its store.*\nReadWritePaths.*\n", "", text)
        return text.replace(role, "ROLE").splitlines()

    assert plain("dealer") == plain("party") == plain("coordinator")


def test_the_user_is_made_by_the_file_beside_them() -> None:
    lines = (FOLDER / "masque.sysusers.conf").read_text().splitlines()
    assert [line.split()[:2] for line in lines if not line.startswith("#")] == [["u", "masque"]]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="NOT RUN: no systemd-analyze")
@pytest.mark.parametrize("role", ROLES)
def test_systemd_understands_a_unit(role: str, tmp_path: Path) -> None:
    text = (FOLDER / f"masque-{role}@.service").read_text()
    text = text.replace("/opt/masque/.venv/bin/python", sys.executable)
    path = tmp_path / f"masque-{role}@example.service"
    path.write_text(text.replace("WorkingDirectory=/opt/masque", f"WorkingDirectory={tmp_path}"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "masque" in line]
    assert done.returncode == 0 and ours == [], done.stderr


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="NOT RUN: no systemctl")
def test_units_are_installed_as_the_page_says(tmp_path: Path) -> None:
    """All of it in a root directory of the test's own; nothing is started there."""
    root, kit = tmp_path / "root", tmp_path / "hospital-a" / "hospital-a"
    (kit / "store").mkdir(parents=True)
    (kit / "party.yaml").write_text("name: hospital-a\n")
    (tmp_path / "masque").mkdir()
    (tmp_path / "masque" / "deploy").symlink_to(ROOT / "deploy")
    lines = commands("test_units_are_installed_as_the_page_says", PAGE).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("chown"))
    assert "chown -R masque:masque /etc/masque/hospital-a" in lines  # no user of this machine
    text = text.replace("/etc/", f"{root}/etc/").replace("enable --now", "enable")
    text = text.replace("systemctl", f"systemctl --root={root}")
    text = text.replace("systemd-sysusers", f"systemd-sysusers --root={root}")
    done = subprocess.run(
        ["bash", "-s"],
        input=text,
        cwd=tmp_path / "masque",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (root / "etc/masque/hospital-a/party.yaml").exists()
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    assert [path.name for path in wanted.iterdir()] == ["masque-party@hospital-a.service"]
    assert "masque:" in (root / "etc/passwd").read_text()
