"""Private models from real services: what is told of them, and what parties have on record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from masque.client.reading import read
from masque.ml.privacy import rounded_up
from masque.version import __version__
from tests.client.shell import Shell

JOB = """\
name: private
data: {rows: [left, right], label: y}
model: {kind: logistic_regression, l2: 0.5}
training: {epochs: 4, batch_size: 60, optimizer: {kind: sgd, learning_rate: 0.5}}
model_output: {sealed_to: [analyst]}
privacy: {epsilon: 1.0, delta: 1e-6}
"""


def test_a_private_model(
    masque: Shell, shared: None, profile: Path, home: Path, tmp_path: Path
) -> None:
    del shared
    job = tmp_path / "private.yaml"
    job.write_text(JOB)
    plan = masque("plan", job, "--json").json
    planned = plan["privacy"]
    assert (planned["epsilon"], planned["delta"]) == (1.0, 1e-6)
    assert np.isclose(planned["noise"], planned["noise_of_a_party"] * 2**0.5)
    assert 0.46 < planned["most_advantage"] < 0.463
    text = masque("plan", job)
    assert "One row moves the weights by" in text.out and text.err == ""
    job.write_text(JOB.replace("epsilon: 1.0", "epsilon: 0.01"))
    assert "Noise may move a score" in masque("plan", job).err
    job.write_text(JOB)

    learned = []
    for name in ("once", "again"):
        answer = masque("train", job, "--id", f"private-{name}", "--watch")
        assert answer.code == 0, answer.err
        out = tmp_path / f"{name}.json"
        answer = masque("result", f"private-{name}", "--out", out)
        assert answer.code == 0 and "Privacy: epsilon 1, delta 1e-06." in answer.out
        assert json.loads(out.read_text())["privacy"] == planned
        receipt = tmp_path / f"private-{name}.receipt.json"
        ledgers = sorted(home.glob("party-*/**/ledger.jsonl"))
        checks = ["--authority", home / "authority" / "authority.pem"]
        checks += [f"--ledger={path}" for path in ledgers]
        proven = masque("receipt", "verify", receipt, *checks, "--json").json
        assert proven["privacy"] == {
            "epsilon": 1.0,
            "delta": 1e-6,
            "sensitivity": planned["sensitivity"],
            "sigma": planned["noise_of_a_party"],
        }
        assert len(proven["program"]) == 64 and proven["earlier"] == []
        assert [told["masque"] for told in proven["versions"].values()] == [__version__] * 2
        told = masque("receipt", "verify", receipt, *checks).out
        moved = rounded_up(planned["sensitivity"])
        assert "privacy: epsilon 1, delta 1e-06; one row moves the weights by" in told
        assert f"by {moved} at most" in told and f"by {moved} at most" in answer.out
        learned.append(read(out).arrays()["coefficients"])
    assert not np.array_equal(learned[0], learned[1]), "fresh noise"

    ledgers = sorted(home.glob("party-*/**/ledger.jsonl"))
    assert len(ledgers) == 2
    for ledger in ledgers:
        lines = [line for line in ledger.read_text().splitlines() if "private-" in line]
        released = [line for line in lines if "release of the model with epsilon 1" in line]
        assert len(released) == 2 and all("analyst" in line for line in released)
        first = next(i for i, line in enumerate(lines) if "release of" in line)
        sealed = next(i for i, line in enumerate(lines) if "sealed" in line)
        assert first < sealed, "on record before anything is"


def test_a_job_that_would_tell_more_is_refused(
    masque: Shell, shared: None, profile: Path, tmp_path: Path
) -> None:
    del shared
    job = tmp_path / "private.yaml"
    job.write_text(JOB + "reveal: {metrics: [accuracy], to: [analyst]}\n")
    answer = masque("train", job)
    assert answer.code == 4 and "reveal.metrics do not go with privacy" in answer.err
    job.write_text(JOB.replace("learning_rate: 0.5", "learning_rate: 5"))
    answer = masque("plan", job)
    assert answer.code == 4 and "Lower training.optimizer.learning_rate to 0.5" in answer.err
    job.write_text(JOB.replace("1e-6}", "1e-6, sensitivity: 0.01}"))
    for command in ("plan", "train"):
        answer = masque(command, job)
        assert answer.code == 4 and "and the job says that it moves them by 0.01" in answer.err
        assert "Raise privacy.sensitivity to 0." in answer.err
    job.write_text(JOB.replace("1e-6}", "1e-6, sensitivity: 12.5}"))
    assert " at most; the job allows 12.5." in masque("plan", job).out
    assert masque("plan", job, "--json").json["privacy"]["most_sensitivity"] == 12.5
    job.write_text(JOB.replace("learning_rate: 0.5", "learning_rate: 5"))
    answer = masque("train", job, "--watch")
    assert answer.code == 4 and "Lower training.optimizer.learning_rate to" in answer.err
