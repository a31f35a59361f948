"""`masque calibrate`: the fit finds what was planted, and real services are measured."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.client import machine
from masque.client.calibration import calibration
from masque.client.fitting import fitted
from masque.client.machine import BUILT_IN, UNITS, Calibration, Machine, Sample
from masque.errors import InputError
from masque.mpc.cost import RoundCost
from tests.client.shell import Shell
from tests.client.test_cli_bad_input import changed

EXPECTED = np.array(list(BUILT_IN.values()))
TYPICAL = np.array([1, 30, 900, 1e8, 2e8, 4e8, 2e9, 9000, 7e7])
"""Units in an epoch of a network."""


def epochs(random: np.random.Generator, count: int) -> Any:
    """Epochs that differ in all that they take by up to thirty times."""
    return TYPICAL * np.exp(random.uniform(-3.4, 0, (count, TYPICAL.size)))


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(-1.5, 1.5), min_size=len(UNITS), max_size=len(UNITS)),
)
def test_planted_coefficients_are_found(seed: int, logs: list[float]) -> None:
    counts, planted = epochs(np.random.default_rng(seed), 40), EXPECTED * np.exp(logs)
    found = fitted(counts, counts @ planted, EXPECTED, ridge=1e-9)
    assert np.abs(counts @ found / (counts @ planted) - 1).max() < 1e-3
    share = counts * planted / (counts @ planted)[:, None]
    told = share.max(axis=0) > 0.05  # of the others too little time comes
    assert np.abs(found / planted - 1)[told].max(initial=0) < 0.05


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20))
def test_few_noisy_jobs_give_times_that_are_near(seed: int, speed: float) -> None:
    random = np.random.default_rng(seed)
    counts = epochs(random, 8)
    seconds = counts @ (speed * EXPECTED) * random.uniform(0.9, 1.1, 8)
    found = fitted(counts, seconds, EXPECTED)
    assert (found >= 0).all()
    others = epochs(random, 50)
    errors = np.abs(others @ found / (others @ (speed * EXPECTED)) - 1)
    assert np.quantile(errors, 0.9) < 0.3
    assert np.median(errors) < 0.2


def test_units_that_do_not_occur_keep_their_proportion() -> None:
    counts = epochs(np.random.default_rng(1), 20)
    counts[:, -1] = 0
    found = fitted(counts, counts @ EXPECTED * 3, EXPECTED)
    assert found[-1] == pytest.approx(3 * EXPECTED[-1])


def part(**counts: int) -> RoundCost:
    zeros = {"rounds": 1, "sent": 8, "drawn": 8, "multiplications": 1}
    rest = {"calls": 1, "nodes": 1, "elements": 1, "corrections": (8, 8), "bits": 1.0}
    return RoundCost(name="epoch 1", **(zeros | rest | counts))  # type: ignore[arg-type]


def test_time_grows_with_whatever_there_is_more_of() -> None:
    base = Machine().seconds(part(), 2)
    for name in ("rounds", "sent", "drawn", "multiplications", "calls", "nodes", "elements"):
        assert Machine().seconds(part(**{name: 1 << 30}), 2) > base
    assert Machine().seconds(part(), 3) > base, "another peer to send to"
    far = Machine(latency=0.04, bandwidth=1e6)
    assert far.seconds(part(rounds=10), 2) - Machine().seconds(part(rounds=10), 2) == (
        pytest.approx(10 * 0.02 + 24e-6)
    )


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / machine.FILE
    assert machine.read(path) == Machine()
    made = calibration([("a", part(), 0.5), ("b", part(nodes=10_000), 0.9)], 2)
    machine.write(path, made)
    assert machine.read(path).calibration == made
    assert machine.read(path).seconds_each == made.seconds
    assert Sample(job="a", measured=0.5, fitted=0.4).error == pytest.approx(-0.2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: text.replace("masque machine 1", "masque machine 2"),
        lambda text: text.replace('"node"', '"knot"'),
        lambda text: text.replace('"cores": ', '"cores": -'),
        lambda text: '{"format": "masque machine 1"}',
        lambda text: "[" * 100_000,
        lambda text: "\x00\xff",
    ],
)
def test_damaged_files_are_told(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / machine.FILE
    machine.write(path, calibration([("a", part(), 0.5)], 2))
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=r"machine.json is not a calibration that this version"):
        machine.read(path)


# -- real services -------------------------------------------------------------------------------


@pytest.fixture
def calibrated(masque: Shell, home: Path, profile: Path) -> Any:
    """What the command said; its file is gone afterwards."""
    answer = masque("calibrate", "--quick", "--json")
    assert answer.code == 0, answer.err
    yield answer.json
    (home / machine.FILE).unlink()


PLANNED = """
name: planned
data: {{rows: [left], label: y}}
model:
  kind: sequential
  layers: [{{kind: dense, units: {units}}}, relu, {{kind: dense, units: 1}}]
training: {{epochs: {epochs}, batch_size: 16, optimizer: {{kind: sgd, learning_rate: 0.1}}}}
model_output: {{sealed_to: [analyst]}}
"""


def test_real_services_are_measured(
    masque: Shell, home: Path, files: Path, tmp_path: Path, calibrated: Any
) -> None:
    assert calibrated["file"] == str(home / machine.FILE)
    assert calibrated["parties"] == 2
    assert len(calibrated["samples"]) >= 6
    assert all(0 < sample["measured"] < 60 for sample in calibrated["samples"])
    left = [d["name"] for d in masque("datasets", "--json").json["datasets"]]
    assert not [name for name in left if name.startswith("calibration")]

    def seconds(units: int, epochs: int, *options: object) -> float:
        path, table = tmp_path / "job.yaml", f"--table=left={files / 'schema.yaml'}:160"
        path.write_text(PLANNED.format(units=units, epochs=epochs))
        answer = masque("plan", path, "--offline", table, "--json", *options)
        assert answer.json["machine"]["calibrated"]
        assert answer.json["machine"]["worst_error"] == calibrated["worst_error"]
        return float(answer.json["total"]["seconds"])

    assert 0.001 < seconds(8, 1) < seconds(8, 5) < seconds(512, 5) < 600
    assert seconds(8, 5) < seconds(8, 5, "--latency", 40) > 1
    assert seconds(8, 5) < seconds(8, 5, "--bandwidth", 1)
    table = f"--table=left={files / 'schema.yaml'}:160"
    text = masque("plan", tmp_path / "job.yaml", "--offline", table).out
    assert f"the time is an estimate, calibrated on {calibrated['date'][:10]}" in text
    three = masque("plan", tmp_path / "job.yaml", "--offline", table, "--parties", 3).out
    assert "calibrated with 2 parties on" in three


def test_a_plan_says_that_nothing_was_measured(
    masque: Shell, home: Path, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(PLANNED.format(units=4, epochs=1))
    plan = ("plan", tmp_path / "job.yaml", "--offline", f"--table=left={files / 'schema.yaml'}:160")
    assert "`masque calibrate` measures yours" in masque(*plan).out
    assert masque(*plan, "--json").json["machine"] == {"calibrated": False}
    (tmp_path / machine.FILE).write_text("{}")
    answer = masque(*plan, "--profile", changed(home, tmp_path))
    assert (answer.code, answer.error) == (
        3,
        f"{tmp_path / machine.FILE} is not a calibration that this version of Masque can use.",
    )
    assert "masque calibrate" in answer.err


def test_services_that_are_down_are_told_before_anything_is_shared(
    masque: Shell, home: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    path = changed(home, tmp_path, dealer={"name": "dealer", "address": address})
    answer = masque("calibrate", "--profile", path)
    assert answer.code == 5
    assert answer.error == f"Dealer 'dealer' at {address} does not answer: nothing listens there."
    assert not (tmp_path / machine.FILE).exists()


def test_what_is_interrupted_leaves_nothing_behind(
    masque: Shell, home: Path, profile: Path
) -> None:
    command = [sys.executable, "-m", "masque.client.app", "calibrate"]
    environment = os.environ | {"MASQUE_PROFILE": str(profile)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("  2 of"):
                break
        running.send_signal(signal.SIGINT)
        assert "Traceback" not in running.stderr.read()
    assert running.returncode == 130
    assert not (home / machine.FILE).exists()
    listed = masque("datasets", "--json").json["datasets"]
    assert not [d["name"] for d in listed if d["name"].startswith("calibration")]
    states = {job["state"] for job in masque("jobs", "--json").json["jobs"]}
    assert states <= {"succeeded", "cancelled", "failed", "aborted"}, "nothing runs on"


def test_the_file_is_json_for_others(tmp_path: Path) -> None:
    path = tmp_path / machine.FILE
    machine.write(path, calibration([("a", part(), 0.5)], 2))
    assert Calibration.model_validate(json.loads(path.read_text())).parties == 2
