"""What the command line says to bad input: file, row, column, field or service, and what to do."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from masque.client import local
from masque.wire.authority import create_authority, open_authority
from masque.wire.identity import Identity, Role
from tests.client.networks import SCHEMA, job_text
from tests.client.shell import Shell

# -- bad input -----------------------------------------------------------------------------------

BAD_FILES = {
    "missing": (None, "missing.csv: there is no such file: "),
    "empty": ("", "empty.csv: is empty."),
    "header": ("x,z,y\n", "header.csv: "),
    "unknown": ("x,q,y\n1,2,yes\n", "unknown.csv"),
    "twice": ("x,x,z,y\n1,1,2,yes\n", "twice.csv"),
    "text": ("x,z,y\n1,2,yes\ntall,2,no\n", "row 2"),
    "nan": ("x,z,y\n1,2,yes\nNaN,2,no\n", "row 2"),
    "infinity": ("x,z,y\n1,inf,yes\n", "row 1"),
    "beyond": ("x,z,y\n11,2,yes\n", "row 1"),
    "label": ("x,z,y\n1,2,maybe\n", "maybe"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_and_nothing_is_shared(
    masque: Shell, files: Path, profile: Path, tmp_path: Path, case: str
) -> None:
    content, said = BAD_FILES[case]
    path = tmp_path / f"{case}.csv"
    if content is not None:
        path.write_text(content)
    answer = masque("share", path, "--schema", files / "schema.yaml", "--name", f"bad-{case}")
    assert answer.code == 3
    assert said in answer.err
    assert f"{case}.csv" in answer.error
    assert "hint: " in answer.err
    assert answer.out == ""
    names = [d["name"] for d in masque("datasets", "--json").json["datasets"]]
    assert f"bad-{case}" not in names


def test_a_bad_name_or_schema(masque: Shell, files: Path, profile: Path, tmp_path: Path) -> None:
    left, schema = files / "left.csv", files / "schema.yaml"
    answer = masque("share", left, "--schema", schema, "--name", "a b")
    assert (answer.code, answer.error) == (4, "'a b' cannot be the name of a data set.")
    answer = masque("share", left, "--schema", tmp_path / "no.yaml", "--name", "a")
    assert answer.code == 3
    assert "no.yaml" in answer.error


BAD_JOBS = {
    "learnign_rate": ("learning_rate", "learnign_rate", "Did you mean 'learning_rate'?"),
    "logistic": ("logistic_regression", "logistic_regresion", "Did you mean 'logistic_regression'"),
    "metric": ("accuracy", "acuracy", "Did you mean 'accuracy'?"),
    "optimiser": ("kind: sgd", "kind: adam", "optimizer.kind"),
    "section": ("training:", "trainig:", "Did you mean 'training'?"),
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_bad_job_is_refused_with_a_suggestion(
    masque: Shell, profile: Path, tmp_path: Path, case: str
) -> None:
    good, bad, said = BAD_JOBS[case]
    path = tmp_path / "job.yaml"
    path.write_text(job_text().replace(good, bad))
    for command in ("train", "plan"):
        answer = masque(command, path)
        assert answer.code == 4
        assert "job.yaml" in answer.error
        assert said in answer.err
    assert masque("train", tmp_path / "none.yaml").error.endswith(
        "none.yaml cannot be read: No such file or directory."
    )


def test_tables_that_do_not_fit(
    masque: Shell, files: Path, profile: Path, shared: None, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(SCHEMA.replace("[0, 5]", "[0, 6]"))
    masque("share", files / "right.csv", "--schema", other, "--name", "right", "--replace")
    answer = masque("train", files / "job.yaml")
    assert answer.code == 4
    assert "data.rows[1] does not fit on 'left': column 'z' has" in answer.err
    few = masque("plan", files / "job.yaml", "--offline", f"--table=left={other}:3")
    assert few.code == 4
    answer = masque("plan", files / "job.yaml", "--offline", "--table", "left:3")
    assert (answer.code, answer.error) == (3, "'left:3' does not describe a data set.")


def test_recipients_without_a_key(masque: Shell, profile: Path, shared: None, files: Path) -> None:
    path = files / "stranger.yaml"
    path.write_text(job_text().replace("analyst", "stranger"))
    answer = masque("train", path)
    assert answer.code == 9
    assert answer.error.startswith("There is no public key of the recipient 'stranger' in ")
    assert "hint: Put stranger.recipient.pub there" in answer.err


def test_results_that_cannot_be_written(masque: Shell, files: Path, shared: None) -> None:
    masque("train", files / "job.yaml", "--watch", "--id", "written")
    answer = masque("result", "written", "--out", "model.bin")
    assert (answer.code, answer.error) == (
        3,
        "The name 'model.bin' does not say which format to write.",
    )
    answer = masque("result", "written", "--out", "/no/such/model.json")
    assert answer.code == 3
    assert answer.error == "/no/such/model.json cannot be written: No such file or directory."


# -- profiles and certificates -------------------------------------------------------------------


def test_profiles_that_cannot_be_used(masque: Shell, home: Path, tmp_path: Path) -> None:
    answer = masque("jobs")
    assert (answer.code, answer.error) == (9, "No profile is named.")
    answer = masque("jobs", "--profile", tmp_path / "none.yaml")
    assert (answer.code, answer.error) == (9, f"There is no profile at {tmp_path / 'none.yaml'}.")
    path = tmp_path / "profile.yaml"
    path.write_text((home / "profile.yaml").read_text().replace("coordinator:", "cordinator:"))
    answer = masque("jobs", "--profile", path)
    assert answer.code == 4
    assert "cordinator" in answer.error
    assert "Did you mean 'coordinator'?" in answer.err


def changed(home: Path, target: Path, **changes: Any) -> Path:
    """The network's profile with other values, its paths absolute."""
    content = yaml.safe_load((home / "profile.yaml").read_text())
    content["tls"]["directory"] = str(home / "client" / "certificates")
    content["recipients"] = str(home / "client" / "recipients")
    path = target / "profile.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def test_services_that_are_down(masque: Shell, home: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    path = changed(home, tmp_path, coordinator={"name": "coordinator", "address": address})
    answer = masque("jobs", "--profile", path)
    assert answer.code == 5
    assert answer.error == (
        f"Coordinator 'coordinator' at {address} does not answer: nothing listens there."
    )


def test_a_service_in_the_place_of_another(masque: Shell, home: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((home / "profile.yaml").read_text())
    address = content["parties"][0]["address"]
    path = changed(home, tmp_path, coordinator={"name": "coordinator", "address": address})
    answer = masque("jobs", "--profile", path)
    assert answer.code == 6
    assert answer.error == (
        f"Party 'party-1' answers at {address}, where coordinator 'coordinator' was expected."
    )


def test_certificates_that_are_not_accepted(masque: Shell, home: Path, tmp_path: Path) -> None:
    authority = open_authority(home / "authority")
    client = Identity(local.PROJECT, Role.CLIENT, local.ANALYST)
    old = dt.datetime.now(dt.UTC) - dt.timedelta(days=30)
    authority.issue(client, tmp_path / "old", now=old, lifetime=dt.timedelta(days=7))
    path = changed(home, tmp_path, tls={"directory": str(tmp_path / "old")})
    answer = masque("jobs", "--profile", path)
    assert answer.code == 6
    assert answer.error.startswith("The certificate of client 'analyst' expired at ")

    foreign = create_authority(tmp_path / "foreign", local.PROJECT)
    foreign.issue(client, tmp_path / "theirs")
    path = changed(home, tmp_path, tls={"directory": str(tmp_path / "theirs")})
    answer = masque("jobs", "--profile", path)
    assert answer.code == 6
    assert "authority" in answer.error

    shutil.copytree(home / "party-1" / "certificates", tmp_path / "party")
    files = {
        "certificate": str(tmp_path / "party" / "party-1.party.pem"),
        "key": str(tmp_path / "party" / "party-1.party.key"),
        "authority": str(tmp_path / "party" / "authority.pem"),
    }
    path = changed(home, tmp_path, tls=files)
    answer = masque("jobs", "--profile", path)
    assert answer.code == 6
    assert answer.error == (
        "party 'party-1' may not call /masque.v1.Coordinator/List: it serves the role client."
    )
