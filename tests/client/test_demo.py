"""The demo, as its user runs it: real processes, interrupted and killed as well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from masque.client import datasets
from masque.client.profile import load
from masque.client.services import Services

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "masque.client.app", "demo"]


def services_below(directory: Path) -> list[psutil.Process]:
    """Services whose files are in `directory`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any("services." in word for word in words) and any(
            str(directory) in word for word in words
        ):
            found.append(process)
    return found


@pytest.mark.slow
def test_the_demo_reports_everything_as_one_json_object(tmp_path: Path) -> None:
    command = [*COMMAND, "--json", "--keep", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["parties"] == 2
    masque, clear = report["held_out"]["masque"], report["held_out"]["scikit_learn"]
    assert masque["accuracy"] > 0.93
    assert abs(masque["accuracy"] - clear["accuracy"]) < 0.03
    assert abs(masque["auc"] - clear["auc"]) < 0.02
    assert set(report["revealed"]) == {"accuracy", "auc"}
    assert report["rounds"] > 100
    assert {"dealer", "party-1", "party-2", "coordinator"} == set(report["bytes_sent"])
    assert all(count > 0 for count in report["bytes_sent"].values())
    steps = ("start", "share", "prepare", "train", "evaluate", "result")
    assert all(report["seconds"][step] >= 0 for step in steps)
    seen = report["seen"]
    assert seen["dealer"]["received_data"] == 0
    assert seen["dealer"]["seeds"] == 2
    assert seen["coordinator"]["shares"] == seen["coordinator"]["openings"] == 0
    assert seen["coordinator"]["sealed_bytes"] > 0
    for party in ("party-1", "party-2"):
        assert seen["parties"][party]["received"] == seen["parties"]["party-1"]["sent"]
        assert seen["parties"][party]["declared_openings"] == 0
    assert services_below(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(("data", "parties"), [("diabetes", 3), ("digits", 2)])
def test_other_data_and_three_parties(data: str, parties: int) -> None:
    command = [*COMMAND, "--json", "--data", data, "--parties", str(parties)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["parties"] == parties
    masque, clear = report["held_out"]["masque"], report["held_out"]["scikit_learn"]
    assert masque.keys() == clear.keys()
    for name, value in masque.items():
        assert value > clear[name] - 0.04, name


@pytest.mark.slow
def test_the_demo_uses_services_that_run_already(home: Path) -> None:
    command = [*COMMAND, "--json", "--data", "iris", "--profile", str(home / "profile.yaml")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["held_out"]["masque"]["accuracy"] > 0.85
    with Services(load(home / "profile.yaml")) as services:
        names = [view.name for view in datasets.datasets(services.parties)]
    assert not [name for name in names if name.startswith("hospital-a-") and len(name) == 17]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_no_service_outlives_the_demo(tmp_path: Path, how: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [*COMMAND, "--keep", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "training" in line:
                break
        assert len(services_below(tmp_path)) == 4
        os.kill(demo.pid, how)
        rest = demo.stdout.read() if how != signal.SIGKILL else ""
        assert demo.wait(30) == code
        assert "Traceback" not in rest
    until = time.monotonic() + 15
    while services_below(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    assert services_below(tmp_path) == []


def test_a_demo_that_cannot_be() -> None:
    command = [*COMMAND, "--data", "breast-cancr", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 9
    error = json.loads(ran.stdout)["error"]
    assert error["message"] == "there is no bundled data set 'breast-cancr'."
    assert ran.stderr.startswith("error: there is no bundled data set 'breast-cancr'.\nhint: ")
