"""`masque result`, `ledger` and `receipt` on the command line, after a real job."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from masque.client import jobs, opening
from masque.client.profile import load
from masque.client.services import Services
from masque.errors import IdentityError
from tests.client.networks import Running, running
from tests.client.shell import Shell


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("evidence")) as made:
        job = made.submit(job_id="proven")
        for event in jobs.watch(made.services, job):
            assert event.error is None, event.error
        yield made


def copies(net: Running, folder: Path) -> tuple[Path, list[Path]]:
    """What somebody without the network has: the authority's certificate and all ledgers."""
    authority = next(net.network.home.rglob("authority.pem"))
    ledgers = []
    for name in ("party-1", "party-2"):
        ledger = next((net.place(name).home / name).rglob("ledger.jsonl"))
        ledgers.append(Path(shutil.copy(ledger, folder / f"{name}.jsonl")))
    return Path(shutil.copy(authority, folder / "authority.pem")), ledgers


def test_a_receipt_comes_with_the_model_and_is_verified_offline(
    net: Running, masque: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASQUE_PROFILE", net.profile)
    answer = masque("result", "proven", "--out", tmp_path / "model.json")
    receipt = tmp_path / "proven.receipt.json"
    assert answer.code == 0 and f"receipt: {receipt}" in answer.out and "warning" not in answer.err
    other = tmp_path / "other.json"
    assert masque("result", "proven", "--receipt", other, "--json").json["receipt"] == str(other)
    assert json.loads(other.read_text()) == json.loads(receipt.read_text())
    missing = masque("result", "proven", "--receipt", tmp_path / "no" / "where")
    assert missing.code == 3 and "cannot be written" in missing.error

    monkeypatch.delenv("MASQUE_PROFILE")
    authority, ledgers = copies(net, tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ["--authority", authority, *(f"--ledger={path}" for path in ledgers)]
    told = masque("receipt", "verify", receipt, *options, "--json").json
    assert told["parties"] == told["ledgers"] == ["party-1", "party-2"]
    assert told["data"] == ["left", "right"] and told["notes"] == []
    assert told["submitted"]["by"] == "analyst" and told["submitted"]["time"] > 0
    named = {item["what"]: item["bits"] for item in told["disclosures"]}
    assert set(named) >= {"share of metric:accuracy, sealed", "share of weights, sealed"}
    assert told["bits"] == sum(named.values())
    text = masque("receipt", "verify", receipt, *options).out
    assert "job proven, attempt 1: signed by party-1, party-2, who agree" in text
    assert "submitted and signed by analyst: 2" in text
    assert "ledgers that have all of it: party-1, party-2" in text

    spoilt = json.loads(receipt.read_text())
    spoilt["parties"][0]["statement"]["disclosures"].pop()
    other.write_text(json.dumps(spoilt))
    answer = masque("receipt", "verify", other, "--authority", authority, "--json")
    assert answer.code == 6 and "changed or forged" in answer.error
    other.write_text("{")
    assert masque("receipt", "verify", other, "--authority", authority).code == 3
    assert masque("receipt", "verify", tmp_path / "none", "--authority", authority).code == 9


def test_ledgers_are_shown_and_verified(net: Running, masque: Shell, tmp_path: Path) -> None:
    authority, (ledger, other) = copies(net, tmp_path)
    told = masque("ledger", "verify", ledger, "--authority", authority, "--json").json
    assert told["party"].endswith("/party/party-1") and told["kinds"]["opened"] >= 3
    head = f"{told['head'][0]}:{told['head'][1]}"
    text = masque("ledger", "verify", ledger, "--authority", authority, "--head", head).out
    assert f"head: {head}" in text and "whole, and signed by party 'party-1'" in text
    shown = masque("ledger", "show", ledger, "--job", "proven").out
    assert "proven (1)" in shown and "share of weights, sealed" in shown and "analyst" in shown
    everything = masque("ledger", "show", ledger, "--json").json["lines"]
    assert len(everything) == told["lines"] and everything[0]["kind"] == "began"
    assert masque("ledger", "verify", other, "--authority", authority, "--head", head).code == 3

    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:-1]))
    answer = masque("ledger", "verify", ledger, "--authority", authority, "--head", head)
    assert answer.code == 3 and f"line {len(lines)}: the ledger ends before" in answer.error
    ledger.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    answer = masque("ledger", "verify", ledger, "--authority", authority, "--json")
    assert answer.code == 3 and answer.json["error"]["where"]["line"] == 2


def test_a_revoked_certificate_is_not_believed_where_the_list_is_given(
    net: Running, masque: Shell, tmp_path: Path
) -> None:
    authority, (ledger, other) = copies(net, tmp_path)
    keeper = Path(
        shutil.copytree(next(net.network.home.rglob("authority.key")).parent, tmp_path / "a")
    )
    assert masque("pki", "revoke", "party-1.party", "--authority", keeper).code == 0
    options = ("--authority", authority, "--revoked", keeper / "authority.crl")
    answer = masque("ledger", "verify", ledger, *options)
    assert answer.code == 3 and "was revoked by the authority" in answer.error
    assert masque("ledger", "verify", other, *options).code == 0
    assert masque("ledger", "verify", ledger, "--authority", authority).code == 0
    missing = masque("ledger", "verify", ledger, *options[:3], tmp_path / "none.crl")
    assert missing.code == 9


def test_a_coordinator_cannot_alter_a_receipt_and_can_only_withhold_it(
    net: Running, masque: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = next(net.network.home.rglob("jobs.sqlite"))
    with sqlite3.connect(store) as database:
        (kept,) = database.execute(
            "SELECT content FROM sealed WHERE recipient='' AND party='party-2'"
        ).fetchone()
        changed = kept.replace(b'"bits":', b'"bits":1', 1)
        assert changed != kept
        update = "UPDATE sealed SET content=? WHERE recipient='' AND party='party-2'"
        database.execute(update, (changed,))
        database.commit()
        with Services(load(net.profile)) as services:
            with pytest.raises(IdentityError, match="changed or forged"):
                opening.fetch(services, "proven")
            database.execute("DELETE FROM sealed WHERE recipient=''")
            database.commit()
            found = opening.fetch(services, "proven")
        assert found.receipt is None and found.has_model
    monkeypatch.setenv("MASQUE_PROFILE", net.profile)
    answer = masque("result", "proven")
    assert answer.code == 0 and "warning: the job has no receipt" in answer.err
