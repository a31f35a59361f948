"""From a bound job to the program that dealer and parties run: everyone compiles it himself."""

from __future__ import annotations

from math import sqrt

from masque.jobs.bound import BoundJob
from masque.jobs.fit import SharedTable
from masque.jobs.models import AdamSpec, LinearSpec, OptimizerSpec, SequentialSpec
from masque.jobs.networks import network_of
from masque.jobs.spec import EVERYBODY
from masque.ml.network import Adam, Optimizer, Sgd
from masque.ml.task import ALL, EarlyStop, Kind, Privacy, Table, Task
from masque.ml.training import build
from masque.mpc.program import Program

KINDS: dict[str, Kind] = {
    "linear_regression": "linear",
    "logistic_regression": "logistic",
    "softmax_regression": "softmax",
}
HEADS: dict[str, Kind] = {"number": "linear", "binary": "logistic", "classes": "softmax"}
"""What a network's scores are to a label of each kind."""

LEAST_MOMENTUM = 1e-9
"""Less moves no weight by a unit in its last place: it is none."""


def compile_job(job: BoundJob) -> Program:
    """The program of a job; equal jobs give equal programs on every machine.

    Errors: RangeError where a value could leave the ring, SpecError for classes or held-out rows
    that are too many; both name the field of the job to change.
    """
    program = build(task_of(job))
    start = job.start
    assert start is None or start.name in program.inputs, "a model to start from is read"
    return program


def task_of(job: BoundJob) -> Task:
    """The job in the terms of masque.ml."""
    spec, split = job.spec, job.split
    training, model = spec.training, spec.model
    label = job.label
    network = model if isinstance(model, SequentialSpec) else None
    stop = training.early_stop
    return Task(
        name=job.job_id,
        parties=len(job.parties),
        kind=HEADS[label.kind] if network else KINDS[model.kind],
        tables=tuple(_table(table, label.name) for table in job.tables),
        stacked=spec.data.partition == "rows",
        feature_bounds=tuple(feature.bound for feature in job.features),
        training_rows=split.training,
        validation_rows=split.validation,
        holdout_rows=split.holdout,
        learning_rates=tuple(training.learning_rate(epoch) for epoch in range(training.epochs)),
        batch_size=training.batch_size,
        seed=training.seed,
        momentum=0.0 if network else _momentum(training.optimizer),
        l2=model.l2,
        weight_bound=model.weight_bound,
        standardize=spec.data.standardize,
        intercept=isinstance(model, LinearSpec) and model.fit_intercept,
        batches_per_round=training.batches_per_round,
        early_stop=EarlyStop(stop.metric, stop.patience, stop.min_delta) if stop else None,
        metrics=spec.reveal.metrics,
        metrics_to=_recipients(spec.reveal.to),
        model_to=_model_recipients(job),
        identifiers=spec.data.partition == "columns"
        and all(table.info.has_identifiers for table in job.tables),
        network=network_of(network, len(job.features)) if network else None,
        optimizer=_optimizer(training.optimizer) if network else None,
        gradient_clip=training.gradient_clip,
        start=_table(job.start, label.name) if job.start else None,
        privacy=_privacy(job),
    )


def _privacy(job: BoundJob) -> Privacy | None:
    """A row is no longer than the bounds of its columns; of one category's columns one is 1."""
    spec = job.spec.privacy
    if spec is None:
        return None
    tables = job.tables if job.spec.data.partition == "columns" else job.tables[:1]
    longest: dict[tuple[int, bool, str], float] = {}
    for index, table in enumerate(tables):
        for column in table.info.features:
            category = column.kind == "category"
            key = index, category, column.source if category else column.name
            longest[key] = max(longest.get(key, 0.0), column.bound)
    norm = sqrt(sum(bound**2 for bound in longest.values()))
    return Privacy(spec.epsilon, spec.delta, norm, spec.sensitivity)


def _momentum(optimizer: OptimizerSpec) -> float:
    """Of steps that have one."""
    found = 0.0 if isinstance(optimizer, AdamSpec) else optimizer.momentum
    return found if found >= LEAST_MOMENTUM else 0.0


def _optimizer(optimizer: OptimizerSpec) -> Optimizer:
    """How a network is stepped."""
    if isinstance(optimizer, AdamSpec):
        return Adam(optimizer.beta1, optimizer.beta2, optimizer.epsilon)
    return Sgd(_momentum(optimizer))


def _table(table: SharedTable, label: str) -> Table:
    info = table.info
    labels = info.label.columns if info.label and info.label.name == label else 0
    return Table(table.name, info.rows, len(info.features), labels)


def _recipients(names: tuple[str, ...]) -> tuple[str, ...]:
    return ALL if names == (EVERYBODY,) else names


def _model_recipients(job: BoundJob) -> tuple[str, ...]:
    output = job.spec.model_output
    if output.kind == "open":
        return ALL
    return output.sealed_to or ()
