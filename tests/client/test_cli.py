"""The command line against real services: every command, its JSON, its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from masque.client import local, processes
from masque.client.app import app
from tests.client.networks import job_text
from tests.client.shell import Shell, share

# -- the way through -----------------------------------------------------------------------------


def test_from_a_file_to_a_model(masque: Shell, files: Path, profile: Path, tmp_path: Path) -> None:
    answer = share(masque, files, "left", "--replace", "--json")
    assert answer.code == 0
    assert answer.json["rows"] == 60
    assert answer.json["columns"] == 3
    assert answer.json["bytes_sent"] == 60 * 3 * 8 * 2
    assert answer.json["parties"] == ["party-1", "party-2"]
    answer = share(masque, files, "right", "--replace")
    assert answer.out == (
        "right: 60 rows, 3 columns; 1.4 kB of random numbers to each of party-1, party-2\n"
    )
    listed = masque("datasets", "--json").json["datasets"]
    found = {d["name"]: (d["owner"], d["problem"]) for d in listed}
    assert found["left"] == found["right"] == ("analyst", "")
    assert "left" in masque("datasets").out

    answer = masque("train", files / "job.yaml", "--watch")
    assert answer.code == 0
    job_id, *lines = answer.out.splitlines()
    assert re.fullmatch("small-[0-9a-f]{12}", job_id)
    assert lines[0] == "  submitted"
    assert lines[-1].startswith("  succeeded, ")

    listed = masque("jobs", "--json").json["jobs"]
    assert [(j["state"], j["client"]) for j in listed if j["job_id"] == job_id] == [
        ("succeeded", "analyst")
    ]
    assert job_id in masque("jobs").out
    events = [json.loads(line) for line in masque("watch", job_id, "--json").out.splitlines()]
    assert events[-1]["ended"]
    assert events[-1]["state"] == "succeeded"

    for suffix in ("npz", "onnx", "json", "safetensors"):
        out = tmp_path / f"model.{suffix}"
        answer = masque("result", job_id, "--out", out)
        assert answer.code == 0, answer.err
        assert f"model: {out} ({suffix})" in answer.out
        assert re.search(r"accuracy: (0|1)\.\d+", answer.out)
    content = masque("result", job_id, "--json").json
    assert content["model"]["features"] == ["x", "z"]
    assert content["model"]["classes"] == ["no", "yes"]
    assert 0.5 < content["metrics"]["accuracy"] <= 1
    with np.load(tmp_path / "model.npz") as arrays:
        assert arrays["coefficients"].tolist() == content["model"]["coefficients"]
    assert json.loads((tmp_path / "model.json").read_text())["job"] == job_id


def test_what_a_job_costs(masque: Shell, files: Path, shared: None) -> None:
    answer = masque("plan", files / "job.yaml", "--json")
    assert answer.code == 0
    total = answer.json["total"]
    assert total["rounds"] > 0
    assert total["sent_by_a_party"] > 0
    assert len(total["corrections"]) == 2
    assert total["seconds"] > 0
    tables = [f"--table={name}={files / 'schema.yaml'}:60" for name in ("left", "right")]
    offline = masque("plan", files / "job.yaml", "--offline", "--json", *tables)
    assert offline.json["total"] == total
    three = masque("plan", files / "job.yaml", "--offline", "--parties", 3, "--json", *tables)
    assert three.json["total"]["sent_by_a_party"] == 2 * total["sent_by_a_party"]
    text = masque("plan", files / "job.yaml").out
    assert "the time is an estimate" in text
    assert "epoch 1" in text
    masque("train", files / "job.yaml", "--watch", "--id", "planned")
    ran = next(j for j in masque("jobs", "--json").json["jobs"] if j["job_id"] == "planned")
    assert ran["progress"]["exchanges"] == total["rounds"], "the plan is exact"
    assert ran["progress"]["bytes_sent"] == 2 * total["sent_by_a_party"]


def test_a_name_that_exists(masque: Shell, files: Path, shared: None) -> None:
    answer = share(masque, files, "left")
    assert answer.code == 8
    assert answer.error == "The data set 'left' exists already at party 'party-1'."
    assert "hint: Choose another name, or replace it with --replace." in answer.err


def test_deleting(masque: Shell, files: Path, shared: None) -> None:
    assert masque("delete", "right").out == "right: removed from party-1, party-2\n"
    answer = masque("delete", "rigt")
    assert answer.code == 9
    assert answer.error == "There is no data set 'rigt' at any party."
    answer = masque("train", files / "job.yaml")
    assert answer.code == 4
    assert "data.rows[1] 'right' is not a shared data set" in answer.err


def test_submitting_cancelling_and_too_late(masque: Shell, files: Path, shared: None) -> None:
    job = files / "job.yaml"
    first = masque("train", job, "--id", "twice", "--json")
    assert first.json == {"job": "twice"}
    assert masque("train", job, "--id", "twice").out == "twice\n"
    other = files / "other.yaml"
    other.write_text(job_text(3))
    answer = masque("train", other, "--id", "twice")
    assert answer.code == 8
    assert answer.error == "There are two specs for one job id, twice."
    long = files / "long.yaml"
    long.write_text(job_text(500))
    assert masque("train", long, "--id", "long").code == 0
    answer = masque("cancel", "long", "--json")
    assert answer.json == {"job": "long", "state": "cancelled"}
    answer = masque("cancel", "long")
    assert (answer.code, answer.error) == (
        8,
        "job long cannot be cancelled: it is cancelled.",
    )
    answer = masque("watch", "long")
    assert (answer.code, answer.error) == (7, "Job long was cancelled by analyst.")
    answer = masque("result", "long", "--json")
    assert answer.code == 7
    assert answer.json["error"]["exit_code"] == 7
    assert answer.json["error"]["kind"] == "JobFailed"
    answer = masque("watch", "nothing")
    assert (answer.code, answer.error) == (
        9,
        "There is no job 'nothing' at this coordinator.",
    )


# -- local ---------------------------------------------------------------------------------------


def test_up_twice_and_status(masque: Shell, home: Path) -> None:
    answer = masque("local", "up", "--dir", home)
    assert answer.code == 8
    assert answer.error == (
        f"The local network in {home} is up already (dealer, party-1, party-2, coordinator)."
    )
    answer = masque("local", "status", "--dir", home)
    assert answer.code == 0
    assert answer.out.count("serving") == 4


def test_status_tells_the_truth(masque: Shell, home: Path) -> None:
    network = local.find(home)
    place = network.places[2]
    pid = processes.pid_of(place)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = masque("local", "status", "--dir", home, "--json")
        states = {s["name"]: s["state"] for s in answer.json["services"]}
        assert answer.code == 5
        assert states["party-2"] == "unreachable"
        assert states["party-1"] == "serving"
    finally:
        os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while processes.pid_of(place) is not None and time.monotonic() < until:
        time.sleep(0.05)
    answer = masque("local", "status", "--dir", home)
    assert answer.code == 5
    assert re.search(r"party +party-2 .* stopped", answer.out)
    processes.wait_until_ready([place], [processes.start(place, bound_to_us=True)])
    assert masque("local", "status", "--dir", home).code == 0


def test_local_networks_that_cannot_be(masque: Shell, home: Path, tmp_path: Path) -> None:
    answer = masque("local", "status", "--dir", tmp_path)
    assert (answer.code, answer.error) == (9, f"There is no local network in {tmp_path}.")
    answer = masque("local", "up", "--dir", tmp_path / "one", "--parties", 1)
    assert (answer.code, answer.error) == (3, "1 parties cannot compute.")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = masque("local", "up", "--dir", tmp_path / "two", "--port", port - 1)
    if answer.code == 8:  # the port before it might be taken as well
        assert re.match(
            r"Port \d+, meant for (party 'party-1'|dealer 'dealer'), is in use by another program",
            answer.error,
        )
        assert not (tmp_path / "two" / "profile.yaml").exists()
    assert answer.code in (3, 8)


# -- the rest ------------------------------------------------------------------------------------


def test_usage_help_and_version(masque: Shell) -> None:
    assert masque("--help").code == 0
    assert masque("trian").code == 2
    assert masque("train").code == 2
    assert masque("version").out == masque("--version").out
    assert "version" in masque("version", "--json").json


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words."""
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, *words, name)
        else:
            yield (*words, name), found


def test_every_command_explains_itself_with_an_example(masque: Shell) -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert len(found) > 30 and ("party", "rotate-key") in found
    for words, command in found.items():
        answer = masque(*words, "--help")
        assert answer.code == 0
        assert "Example: masque" in answer.out, words
        assert "--json" in answer.out, words
        assert all(option.help for option in command.params), words


def test_help_is_quick() -> None:
    code = "import sys; from masque.client.app import app; print('numpy' in sys.modules,"
    code += " 'grpc' in sys.modules, 'pydantic' in sys.modules, 'rich.console' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"] * 4, "imported before a command needs it"


def test_tracebacks_only_on_request(masque: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in masque("jobs").err
    monkeypatch.setenv("MASQUE_DEBUG", "1")
    assert "Traceback" in masque("jobs").err


def test_certificates_by_hand(masque: Shell, tmp_path: Path) -> None:
    authority, out = tmp_path / "authority", tmp_path / "out"
    answer = masque("pki", "init", "--dir", authority, "--project", "demo")
    assert answer.code == 0
    assert answer.out.startswith(f"{authority}: authority of demo, valid to ")
    answer = masque("pki", "init", "--dir", authority, "--project", "demo")
    assert answer.code == 8
    options = ("--authority", authority, "--out", out)
    answer = masque("pki", "issue", "client", "analyst", *options, "--json")
    assert answer.json["identity"] == "masque://demo/client/analyst"
    assert 88 <= answer.json["days_left"] <= 90
    answer = masque("pki", "issue", "clint", "analyst", *options)
    assert (answer.code, answer.error) == (6, "'clint' is not a role.")
    answer = masque("pki", "inspect", out / "analyst.client.pem")
    assert "identity: masque://demo/client/analyst" in answer.out
    answer = masque("pki", "recipient", "--certificates", out, "--out", tmp_path / "keys")
    assert answer.code == 0
    key = tmp_path / "keys" / "analyst.recipient.key"
    assert key.stat().st_mode & 0o077 == 0
    answer = masque("pki", "inspect", tmp_path / "nothing.pem")
    assert answer.code == 9


def test_a_schema_drafted(masque: Shell, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "drafted.yaml"
    answer = masque("schema", "draft", files / "left.csv", "--label", "y", "--out", out)
    assert answer.code == 0
    assert "REVIEW EVERY LINE" in out.read_text()
    answer = masque("schema", "draft", files / "left.csv", "--out", out)
    assert (answer.code, answer.error) == (8, f"{out} exists already.")
    answer = masque("schema", "draft", files / "left.csv", "--label", "w")
    assert answer.code == 3
