"""`masque pki` between two machines, as a person and as a script uses it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer

from tests.client.shell import Answer, Shell

STEM = "hospital-a.party"


class Machines:
    """The keeper's directory and the host's, and what goes between them."""

    def __init__(self, masque: Shell, root: Path) -> None:
        self.masque, self.root = masque, root
        self.authority, self.host, self.reply = root / "authority", root / "host", root / "reply"
        assert masque("pki", "init", "--dir", self.authority, "--project", "demo").code == 0

    def request(self, *more: object) -> Answer:
        where = ("--project", "demo", "--host", "a.example.org", "--out", self.host)
        return self.masque("pki", "request", "party", "hospital-a", *where, *more)

    def approve(self, *more: object) -> Answer:
        options = ("--authority", self.authority, "--out", self.reply)
        return self.masque("pki", "approve", self.host / f"{STEM}.csr", *options, *more)

    def install(self, *more: object) -> Answer:
        files = sorted(self.reply.iterdir())
        return self.masque("pki", "install", *files, "--into", self.host, *more)

    def fingerprint(self) -> str:
        found = self.masque("pki", "inspect", self.authority / "authority.pem", "--json").json
        return str(found["key_fingerprint"])


@pytest.fixture
def machines(masque: Shell, tmp_path: Path) -> Machines:
    return Machines(masque, tmp_path)


def test_a_script(machines: Machines) -> None:
    asked = machines.request("--json").json
    assert asked["identity"] == "masque://demo/party/hospital-a"
    assert len(asked["fingerprint"].split()) == 10
    refused = machines.approve()
    assert refused.code == 6 and asked["fingerprint"] in refused.err
    assert "--fingerprint" in refused.err
    assert not machines.reply.exists(), "nothing is certified unasked"
    wrong = machines.approve("--fingerprint", machines.fingerprint())
    assert wrong.code == 6 and "That is not the fingerprint" in wrong.err
    approved = machines.approve("--fingerprint", asked["fingerprint"], "--json").json
    assert approved["approved"][0]["authority_fingerprint"] == machines.fingerprint()
    refused = machines.install()
    assert refused.code == 6 and "--authority-fingerprint" in refused.err
    done = machines.install("--authority-fingerprint", machines.fingerprint(), "--json").json
    assert done["installed"] == [asked["identity"]] and done["authority"]
    again = machines.install()
    assert again.code == 0 and "hospital-a" in again.out
    (row,) = machines.masque("pki", "status", machines.host, "--json").json["certificates"]
    assert row["state"] == "good" and row["fingerprint"] == asked["fingerprint"]


def test_a_person_types_what_was_read_out(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = machines.request("--json").json["fingerprint"]
    heard = iter(["yes", " ".join(told.split()[:4]), " ".join(told.upper().split()[:5])])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "prompt", lambda *_, **__: next(heard))
    for _ in range(2):
        answer = machines.approve()
        assert answer.code == 6 and "That is not the fingerprint" in answer.err
    answer = machines.approve()
    assert answer.code == 0
    assert "masque://demo/party/hospital-a asks, met at a.example.org" in answer.err
    assert f"fingerprint: {machines.fingerprint()}" in answer.out


def test_renewal_rotation_and_revocation(machines: Machines) -> None:
    def again(*more: object) -> None:
        told = machines.request("--renew", "--json").json["fingerprint"]
        assert machines.approve("--fingerprint", told, *more).code == 0
        trusted = ("--authority-fingerprint", machines.fingerprint())
        assert machines.install(*trusted).code == 0

    masque, authority = machines.masque, ("--authority", machines.authority)
    assert machines.request().code == 0
    again()
    answer = machines.request()
    assert answer.code == 8 and "--renew" in answer.err
    told = machines.request("--renew", "--json").json["fingerprint"]
    assert machines.approve("--fingerprint", told).code == 8, "a second key must be meant"
    again("--renew")
    assert masque("pki", "retire", *authority).code == 9
    assert masque("pki", "rotate", *authority, "--json").json["authorities"] == 2
    assert masque("pki", "rotate", *authority).code == 8
    answer = masque("pki", "retire", *authority)
    assert answer.code == 8 and "hospital-a.party would be refused" in answer.error
    again("--renew")
    assert masque("pki", "retire", *authority).code == 0
    answer = masque("pki", "revoke", STEM, *authority, "--reason", "boredom")
    assert answer.code == 3 and "is no reason" in answer.error
    answer = masque("pki", "revoke", STEM, *authority)
    assert answer.code == 0 and answer.out.count("is revoked") == 3
    listed = masque("pki", "status", *authority, "--json").json
    assert {row["state"] for row in listed["certificates"]} == {"revoked"}
    assert listed["revoked"] == 3
    assert masque("pki", "revoke", STEM, *authority).code == 9
    answer = machines.install()
    assert answer.code == 0, "the old files say nothing of it"
    machines.reply.joinpath("authority.crl").write_bytes(
        (machines.authority / "authority.crl").read_bytes()
    )
    answer = machines.install()
    assert answer.code == 6 and "was revoked" in answer.error


def test_what_is_misused(machines: Machines, tmp_path: Path) -> None:
    masque = machines.masque
    for arguments, code, why in (
        (("status",), 3, "Name one of the two"),
        (("status", tmp_path / "nowhere"), 9, "no authority's certificate at"),
        (("revoke", STEM), 3, "Give --authority D"),
        (("revoke", "--lists", tmp_path / "none.crl"), 9, "no revocation list at"),
        (("request", "party", "x", "--out", tmp_path / "x"), 3, "Which project"),
        (("request", "party", "X", "--project", "demo", "--out", tmp_path), 6, "cannot be a name"),
        (
            ("request", "party", "x", "--project", "demo", "--host", "*.x.org", "--out", tmp_path),
            6,
            "cannot be a host",
        ),
    ):
        answer = masque("pki", *arguments)
        assert (answer.code, why in answer.err) == (code, True), (arguments, answer.err)
