"""What must fit together inside one job file, section against section.

Each rule sees only sections that are valid by themselves and adds complaints; none raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from masque.data.table import first_repeated
from masque.jobs.complaints import Complaint
from masque.jobs.document import Where
from masque.jobs.models import AdamSpec, LinearSpec, SequentialSpec
from masque.jobs.spec import EVERYBODY, DataSpec, OutputSpec, RevealSpec, TrainingSpec

AnyModel = LinearSpec | SequentialSpec

METRICS: Mapping[str, tuple[str, ...]] = {
    "linear_regression": ("r2",),
    "logistic_regression": ("accuracy", "auc", "log_loss", "confusion"),
    "softmax_regression": ("accuracy", "log_loss", "confusion"),
    "squared_error": ("r2",),
    "binary_cross_entropy": ("accuracy", "auc", "log_loss", "confusion"),
    "softmax_cross_entropy": ("accuracy", "log_loss", "confusion"),
}
"""Metrics that each kind of linear model, or network with each loss, can be evaluated by."""

STOP_METRICS: Mapping[str, tuple[str, ...]] = {
    "linear_regression": ("squared_error",),
    "logistic_regression": ("log_loss",),
    "softmax_regression": ("log_loss",),
    "squared_error": ("squared_error",),
    "binary_cross_entropy": ("log_loss",),
    "softmax_cross_entropy": ("log_loss",),
}
"""Metrics that each of them can be stopped early by."""


def complaints_about(sections: Mapping[str, Any]) -> list[Complaint]:
    """What is wrong between the sections given; a section that is not there is not judged."""
    data: DataSpec | None = sections.get("data")
    model: AnyModel | None = sections.get("model")
    training: TrainingSpec | None = sections.get("training")
    reveal: RevealSpec | None = sections.get("reveal")
    output: OutputSpec | None = sections.get("model_output")
    found: list[Complaint] = []
    if data is not None:
        found += _data(data)
    if reveal is not None:
        found += _reveal(reveal)
    if output is not None:
        found += _output(output)
    head = head_of(model) if model is not None else None
    if head is not None and reveal is not None:
        found += complaints_about_metrics(head, reveal)
    if head is not None and training is not None:
        found += complaints_about_stop(head, training)
    if model is not None and training is not None:
        found += _steps(model, training)
    if isinstance(model, SequentialSpec):
        from masque.jobs.networks import complaints_about_network

        found += complaints_about_network(model)
    if data is not None and reveal is not None:
        found += _evaluated(data, reveal)
    if sections.get("privacy") is not None:
        found += complaints_about_privacy(data, model, training, reveal)
    return found


def _data(data: DataSpec) -> Iterator[Complaint]:
    if data.rows is not None and data.columns is not None:
        yield Complaint(
            ("data",),
            "has both rows and columns",
            "Keep rows to stack data sets with the same columns, or columns to join data sets"
            " with the same rows.",
        )
    elif not data.datasets:
        where: Where = ("data", "rows") if data.rows is not None else ("data", "columns")
        if data.rows is None and data.columns is None:
            where = ("data",)
        yield Complaint(
            where, "names no data set", "Add rows: [name, ...] or columns: [name, ...]."
        )
    yield from _repeats(("data", data.partition), data.datasets)


def _reveal(reveal: RevealSpec) -> Iterator[Complaint]:
    yield from _repeats(("reveal", "metrics"), reveal.metrics)
    yield from _repeats(("reveal", "to"), reveal.to)
    if reveal.metrics and not reveal.to:
        yield Complaint(
            ("reveal", "to"), "names nobody", "Add to: [name, ...] or to: all, or remove metrics."
        )
    if reveal.to and not reveal.metrics:
        yield Complaint(
            ("reveal", "metrics"), "is empty", "Add metrics: [name, ...] or remove reveal."
        )
    if EVERYBODY in reveal.to and len(reveal.to) > 1:
        yield Complaint(("reveal", "to"), "has names beside all", "Write to: all, or only names.")


def _output(output: OutputSpec) -> Iterator[Complaint]:
    given = [
        name
        for name in ("sealed_to", "keep_shares", "open_to_all")
        if getattr(output, name) is not None
    ]
    if len(given) != 1:
        problem = f"has {' and '.join(given)}" if given else "is empty"
        yield Complaint(
            ("model_output",),
            problem,
            "Give exactly one of sealed_to: [name, ...], keep_shares: name, open_to_all: true.",
        )
    if output.sealed_to is not None:
        yield from _repeats(("model_output", "sealed_to"), output.sealed_to)
        if not output.sealed_to:
            yield Complaint(("model_output", "sealed_to"), "names nobody", "Add a recipient.")
        if EVERYBODY in output.sealed_to:
            yield Complaint(
                ("model_output", "sealed_to"),
                "cannot be all",
                "Write open_to_all: true to give the model to everybody.",
            )


def head_of(model: AnyModel) -> str | None:
    """What decides how a model is judged: its kind, or a network's loss; None if not said."""
    return model.loss if isinstance(model, SequentialSpec) else model.kind


def complaints_about_metrics(head: str, reveal: RevealSpec) -> Iterator[Complaint]:
    """Metrics that a kind of linear model, or a network with a loss, does not have."""
    allowed = METRICS[head]
    for index, metric in enumerate(reveal.metrics):
        if metric not in allowed:
            yield Complaint(
                ("reveal", "metrics", index),
                f"cannot be {metric!r} for a {_named(head)}",
                f"It can be {' or '.join(allowed)}.",
            )


def complaints_about_stop(head: str, training: TrainingSpec) -> Iterator[Complaint]:
    """A metric of early stopping that it does not have."""
    allowed = STOP_METRICS[head]
    if training.early_stop is not None and training.early_stop.metric not in allowed:
        yield Complaint(
            ("training", "early_stop", "metric"),
            f"cannot be {training.early_stop.metric!r} for a {_named(head)}",
            f"It can be {' or '.join(allowed)}.",
        )


def _named(head: str) -> str:
    return head if head.endswith("_regression") else f"network with {head}"


def _steps(model: AnyModel, training: TrainingSpec) -> Iterator[Complaint]:
    """What only networks can be trained with."""
    if isinstance(model, SequentialSpec):
        return
    if isinstance(training.optimizer, AdamSpec):
        yield Complaint(
            ("training", "optimizer", "kind"),
            f"cannot be 'adam' for a {model.kind}",
            "Use kind: sgd; a sequential model can be trained with adam.",
        )
    if training.gradient_clip is not None:
        yield Complaint(
            ("training", "gradient_clip"),
            f"is not for a {model.kind}",
            "Remove it; its weights are limited by model.weight_bound.",
        )


def _evaluated(data: DataSpec, reveal: RevealSpec) -> Iterator[Complaint]:
    if reveal.metrics and data.holdout == 0:
        yield Complaint(
            ("data", "holdout"),
            "is 0, but reveal.metrics are computed on held-out rows",
            "Add holdout: 0.2 to data, or remove reveal.",
        )


def complaints_about_privacy(
    data: DataSpec | None,
    model: AnyModel | None,
    training: TrainingSpec | None,
    reveal: RevealSpec | None,
) -> Iterator[Complaint]:
    """What would tell of rows beside the noise, or keeps one row's influence from being bounded."""
    if isinstance(model, SequentialSpec):
        yield Complaint(
            ("model", "kind"),
            "cannot be sequential with privacy: nothing bounds what one row changes of a network",
            "Use linear_regression, logistic_regression or softmax_regression.",
        )
    if data is not None and data.standardize:
        yield Complaint(
            ("data", "standardize"),
            "does not go with privacy: means and deviations tell of rows, and are given away",
            "Remove it, and scale columns by public ranges in their schema.",
        )
    if reveal is not None and reveal.metrics:
        yield Complaint(
            ("reveal", "metrics"),
            "do not go with privacy: no noise is added to them",
            "Remove reveal, and measure the model on rows of your own.",
        )
    if training is not None and training.early_stop is not None:
        yield Complaint(
            ("training", "early_stop"),
            "does not go with privacy: its bits tell of rows without noise",
            "Remove it; fewer epochs need less noise as well.",
        )
    if training is not None and training.optimizer.kind == "sgd" and training.optimizer.momentum:
        yield Complaint(
            ("training", "optimizer", "momentum"),
            "does not go with privacy: what one row can change is not bounded tightly with it",
            "Remove it.",
        )


def _repeats(where: Where, names: Iterable[str]) -> Iterator[Complaint]:
    repeated = first_repeated(names)
    if repeated is not None:
        yield Complaint(where, f"lists {repeated!r} twice", "Remove one of them.")
