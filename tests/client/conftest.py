"""A network of real services, started once a worker by the command line, and files for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from masque.client import local, processes
from tests.client.networks import SCHEMA, job_text, write_small
from tests.client.shell import Shell, share

ROOT = Path(__file__).parents[2]


@pytest.fixture
def masque(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("MASQUE_PROFILE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(capsys)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A network, started by the command line in a process of its own, as a user would."""
    directory = tmp_path_factory.mktemp("cli") / "d"
    command = [sys.executable, "-m", "masque.client.app", "local", "up", "--json"]
    ran = subprocess.run(
        [*command, "--dir", str(directory)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    try:
        assert ran.returncode == 0, ran.stderr
        states = {s["name"]: s["state"] for s in json.loads(ran.stdout)["services"]}
        assert states == dict.fromkeys(("dealer", "party-1", "party-2", "coordinator"), "serving")
        yield directory
    finally:
        processes.stop(local.find(directory).places)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files")
    (directory / "schema.yaml").write_text(SCHEMA)
    (directory / "job.yaml").write_text(job_text())
    for name in ("left", "right"):
        write_small(directory / f"{name}.csv", seed=name)
    return directory


@pytest.fixture
def profile(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment names the profile."""
    path = home / "profile.yaml"
    monkeypatch.setenv("MASQUE_PROFILE", str(path))
    return path


@pytest.fixture
def shared(masque: Shell, files: Path, profile: Path) -> None:
    for name in ("left", "right"):
        assert share(masque, files, name, "--replace").code == 0
