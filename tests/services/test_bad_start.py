"""What keeps a service from starting, for each of the three: told in one line with its cure."""

from __future__ import annotations

import datetime as dt
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from masque.wire.authority import create_authority
from masque.wire.identity import Identity, Role
from tests.services.files import ROLES, Folder

AS_ANYBODY = """
import ctypes, os, sys
for capability in (1, 2):  # of root: to read and write whatever it likes
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
YEAR = dt.timedelta(days=365)


@pytest.fixture(params=ROLES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path, request.param)


def missing(folder: Folder) -> None:
    folder.certificate.unlink()


def missing_key(folder: Folder) -> None:
    folder.key.unlink()


def no_file(folder: Folder) -> None:
    folder.certificate.unlink()
    folder.certificate.mkdir()


def nonsense(folder: Folder) -> None:
    folder.certificate.write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")


def open_key(folder: Folder) -> None:
    folder.key.chmod(0o644)


def key_of_another(folder: Folder) -> None:
    key = folder.key.read_bytes()
    folder.certify()
    folder.key.write_bytes(key)


def wrong_role(folder: Folder) -> None:
    other = Identity("demo", Role.CLIENT, folder.identity.name)
    folder.authority.issue(other, folder.root / "other")
    for end in ("pem", "key"):
        stem = folder.root / "other" / f"{other.stem}.{end}"
        stem.replace(folder.certificate.with_suffix(f".{end}"))


def expired(folder: Folder) -> None:
    folder.certify(now=dt.datetime.now(dt.UTC) - 2 * YEAR, lifetime=YEAR)


def not_yet_valid(folder: Folder) -> None:
    folder.certify(now=dt.datetime.now(dt.UTC) + dt.timedelta(days=2))


def another_authority(folder: Folder) -> None:
    authority = (folder.certificate.parent / "authority.pem").read_bytes()
    folder.certify(create_authority(folder.root / "foreign", "demo"))
    (folder.certificate.parent / "authority.pem").write_bytes(authority)


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (missing, 9, "There is no certificate at"),
        (missing_key, 9, "There is no private key at"),
        (no_file, 6, "Is a directory"),
        (nonsense, 6, "is not a PEM certificate"),
        (open_key, 6, "Run: chmod 600"),
        (key_of_another, 6, "does not belong to the certificate"),
        (wrong_role, 6, "/client/"),
        (expired, 6, "expired at"),
        (not_yet_valid, 6, "is not valid before"),
        (another_authority, 6, "was not issued by"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_certificates(
    folder: Folder,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Folder], None],
    code: int,
    words: str,
) -> None:
    spoil(folder)
    assert folder.start() == code
    told(capsys, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"listen": 7000}, "line"),
        ({"name": ["a"]}, "name must be"),
        ({"tls": "certificates"}, "tls"),
        ({"project": 5}, "project must be text"),
        ({"stop_seconds": "8"}, "stop_seconds must be a number"),
        ({"log_level": True}, "log_level"),
    ],
)
def test_wrong_types(
    folder: Folder, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    assert folder.start(**changes) == 4
    told(capsys, words)


def test_a_port_that_is_taken(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert folder.start(listen=f"127.0.0.1:{port}") == 8
    told(capsys, f"Port {port} on 127.0.0.1 is in use by another program.")


def test_an_address_of_another_machine(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.start(listen="192.0.2.1:7000") == 3
    told(capsys, "Cannot listen at 192.0.2.1:7000: Cannot assign requested address")


@pytest.mark.parametrize(
    ("role", "field", "value"),
    [
        ("party", "data", "taken/data"),
        ("party", "data", "taken"),
        ("party", "key_file", "taken/key"),
        ("coordinator", "store", "taken/jobs.sqlite"),
        ("coordinator", "store", "certificates"),
        ("dealer", "ready_file", "taken/ready.json"),
    ],
)
def test_a_place_that_is_no_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str, field: str, value: str
) -> None:
    folder = Folder(tmp_path, role)
    (tmp_path / "taken").write_text("a file")
    assert folder.start(**{field: value}) in (1, 4, 9)
    told(capsys, str(tmp_path / value.partition("/")[0]))


@pytest.mark.parametrize(
    ("role", "place", "words"),
    [
        ("party", "data", "below cannot be written: Permission denied"),
        ("party", "keys", "store.key, cannot be read: Permission denied"),
        ("coordinator", "state", "The job store"),
        ("dealer", "run", "The ready file"),
        ("dealer", "certificates/dealer.dealer.key", "Permission denied"),
        ("party", "certificates/party-a.party.key", "Permission denied"),
        ("coordinator", "certificates/coordinator.coordinator.pem", "Permission denied"),
    ],
)
def test_places_without_permission(tmp_path: Path, role: str, place: str, words: str) -> None:
    folder = Folder(tmp_path, role)
    changes = {
        "data": {"data": "data/below"},
        "keys": {"key_file": "keys/store.key"},
        "run": {"ready_file": "run/ready.json"},
    }
    path = folder.write(**changes.get(place, {}))
    spoilt = tmp_path / place
    if not spoilt.exists():
        spoilt.mkdir()
    spoilt.chmod(0o000)
    command = [sys.executable, "-m", f"services.{role}", "--config", str(path)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", AS_ANYBODY, *command],
            env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        spoilt.chmod(0o700)
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode in (1, 6), done.stderr
    assert len(said) == 1 and said[0].startswith("error: ") and words in said[0], done.stderr
    assert str(spoilt) in said[0]


def told(capsys: pytest.CaptureFixture[str], words: str) -> None:
    said = capsys.readouterr().err.splitlines()
    error = "\n".join(line for line in said if not line.startswith("{"))
    assert error.startswith("error: ") and words in error and "Traceback" not in error, error
    assert error.strip().endswith((".", "'", "?", ".key", ")")), "a sentence, or a command"
