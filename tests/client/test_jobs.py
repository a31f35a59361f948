"""Jobs of every kind through the SDK: opened to all, kept as shares, joined, stopped early."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from masque.client import datasets, jobs, opening, sharing
from masque.client.profile import load
from masque.client.services import Services
from masque.data import bundled
from masque.errors import Conflict, IdentityError, JobFailed, NotFound, ProtocolError
from masque.jobs import spec
from tests.client.networks import JOB, SCHEMA, job_text, write_small


@pytest.fixture(scope="module")
def services(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Services:
    made = Services(load(home / "profile.yaml"))
    directory = tmp_path_factory.mktemp("tables")
    (directory / "schema.yaml").write_text(SCHEMA)
    for name in ("left", "right"):
        table = write_small(directory / f"{name}.csv", seed=name)
        sharing.share(made.parties, table, directory / "schema.yaml", name, replace=True)
    return made


def run(services: Services, text: str) -> str:
    job_id = jobs.submit(services, text, spec.parse(text))
    jobs.finished(services, job_id)
    return job_id


def test_a_model_opened_to_all_comes_from_the_parties(services: Services) -> None:
    text = job_text(5).replace("sealed_to: [analyst]", "open_to_all: true")
    text = text.replace("to: [analyst]", "to: all")
    result = opening.fetch(services, run(services, text))
    assert result.sealed_bytes == 0
    assert set(result.values) == {"weights", "intercept", "metric:accuracy"}
    assert result.model.arrays()["coefficients"][0, 0] > 0
    sealed = opening.fetch(services, run(services, job_text(5)))
    for name, found in sealed.model.arrays().items():
        assert np.allclose(found, result.model.arrays()[name], atol=1e-4)


def test_a_model_kept_as_shares_is_nobodys(services: Services) -> None:
    text = job_text(2).replace("sealed_to: [analyst]", "keep_shares: kept-model")
    result = opening.fetch(services, run(services, text))
    assert result.metrics["accuracy"] > 0.5
    assert not result.has_model
    with pytest.raises(NotFound, match="promised 'analyst' no model") as caught:
        _ = result.model
    assert "under the name 'kept-model'" in caught.value.hint
    with pytest.raises(Conflict, match="a model 'kept-model' is kept at party"):
        run(services, text)


def test_training_stops_early(services: Services) -> None:
    training = (
        "training: {epochs: 40, batch_size: 16, early_stop: {metric: log_loss, patience: 1,"
        " min_delta: 0.05, validation: 0.2}, optimizer: {kind: sgd, learning_rate: 0.5}}"
    )
    lines = [training if line.startswith("training") else line for line in JOB.splitlines()]
    text = "\n".join(lines)
    job_id = jobs.submit(services, text, spec.parse(text))
    last = jobs.finished(services, job_id)
    assert last.progress.stopped
    assert opening.fetch(services, job_id).has_model


def test_columns_of_two_owners_are_joined(services: Services, tmp_path: Path) -> None:
    files = bundled.write("breast-cancer", tmp_path, by="columns")
    for path, schema in zip(files.hospitals, files.schemas, strict=True):
        sharing.share(services.parties, path, schema, f"{path.stem}-columns", replace=True)
    names = [f"{path.stem}-columns" for path in files.hospitals]
    text = (
        f"name: joined\ndata: {{columns: [{', '.join(names)}], label: malignant,"
        " standardize: true, holdout: 0.2}\n"
        "model: {kind: logistic_regression, l2: 0.001}\n"
        "training: {epochs: 5, batch_size: 32, optimizer:"
        " {kind: sgd, learning_rate: 0.1, momentum: 0.9}}\n"
        "reveal: {metrics: [accuracy, confusion], to: [analyst]}\n"
        "model_output: {sealed_to: [analyst]}\n"
    )
    result = opening.fetch(services, run(services, text))
    assert len(result.model.features) == 30
    assert result.metrics["accuracy"] > 0.85
    assert sum(map(sum, result.metrics["confusion"])) == result.bound.split.holdout


def test_owners_whose_rows_do_not_match_are_told(services: Services, tmp_path: Path) -> None:
    files = bundled.write("breast-cancer", tmp_path, by="columns")
    lines = files.hospitals[1].read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    files.hospitals[1].write_text("\n".join(lines) + "\n")
    for path, schema in zip(files.hospitals, files.schemas, strict=True):
        sharing.share(services.parties, path, schema, f"{path.stem}-mixed", replace=True)
    text = JOB.replace("EPOCHS", "1").replace("label: y", "label: malignant")
    text = text.replace("rows: [left, right]", "columns: [hospital-a-mixed, hospital-b-mixed]")
    with pytest.raises(JobFailed, match=r"identifier") as caught:
        run(services, text)
    assert "hospital-a-mixed" in str(caught.value) or "match" in str(caught.value)


def test_what_is_shared_can_be_seen_by_all_and_removed(services: Services, tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    table = write_small(tmp_path / "t.csv")
    phases = []
    sharing.share(
        services.parties,
        table,
        tmp_path / "schema.yaml",
        "seen",
        progress=lambda phase, done, total: phases.append((phase, done, total)),
    )
    assert ("check", 60, None) in phases
    assert phases[-1] == ("share", 60, 60)
    view = next(view for view in datasets.datasets(services.parties) if view.name == "seen")
    assert (view.problem, view.info.rows, view.parties) == ("", 60, ("party-1", "party-2"))
    half = services.parties[:1]
    assert datasets.delete(half, "seen") == ("party-1",)
    view = next(view for view in datasets.datasets(services.parties) if view.name == "seen")
    assert view.problem == "'seen' is not at party-1; share it again"
    datasets.delete(services.parties, "seen")


def test_a_result_of_other_parties_is_not_believed(services: Services) -> None:
    job_id = run(services, job_text())
    bound, sealed = opening._ask(services, job_id, "analyst")
    moved = {
        output: {party: parts[other] for party, other in zip(parts, reversed(parts), strict=True)}
        for output, parts in sealed.items()
    }
    with pytest.raises(IdentityError, match="was signed by"):
        opening._open(services, bound, "analyst", moved)
    swapped = sealed | {"weights": sealed["intercept"]}
    with pytest.raises(ProtocolError, match="belongs to another job, attempt or output"):
        opening._open(services, bound, "analyst", swapped)
    lacking = sealed | {"weights": {"party-1": sealed["weights"]["party-1"]}}
    with pytest.raises(ProtocolError, match="share of weights of party-2 is not as it should be"):
        opening._open(services, bound, "analyst", lacking)
    fewer_outputs = {output: parts for output, parts in sealed.items() if output != "intercept"}
    with pytest.raises(ProtocolError, match="lacks intercept"):
        opening._open(services, bound, "analyst", fewer_outputs)
    flipped = bytearray(sealed["weights"]["party-1"])
    flipped[-200] ^= 1
    broken = sealed | {"weights": sealed["weights"] | {"party-1": bytes(flipped)}}
    with pytest.raises((IdentityError, ProtocolError)):
        opening._open(services, bound, "analyst", broken)
    fewer = dataclasses.replace(services.parties[0]).name
    renamed = services.profile.model_copy(update={"parties": services.profile.parties[1:]})
    with (
        Services(renamed, services.credentials) as others,
        pytest.raises(IdentityError, match=f"was run by '{fewer}', which is no party"),
    ):
        opening.fetch(others, job_id)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_job_interrupted_as_it_is_submitted_is_ended(
    services: Services, monkeypatch: pytest.MonkeyPatch, accepted: bool
) -> None:
    """Ctrl-C between the coordinator's yes and our knowing of it, and before its yes."""
    submit, calls = jobs.submit, []

    def interrupted(
        services: Services, text: str, job: spec.JobSpec, job_id: str | None = None
    ) -> str:
        calls.append(job_id)
        if accepted or len(calls) > 1:
            submit(services, text, job, job_id)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return str(job_id)

    monkeypatch.setattr(jobs, "submit", interrupted)
    text = job_text(500)
    with pytest.raises(KeyboardInterrupt), jobs.ours(services, text, spec.parse(text)):
        pytest.fail("nothing was submitted")
    assert len(calls) == 2 and calls[0] == calls[1]
    states = {view.job_id: view.state for view in jobs.listed(services)}
    assert states[str(calls[0])] == "cancelled"


def test_a_job_whose_follower_breaks_off_is_ended(services: Services) -> None:
    text = job_text(500)
    with pytest.raises(KeyboardInterrupt), jobs.ours(services, text, spec.parse(text)) as job_id:
        raise KeyboardInterrupt
    assert {v.job_id: v.state for v in jobs.listed(services)}[job_id] == "cancelled"
