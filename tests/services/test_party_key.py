"""The key of a party's store may lie on another disk."""

from __future__ import annotations

from pathlib import Path

from masque.data.pages import KEY_BYTES
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
