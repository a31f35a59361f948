"""Conditions and approval from the command line, with real services: an owner, an analyst, an
officer whose yes the owner asks for.
"""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from masque.wire.authority import open_authority
from masque.wire.identity import Identity, Role
from tests.client.shell import Answer, Shell, share

RULES = """\
purpose: a study of small things
expires: 2999-12-31
clients: [analyst]
models: [logistic_regression]
outputs: [sealed]
approval: {by: [officer]}
"""


@pytest.fixture
def officer(home: Path) -> Path:
    """The profile of somebody else."""
    certificates = home / "officer"
    if not certificates.exists():
        content = yaml.safe_load((home / "profile.yaml").read_text())
        identity = Identity(content["project"], Role.CLIENT, "officer")
        open_authority(home / "authority").issue(identity, certificates)
        content |= {"name": "officer", "tls": {"directory": "officer"}}
        (home / "officer.yaml").write_text(yaml.safe_dump(content))
    return home / "officer.yaml"


@pytest.fixture
def conditioned(masque: Shell, files: Path, profile: Path, tmp_path: Path) -> Path:
    """`left` has conditions, `right` has none."""
    rules = tmp_path / "conditions.yaml"
    rules.write_text(RULES)
    assert share(masque, files, "left", "--replace", "--conditions", str(rules)).code == 0
    assert share(masque, files, "right", "--replace").code == 0
    return rules


@pytest.fixture(autouse=True)
def gone(masque: Shell, home: Path) -> Any:
    """Other tests find no conditions."""
    yield
    masque("delete", "left", "--profile", home / "profile.yaml")


def submitted(masque: Shell, files: Path, job_id: str, *more: str) -> Answer:
    return masque("train", files / "job.yaml", "--id", job_id, *more)


def approved(masque: Shell, officer: Path, job_id: str) -> Answer:
    """By somebody who has read it."""
    digest = masque("approve", job_id, "--json", "--profile", officer).json["digest"]
    return masque("approve", job_id, "--yes", "--digest", digest, "--profile", officer)


def waits(masque: Shell, job_id: str, text: str) -> None:
    """Until `masque jobs` says so."""
    until = time.monotonic() + 60
    while True:
        (view,) = (job for job in masque("jobs", "--json").json["jobs"] if job["job_id"] == job_id)
        if text in view["progress"]["reason"]:
            assert view["state"] == "submitted"
            return
        assert time.monotonic() < until, view
        time.sleep(0.1)


def test_a_job_that_waits_for_a_yes_and_runs_once_it_is_said(
    masque: Shell,
    files: Path,
    conditioned: Path,
    officer: Path,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = {d["name"]: d["conditions"] for d in masque("datasets", "--json").json["datasets"]}
    assert listed["left"] == yaml.safe_load(RULES) | {"expires": "2999-12-31"}
    assert listed["right"] is None
    told = masque("datasets").out
    assert "conditions of analyst for left: clients: analyst; models: logistic_regression" in told
    assert "approval: by officer; purpose: a study of small things; expires: 2999-12-31" in told

    assert submitted(masque, files, "asks").code == 0
    waits(masque, "asks", "waits for a yes of officer at party-1, and of officer at party-2")
    assert "waits for a yes of officer" in masque("jobs").out
    assert masque("approve").out == "No job waits for your yes.\n"
    stranger = masque("approve", "asks", "--yes", "--digest", "0" * 32)
    assert (stranger.code, stranger.error) == (
        9,
        "No job 'asks' waits for your yes at any party.",
    )

    ours = ("--profile", officer)
    (found,) = masque("approve", "--json", *ours).json["jobs"]
    assert found["waits_for"] == {"party-1": ["officer"], "party-2": ["officer"]}
    assert found["output_to"] == ["analyst"] and found["opened_bits"] == 0 < found["bits"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    shown = masque("approve", "asks", *ours)
    assert shown.code == 0
    told = f"Job asks, submitted by analyst\n  digest {found['digest']}\n"
    assert f"{told}  reads left of analyst: 60 rows\n" in shown.out
    assert told in masque("approve", *ours).out
    assert "    on conditions: clients: analyst" in shown.out
    assert "its model is sealed to analyst" in shown.out
    assert "party-2 waits for a yes of officer" in shown.out
    assert "Nothing was said. To refuse it: masque approve asks --deny" in shown.err
    assert masque("approve", "asks", "--json", *ours).json == found, "nothing was said"
    assert masque("approve", "--yes", *ours).code == 3
    assert masque("approve", "asks", "--yes", "--deny", *ours).code == 3

    assert found["subject"].startswith(found["digest"]) and len(found["digest"]) == 32
    blind = masque("approve", "asks", "--yes", *ours)
    assert (blind.code, blind.error) == (
        3,
        "Your yes would be for whatever has the id asks by now.",
    )
    assert "give its digest: masque approve asks --yes --digest DIGITS" in blind.err
    for short in (found["digest"][:7], "x" * 12, found["digest"] + "0" * 33):
        assert (
            "no digest of a job" in masque("approve", "asks", "--yes", "--digest", short, *ours).err
        )
    wrong = f"{int(found['digest'][:8], 16) ^ 1:08x}"
    for word in ("--yes", "--deny"):
        other = masque("approve", "asks", word, "--digest", wrong, *ours)
        assert other.code == 4
        assert other.error == f"Job asks is another now than the one with the digest {wrong}."
        assert "Nothing was said. Look at it again: masque approve asks" in other.err
    assert masque("approve", "asks", "--json", *ours).json == found, "nothing was said"
    said = masque(
        "approve",
        "asks",
        "--yes",
        "--digest",
        found["digest"][:8].upper(),
        "--reason",
        "as agreed",
        *ours,
    )
    assert said.out.endswith("\nasks: approved at party-1, party-2\n")
    watched = masque("watch", "asks")
    assert watched.code == 0 and "waits for a yes of officer" in watched.out
    late = masque("approve", "asks", "--deny", *ours)
    assert late.code == 9, "it has begun, and asks nobody any more"

    assert masque("result", "asks", "--out", tmp_path / "model.json").code == 0
    receipt = tmp_path / "asks.receipt.json"
    authority = ("--authority", home / "authority" / "authority.pem")
    verified = masque("receipt", "verify", receipt, *authority)
    assert "conditions of analyst for left: clients: analyst" in verified.out
    told = masque("receipt", "verify", receipt, *authority, "--json").json["conditions"]
    assert told == {"left": {"owner": "analyst", **listed["left"]}}
    ledger = home / "party-1" / "data" / "ledger.jsonl"
    shown = masque("ledger", "show", ledger, "--job", "asks")
    assert "by officer: as agreed" in shown.out
    assert "on left, right for analyst" in shown.out


def test_what_a_receipt_says_of_conditions_is_what_their_owner_has_signed(
    masque: Shell, files: Path, conditioned: Path, officer: Path, tmp_path: Path, home: Path
) -> None:
    assert submitted(masque, files, "signed").code == 0
    waits(masque, "signed", "officer")
    assert approved(masque, officer, "signed").code == 0
    assert masque("watch", "signed").code == 0
    assert masque("result", "signed", "--out", tmp_path / "m.json").code == 0
    path = tmp_path / "signed.receipt.json"
    content = json.loads(path.read_text())
    table = content["bound_job"]["tables"][0]
    table["conditions"] = table["conditions"].replace("small things", "large things")
    path.write_text(json.dumps(content))
    authority = home / "authority" / "authority.pem"
    answer = masque("receipt", "verify", path, "--authority", authority)
    assert answer.code == 6
    assert "The conditions for the data set 'left' does not carry a true signature" in answer.err


def test_a_no_ends_the_job_and_names_who_said_it_and_where(
    masque: Shell, files: Path, conditioned: Path, officer: Path
) -> None:
    assert submitted(masque, files, "denied").code == 0
    waits(masque, "denied", "officer")
    answer = masque(
        "approve", "denied", "--deny", "--reason", "no vote.", "--profile", officer, "--json"
    )
    assert (answer.json["yes"], list(answer.json["waits_for"])) == (False, ["party-1", "party-2"])
    answer = masque("watch", "denied")
    assert answer.code == 7
    assert "party-1 refuses job denied: 'officer' has said no: no vote" in answer.err
    assert no_longer_listed(masque, officer, "denied")


def test_a_yes_is_taken_back_and_a_job_that_waits_is_cancelled(
    masque: Shell, files: Path, conditioned: Path, officer: Path
) -> None:
    """One waits for a second person and is cancelled; of the other, the last word counts."""
    rules = conditioned.with_name("both.yaml")
    rules.write_text("approval: {by: [officer]}")
    assert share(masque, files, "right", "--replace", "--conditions", str(rules)).code == 0
    conditioned.write_text(RULES.replace("officer", "analyst"))
    assert share(masque, files, "left", "--replace", "--conditions", str(conditioned)).code == 0
    try:
        assert submitted(masque, files, "both").code == 0
        waits(masque, "both", "waits for a yes of analyst or officer at party-1")
        said = approved(masque, officer, "both")
        assert said.out.endswith("; it still waits for analyst\n")
        waits(masque, "both", "waits for a yes of analyst at party-1")
        (found,) = masque("approve", "--json", "--profile", officer).json["jobs"]
        assert found["said"] == ["yes by officer at party-1", "yes by officer at party-2"]
        assert masque("cancel", "both").code == 0
        assert no_longer_listed(masque, officer, "both")
        assert submitted(masque, files, "again").code == 0
        waits(masque, "again", "analyst or officer")
        assert approved(masque, officer, "again").code == 0
        assert masque("approve", "again", "--deny", "--profile", officer).code == 0
        assert masque("watch", "again").code == 7, "the last word counts"
    finally:
        masque("delete", "right")


def no_longer_listed(masque: Shell, officer: Path, job_id: str) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = masque("approve", "--json", "--profile", officer).json["jobs"]
        if all(job["job"] != job_id for job in found):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("clients: [somebody]", "do not allow 'analyst' (clients)."),
        ("metrics: [auc]", "do not allow 'accuracy' (metrics)."),
        ("recipients: []", "do not allow 'analyst' (recipients)."),
        ("maximum_epsilon: 1", "do not allow a job without privacy (maximum_epsilon)."),
        ("maximum_dataset_bits: 8", "of earlier jobs (maximum_dataset_bits)."),
        ("expires: 2001-01-01", "do not allow any job any more (expires)."),
    ],
)
def test_a_job_against_conditions_is_refused_at_once(
    masque: Shell, files: Path, conditioned: Path, rule: str, text: str
) -> None:
    conditioned.write_text(rule)
    assert masque("delete", "left").code == 0
    assert share(masque, files, "left", "--conditions", str(conditioned)).code == 0
    answer = submitted(masque, files, "against")
    assert answer.code == 4
    assert "refuses job against: the conditions of 'analyst' for the data set 'left' " in answer.err
    assert text in answer.err and "hint: Allowed: " in answer.err
    assert all(job["job_id"] != "against" for job in masque("jobs", "--json").json["jobs"])


def test_an_expired_data_set_says_so(masque: Shell, files: Path, conditioned: Path) -> None:
    conditioned.write_text("expires: 2001-01-01")
    assert share(masque, files, "left", "--replace", "--conditions", str(conditioned)).code == 0
    (left,) = (d for d in masque("datasets", "--json").json["datasets"] if d["name"] == "left")
    assert left["problem"] == "'left' was for use until 2001-01-01"
    assert "'left' was for use until 2001-01-01" in masque("datasets").out


def test_conditions_are_not_lost_by_accident(masque: Shell, files: Path, conditioned: Path) -> None:
    answer = share(masque, files, "left", "--replace")
    assert answer.code == 8
    assert answer.error == (
        "The data set 'left' has conditions at party 'party-1', and would lose them."
    )
    conditioned.write_text("expire: 2999-01-01")
    answer = share(masque, files, "left", "--replace", "--conditions", str(conditioned))
    assert answer.code == 4
    assert "expire is not a known key. Did you mean 'expires'?" in answer.err
