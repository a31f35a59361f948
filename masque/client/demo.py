"""The demo: two hospitals train one model without showing each other a patient.

Everything is real: services in processes of their own, mutual TLS, files on disk, a sealed model.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from masque.client import datasets, jobs, local, opening, processes, sharing, traffic
from masque.client.clearly import Scores, in_the_clear, scores
from masque.client.display import Show
from masque.client.jobs import JobEvent
from masque.client.profile import load
from masque.client.services import Services
from masque.data import bundled
from masque.jobs import spec

HOSPITALS = 2

_JOBS = {
    "breast-cancer": ("logistic_regression", True, 30, 32, 0.1, "accuracy, auc"),
    "diabetes": ("linear_regression", True, 40, 32, 0.02, "r2"),
    "digits": ("softmax_regression", False, 16, 128, 0.5, "accuracy, log_loss"),
    "iris": ("softmax_regression", True, 40, 16, 0.1, "accuracy, log_loss"),
    "wine": ("softmax_regression", True, 30, 16, 0.1, "accuracy, log_loss"),
}
"""Model, standardised or not, epochs, batch, learning rate, metrics of each data set."""


@dataclass
class Clock:
    """Seconds spent on each step, in order."""

    steps: dict[str, float] = field(default_factory=dict)
    _at: float = field(default_factory=time.monotonic)

    def lap(self, name: str) -> None:
        """What went by since the last lap was `name`."""
        now = time.monotonic()
        self.steps[name] = self.steps.get(name, 0.0) + now - self._at
        self._at = now


@dataclass(frozen=True)
class Report:
    """Everything that the demo found out."""

    data: str
    parties: int
    job_id: str
    rows: dict[str, int]
    revealed: dict[str, Any]
    masque: Scores
    clear: Scores
    clear_on_revealed_rows: Scores
    training_rounds: int
    exchanges: int
    seconds: dict[str, float]
    seen: traffic.Seen
    warnings: tuple[str, ...]
    model_file: str | None = None


def job_text(data: str, names: list[str], recipient: str) -> str:
    """The job file of a data set."""
    kind, standardize, epochs, batch, rate, metrics = _JOBS[data]
    label = _label(data)
    return (
        f"name: {data}\n"
        f"data: {{rows: [{', '.join(names)}], label: {label},"
        f" standardize: {str(standardize).lower()}, holdout: 0.2}}\n"
        f"model: {{kind: {kind}, l2: 0.001}}\n"
        f"training: {{epochs: {epochs}, batch_size: {batch}, optimizer:"
        f" {{kind: sgd, learning_rate: {rate}, momentum: 0.9}}, seed: 7}}\n"
        f"reveal: {{metrics: [{metrics}], to: [{recipient}]}}\n"
        f"model_output: {{sealed_to: [{recipient}]}}\n"
    )


def run(
    data: str, parties: int, profile: Path | None, show: Show, say: Any, keep: Path | None = None
) -> Report:
    """Run the demo; `show` gets events of the job, `say` lines for the person who watches."""
    bundled.schema_path(data)  # a misspelt name is told before anything starts
    clock = Clock()
    with _workshop(keep) as directory:
        if profile is not None:
            files = bundled.write(data, directory / "data", hospitals=HOSPITALS)
            with Services(load(profile)) as services:
                for peer in services.everybody:
                    peer.check()
                clock.lap("start")
                return _train(data, services, files, clock, show, say)
        say(f"starting a dealer, {parties} parties and a coordinator")
        with _network(directory / "network", parties, data, directory / "data") as made:
            files, network = made
            with Services(load(network.profile)) as services:
                clock.lap("start")
                report = _train(data, services, files, clock, show, say)
        return report


@contextmanager
def _workshop(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    directory = Path(tempfile.mkdtemp(prefix="masque-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _network(
    home: Path, parties: int, data: str, target: Path
) -> Iterator[tuple[bundled.Files, local.Network]]:
    """Services that end with this block, or with this process, however either ends."""
    written: list[bundled.Files] = []

    def write() -> None:
        written.append(bundled.write(data, target, hospitals=HOSPITALS))

    network = local.up(home, parties, bound_to_us=True, meanwhile=write)
    try:
        yield written[0], network
    finally:
        processes.stop(network.places)


def _train(
    data: str, services: Services, files: bundled.Files, clock: Clock, show: Show, say: Any
) -> Report:
    me = services.profile.name
    mark = secrets.token_hex(3)
    names = [f"{path.stem}-{mark}" for path in files.hospitals]
    before = traffic.look(services)
    try:
        say(f"sharing {' and '.join(path.name for path in files.hospitals)}")
        shared = [
            sharing.share(services.parties, path, schema, name)
            for path, schema, name in zip(files.hospitals, files.schemas, names, strict=True)
        ]
        clock.lap("share")
        text = job_text(data, names, me)
        with jobs.ours(services, text, spec.parse(text)) as job_id:
            say(f"training {job_id}")
            last = _watch(services, job_id, clock, show)
        say("opening the sealed model")
        result = opening.fetch(services, job_id)
        model = result.model
        clock.lap("result")
        after = traffic.look(services)
    finally:
        _clean(services, names)
    say("comparing with scikit-learn on the pooled plaintext")
    assert files.heldout is not None, "the demo holds rows out"
    X, y = model.read(files.heldout, files.schema)
    assert y is not None, "held-out rows have labels"
    clear, on_revealed = in_the_clear(result.bound, model, files, X, y)
    found = scores(model.kind, y, model.predict(X), model.decision_function(X))
    clock.lap("compare")
    split = result.bound.split
    return Report(
        data=data,
        parties=len(services.parties),
        job_id=job_id,
        rows={
            **{item.name.removesuffix(f"-{mark}"): item.info.rows for item in shared},
            "trained on": split.training,
            "held out in the job": split.holdout,
            "held out by the demo": len(y),
        },
        revealed=result.metrics,
        masque=found,
        clear=clear,
        clear_on_revealed_rows=on_revealed,
        training_rounds=last.progress.of,
        exchanges=last.progress.exchanges,
        seconds=clock.steps,
        seen=traffic.seen(before, after, shared, result),
        warnings=model.warnings,
    )


def _watch(services: Services, job_id: str, clock: Clock, show: Show) -> JobEvent:
    """Follow the job to its end; the clock tells preparing, training and evaluating apart."""
    step = "prepare"
    last = None
    for last in jobs.watch(services, job_id):
        show(last)
        name = last.progress.round_name
        now = step
        if last.state == "training" and name.startswith("epoch"):
            now = "train"
        elif last.state == "training" and name in ("evaluate", "finish"):
            now = "evaluate"
        if now != step:
            clock.lap(step)
            step = now
    clock.lap(step)
    assert last is not None, "watch yields or raises"
    return jobs.check(last, job_id)


def _clean(services: Services, names: list[str]) -> None:
    """Leave no data set of ours behind, as far as services still answer."""
    from masque.errors import MasqueError

    for name in names:
        try:
            datasets.delete(services.parties, name)
        except MasqueError:
            continue


def _label(data: str) -> str:
    from masque.data.schema import load as load_schema

    label = load_schema(bundled.schema_path(data)).label
    assert label is not None, "every bundled data set has one"
    return label.column
