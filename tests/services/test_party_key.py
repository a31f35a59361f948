"""The key of a party's store may lie on another disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from masque.data.keys import KEY_BYTES, StoreKey
from masque.errors import InputError
from services.party.main import run
from tests.services.village import Village


def test_a_party_keeps_its_key_where_its_file_says(tmp_path: Path) -> None:
    party = Village(tmp_path, ("party-a", "party-b"), handmade=False).services["party-a"]
    config, key = party.directory / "config.yaml", tmp_path / "vault" / "store.key"
    config.write_text(config.read_text() + "key_file: ../vault/store.key\n")
    key.parent.mkdir()
    party.start()
    try:
        party.await_ready()
    finally:
        assert party.stop() == 0
    assert key.stat().st_size == KEY_BYTES
    assert key.stat().st_mode & 0o777 == 0o600
    assert not (party.directory / "data" / "key").exists()


def test_a_party_asks_an_agent_for_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    party = Village(tmp_path, ("party-a", "party-b"), handmade=False).services["party-a"]
    config, plain = party.directory / "config.yaml", (party.directory / "config.yaml").read_text()
    vault = tmp_path / "vault"
    vault.write_text(bytes(range(KEY_BYTES)).hex())

    def printing(path: Path) -> str:
        return json.dumps([sys.executable, "-c", f"print(open({str(path)!r}).read())"])

    def written(text: str) -> list[str]:
        config.write_text(plain + text)
        return ["--config", str(config)]

    written(f"key_command: {printing(vault)}\n")
    party.start()
    try:
        party.await_ready()
    finally:
        assert party.stop() == 0
    assert not (party.directory / "data" / "key").exists()

    second = tmp_path / "next"
    second.write_text(bytes(range(1, KEY_BYTES + 1)).hex())
    both = f"key_command: {printing(vault)}\nnext_key_command: {printing(second)}\n"
    assert run(["rotate-key", *written(both), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["old"] == StoreKey(bytes(range(KEY_BYTES))).name != told["new"]

    wrong = "key_command: [/no/such/agent]\nkey_file: elsewhere\n"
    assert run(["check-config", *written(wrong)]) == InputError.exit_code
    errors = capsys.readouterr().err
    assert "names /no/such/agent, and there is no such program" in errors
    assert "is named beside key_file" in errors
