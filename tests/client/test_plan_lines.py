"""What `masque plan` prints adds up and fits a screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from masque.client import console
from masque.client.app import main
from masque.client.planning import Part, Plan, bound_for_planning, summed, tables_of
from masque.jobs import spec
from masque.jobs.compile import compile_job
from masque.mpc.footprint import footprint

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
    bytes_ = 8 * rounds, (rounds, 2 * rounds), 16 * rounds
    return Part(name, rounds, *bytes_, 32 * rounds, rounds, 4 * rounds, 64 * rounds, 10.0, 0.5)


def test_a_sum_is_that_of_every_figure() -> None:
    parts = (part("epoch 1", 3), part("epoch 2", 4))
    total = Part("both", 7, 56, (7, 14), 112, 224, 7, 28, 448, 10.0, 1.0)
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


def test_the_memory_that_a_party_needs_is_what_parties_go_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    tables = [f"{name}={tmp_path / 'schema.yaml'}:20" for name in "ab"]
    program = compile_job(bound_for_planning(spec.parse(JOB), tables_of(tables), 3))
    arguments = ["plan", str(tmp_path / "job.yaml"), "--offline", "--parties=3"]
    arguments += [f"--table={table}" for table in tables]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory_of_a_party"] == footprint(program)
    assert main(arguments) == 0
    assert f"a party needs {console.size(footprint(program))} at most" in capsys.readouterr().out


NETWORK = """
name: net
data: {rows: [a], label: y}
model:
  kind: sequential
  layers: [{kind: dense, units: 16}, relu, {kind: dense, units: 1}]
  gradient_bound: GRADIENT
training: {epochs: 2, batch_size: 8, optimizer: {kind: sgd, learning_rate: 0.1}}
model_output: {sealed_to: [analyst]}
"""


def planned(
    directory: Path, capsys: pytest.CaptureFixture[str], job: str, *more: str
) -> tuple[int, str, str]:
    (directory / "job.yaml").write_text(job)
    (directory / "schema.yaml").write_text(SCHEMA)
    table = f"--table=a={directory / 'schema.yaml'}:40"
    code = main(["plan", str(directory / "job.yaml"), "--offline", table, *more])
    return code, *capsys.readouterr()


def test_a_plan_tells_layer_by_layer_what_bounds_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = planned(tmp_path, capsys, NETWORK.replace("GRADIENT", "64"))
    assert (code, err) == (0, "")
    heading = next(line for line in out.splitlines() if line.startswith("layer"))
    assert heading.split("  ")[0] == "layer" and "of 62 bits" in heading
    for layer in ("dense 0", "relu 1", "dense 2"):
        assert f"\n{layer} " in out
    assert "no number takes more than" in out
    code, out, _ = planned(tmp_path, capsys, NETWORK.replace("GRADIENT", "64"), "--bounds")
    for value in ("weight", "values", "gradient of bias", "step of weight"):
        assert f"dense 0  {value} " in out


def test_a_plan_warns_of_what_is_tight_and_still_succeeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = NETWORK.replace("GRADIENT", "65536").replace("0.1}}", "100}}")
    code, out, err = planned(tmp_path, capsys, job, "--json")
    assert code == 0
    plan = json.loads(out)
    (warning,) = plan["warnings"]
    assert warning["field"] == "training.optimizer.learning_rate"
    assert err == f"warning: {warning['message']}\n"
    checked = [value for value in plan["values"] if value["checks"]]
    assert checked and all(value["ring_bits"] <= 62 for value in plan["values"])
    assert {"by", "width"} == set(
        next(v for v in plan["values"] if v["truncations"])["truncations"][0]
    )
    assert plan["total"]["bits"] == max(part["bits"] for part in plan["training_rounds"]) <= 62


def test_a_plan_tells_what_bounds_linear_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = JOB.replace("[a, b]", "[a]").replace(", holdout: 0.25", "").replace("reveal", "#")
    code, out, _ = planned(tmp_path, capsys, job)
    assert code == 0
    for value in ("design matrix", "weights", "scores", "residuals", "gradient"):
        assert f"\n-      {value} " in out
