"""`check-config`: every mistake of a service's file at once, each with place and cure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from masque.client.app import main
from tests.services.files import NAMES, ROLES, RUN, Folder


@pytest.fixture(params=ROLES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path, request.param)


@pytest.fixture
def party(tmp_path: Path) -> Folder:
    return Folder(tmp_path, "party")


def checked(folder: Folder, capsys: pytest.CaptureFixture[str], **changes: Any) -> dict[str, Any]:
    """Mistakes by field, as told in JSON; the text for people has the same number."""
    path = folder.write(**changes)
    run = RUN[folder.role]
    code = run(["check-config", "--config", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (3 if found["mistakes"] else 0)
    assert found["ok"] is not bool(found["mistakes"])
    assert run(["check-config", "--config", str(path)]) == code
    said = capsys.readouterr()
    assert (said.out if code == 0 else said.err).strip()
    for mistake in found["mistakes"]:
        assert mistake["problem"] in said.err
        assert mistake["file"] == str(path)
    return {str(mistake["field"]): mistake for mistake in found["mistakes"]}


def test_a_good_file(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path for path in folder.root.rglob("*")}
    assert checked(folder, capsys) == {}
    RUN[folder.role](["check-config", "--config", str(folder.write())])
    said = capsys.readouterr().out
    assert f"{folder.role} {NAMES[folder.role]!r} of project 'demo' can start with" in said
    assert "valid until" in said
    assert {path for path in folder.root.rglob("*")} - before == {folder.write()}, "nothing is made"


def test_all_mistakes_at_once(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be read does not hide what else is wrong."""
    folder.key.chmod(0o644)
    found = checked(
        folder,
        capsys,
        lisen="127.0.0.1:1",
        log_level="loud",
        ready_file=str(folder.write()) + "/ready.json",
        stop_seconds="long",
    )
    assert found["lisen"]["cure"] == "Did you mean 'listen'?"
    assert found["lisen"]["line"] > 1 and found["lisen"]["value"] == "127.0.0.1:1"
    assert "log_level" in found and "stop_seconds" in found
    assert "is not a directory" in found["ready_file"]["problem"]
    assert found["tls.directory"]["cure"] == f"Run: chmod 600 {folder.key}"


def test_an_address_of_another_machine(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    found = checked(folder, capsys, listen="192.0.2.1:7000")
    assert "not an address of this machine" in found["listen"]["problem"]
    found = checked(folder, capsys, metrics={"listen": "192.0.2.1:9464"})
    assert "not an address of this machine" in found["metrics.listen"]["problem"]


def test_spans_need_their_extra(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"otlp": "http://127.0.0.1:4318"}
    assert checked(folder, capsys, telemetry=wanted) == {}
    exporter = "opentelemetry.exporter.otlp.proto.http"
    for module in (exporter, f"{exporter}.trace_exporter"):
        monkeypatch.setitem(sys.modules, module, None)
    found = checked(folder, capsys, telemetry=wanted)
    assert "OpenTelemetry, which is not installed" in found["telemetry"]["problem"]


def test_a_party_looks_at_all_that_its_file_names(
    party: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    (party.root / "policy.yaml").write_text("outputs: [sealed, shouted]\n")
    (party.root / "recipients" / "x.recipient.pub").write_text("nonsense")
    (party.root / "store.key").write_bytes(b"short")
    (party.root / "data").write_text("a file")
    found = checked(party, capsys, peers={"party-b": "127.0.0.1:7002", "party-c": "127.0.0.1:7002"})
    assert set(found) == {"policy", "recipients", "key_file", "data", "peers.party-c"}
    assert "outputs[1] cannot be 'shouted'" in found["policy"]["problem"]
    assert "x.recipient.pub" in found["recipients"]["problem"]
    assert "has the address of 'party-b'" in found["peers.party-c"]["problem"]


def test_a_coordinator_knows_everybody_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator = Folder(tmp_path, "coordinator")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "jobs.sqlite").write_text("this is no database at all")
    parties = [{"name": "dealer", "address": f"127.0.0.1:{port}"} for port in (7001, 7001)]
    found = checked(coordinator, capsys, parties=parties)
    assert "is no job store" in found["store"]["problem"]
    assert "is the second 'dealer'" in found["dealer"]["problem"]
    assert "is the second 'dealer'" in found["parties[1]"]["problem"]
    assert coordinator.start(parties=parties) == 4, "it does not start with this either"


def test_what_is_no_yaml(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder.write()
    path.write_text("name: [\n")
    assert RUN[folder.role](["check-config", "--config", str(path), "--json"]) == 3
    (mistake,) = json.loads(capsys.readouterr().out)["mistakes"]
    assert "line" in mistake["problem"]
    assert RUN[folder.role](["check-config", "--config", str(path.with_name("none"))]) == 3
    assert "cannot be read" in capsys.readouterr().err


def test_from_the_command_line(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    path = folder.write()
    assert main([folder.role, "check-config", str(path)]) == 0
    assert "can start with" in capfd.readouterr().out
    path = folder.write(stop_secs=3)
    assert main([folder.role, "check-config", str(path), "--json"]) == 3
    (mistake,) = json.loads(capfd.readouterr().out)["mistakes"]
    assert mistake["cure"] == "Did you mean 'stop_seconds'?"


def test_of_a_service_that_runs(party: Folder) -> None:
    """Its port is in use and its store is locked, by itself: that is no mistake."""
    path = party.write(ready_file="ready.json")
    command = [sys.executable, "-m", "services.party"]
    with subprocess.Popen([*command, "--config", str(path)], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b'"serving"' not in process.stderr.readline():
            assert process.poll() is None
        address = json.loads((party.root / "ready.json").read_text())["address"]
        path = party.write(listen=address)
        done = subprocess.run([*command, "check-config", "--config", str(path)], check=False)
        process.terminate()
        process.stderr.read()
    assert done.returncode == 0
