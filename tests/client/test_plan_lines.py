"""What `masque plan` prints adds up and fits a screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from masque.client.app import main
from masque.client.planning import Part, Plan, summed

JOB = """
name: small
data: {rows: [a, b], label: y, holdout: 0.25}
model: {kind: logistic_regression}
training: {epochs: 12, batch_size: 8, optimizer: {kind: sgd, learning_rate: 0.1}}
reveal: {metrics: [accuracy], to: [analyst]}
model_output: {sealed_to: [analyst]}
"""
SCHEMA = """
columns:
  x: {type: number, range: [0, 1]}
label: {column: y, type: binary}
"""


def part(name: str, rounds: int) -> Part:
    return Part(name, rounds, 8 * rounds, (rounds, 2 * rounds), 16 * rounds, 32 * rounds, 0.5)


def test_a_sum_is_that_of_every_figure() -> None:
    parts = (part("epoch 1", 3), part("epoch 2", 4))
    total = Part("both", 7, 56, (7, 14), 112, 224, 1.0)
    assert summed("both", parts) == total
    plan = Plan("job", 2, 10, 1, parts, ())
    assert plan.total == summed("total", parts)


def test_epochs_are_one_line_that_adds_up_to_the_total(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    tables = [f"--table={name}={tmp_path / 'schema.yaml'}:20" for name in "ab"]
    assert main(["plan", str(tmp_path / "job.yaml"), "--offline", *tables]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.split("  ") for line in lines[3 : lines.index("", 3)]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in table]
    assert "epoch 1 to 12" in [row[0] for row in cells]
    assert cells[-1][0] == "total"
    rounds = [int(row[1].replace(",", "")) for row in cells]
    assert sum(rounds[:-1]) == rounds[-1]
