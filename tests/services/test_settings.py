"""Service files and main programs: every mistake in one clear line, with the right exit code."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from masque.errors import SpecError
from masque.wire.authority import create_authority
from masque.wire.identity import Identity, Role
from masque.wire.settings import load_settings
from services.dealer import main as dealer
from services.dealer.settings import DealerSettings
from services.party import main as party
from services.party.settings import PartySettings
from tests.services.village import Village

PARTY: dict[str, Any] = {
    "name": "party-a",
    "project": "demo",
    "tls": {"directory": "certificates"},
    "peers": {"party-b": "127.0.0.1:7002"},
    "dealer": {"name": "dealer", "address": "127.0.0.1:7000"},
    "coordinator": "coordinator",
    "data": "data",
    "recipients": "/etc/recipients",
}


def write(folder: Path, values: dict[str, Any], **changes: Any) -> Path:
    path = folder / "service.yaml"
    changed = {key: value for key, value in (values | changes).items() if value is not None}
    path.write_text(yaml.safe_dump(changed))
    return path


def test_a_good_file_and_its_defaults(tmp_path: Path) -> None:
    found = load_settings(PartySettings, write(tmp_path, PARTY))
    assert found.data == tmp_path / "data" and found.recipients == Path("/etc/recipients")
    assert found.tls.directory == tmp_path / "certificates"
    assert found.listen == "127.0.0.1:0" and found.limits.jobs == 8 and found.policy is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peeers": {}}, "peeers is not a known key. Did you mean 'peers'?"),
        ({"limits": {"job": 3}}, "Did you mean 'jobs'?"),
        ({"dealer": None}, "dealer is missing"),
        ({"listen": "7001"}, "'7001' is not an address"),
        ({"listen": "localhost:99999"}, "not an address"),
        ({"peers": {"party-b": "nowhere"}}, "'nowhere' is not an address"),
        ({"name": "Party A"}, "name"),
        ({"log_level": "verbose"}, "log_level cannot be 'verbose'"),
        ({"tls": {}}, "tls names no directory and not all files"),
        ({"tls": {"directory": "d", "key": "k"}}, "tls names a directory and files"),
        ({"limits": {"jobs": 0}}, "at least 1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as raised:
        load_settings(PartySettings, write(tmp_path, PARTY, **changes))
    assert words in str(raised.value) and "service.yaml" in str(raised.value)


def test_the_dealer_needs_little(tmp_path: Path) -> None:
    values = {key: PARTY[key] for key in ("name", "project", "tls")}
    assert load_settings(DealerSettings, write(tmp_path, values)).coordinator is None


@pytest.mark.parametrize(
    ("run", "changes", "code", "words"),
    [
        (party.run, {"peeers": {}}, 4, "Did you mean 'peers'?"),
        (party.run, {"policy": "policy.yaml"}, 4, "policy.yaml cannot be read"),
        (party.run, {"name": "party-b"}, 9, "party-b.party.pem"),
        (party.run, {"project": "other"}, 6, "not of masque://other/party/party-a"),
        (party.run, {"tls": {"directory": "empty"}}, 9, "/empty/"),
        (party.run, {}, 8, "in use"),
        (dealer.run, {}, 4, "is not a known key"),
    ],
)
def test_a_service_that_cannot_start_says_why(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    run: Any,
    changes: dict[str, Any],
    code: int,
    words: str,
) -> None:
    authority = create_authority(tmp_path / "authority", "demo")
    authority.issue(Identity("demo", Role.PARTY, "party-a"), tmp_path / "certificates")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        path = write(tmp_path, PARTY | {"listen": listen}, **changes)
        assert run(["--config", str(path)]) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and "Traceback" not in error


def test_a_service_begins_tells_where_and_ends_on_a_signal(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "authority", "demo")
    authority.issue(Identity("demo", Role.PARTY, "party-a"), tmp_path / "certificates")
    path = write(tmp_path, PARTY, ready_file="run/ready.json")
    ready = tmp_path / "run" / "ready.json"
    command = [sys.executable, "-m", "services.party", "--config", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "serving":
                break
        record = json.loads(ready.read_text())
        assert record["pid"] == process.pid and record["role"] == "party"
        assert not record["address"].endswith(":0")
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 8 and "in use by another process" in second.stderr
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(timeout=20) == 0 and "stopped" in rest
    assert not ready.exists()


def test_a_village_ends_without_a_complaint(tmp_path: Path) -> None:
    village = Village(tmp_path, ("party-a", "party-b"))
    village.start()
    assert [service.stop() for service in village.services.values()] == [0, 0, 0]
    for service in village.services.values():
        assert "Traceback" not in service.log() and not (service.directory / "ready.json").exists()
