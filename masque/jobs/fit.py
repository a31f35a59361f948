"""Do the data sets fit the job and each other? Judged on public metadata alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from masque.data.table import FeatureColumn, LabelInfo, TableInfo
from masque.jobs.complaints import Complaint
from masque.jobs.models import LinearSpec, SequentialSpec
from masque.jobs.rules import complaints_about_metrics, complaints_about_stop
from masque.jobs.section import Name, Section
from masque.jobs.spec import JobSpec

LABEL_KINDS = {
    "linear_regression": "number",
    "logistic_regression": "binary",
    "softmax_regression": "classes",
}
"""The kind of label that each kind of linear model predicts."""

LEAST_ROWS = 2
"""Fewest rows of a held-out or validation part."""

MOST_STEPS = 20_000_000
"""Most mini-batches of a job: its streams last a day at most, 4 ms each."""

MOST_ROUNDS = 50_000
"""Most training rounds of a job: their names travel in one message."""

LARGEST_CONDITIONS = 16_384
"""Characters of an owner's conditions with all that is signed, and the signature."""

Upload = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]


class SharedTable(Section):
    """One upload of a data set: its name, the id of the upload, its public metadata.

    All parties hold shares of the same upload, or their shares do not belong together. `conditions`
    is what its owner has signed (`masque.jobs.conditions.Statement`, with the signature), if
    anything.
    """

    name: Name
    upload: Upload
    info: TableInfo
    conditions: Annotated[str, Field(max_length=LARGEST_CONDITIONS)] = ""


@dataclass(frozen=True)
class Split:
    """How many rows are for what. The public seed decides which."""

    training: int
    validation: int
    holdout: int

    @property
    def rows(self) -> int:
        """All rows."""
        return self.training + self.validation + self.holdout


def split(spec: JobSpec, rows: int) -> Split:
    """Rows to hold out (rounded half up), of the rest those to validate on, the others to train."""
    holdout = math.floor(rows * spec.data.holdout + 0.5)
    stop = spec.training.early_stop
    validation = math.floor((rows - holdout) * stop.validation + 0.5) if stop else 0
    return Split(rows - holdout - validation, validation, holdout)


def joined_rows(spec: JobSpec, infos: Sequence[TableInfo]) -> int:
    """Rows of the data sets together: stacked ones add up, joined ones share them."""
    counts = [info.rows for info in infos]
    return sum(counts) if spec.data.partition == "rows" else counts[0]


def joined_label(spec: JobSpec, infos: Sequence[TableInfo]) -> LabelInfo | None:
    """The label of the data sets together, or None."""
    labels = [info.label for info in infos if info.label is not None]
    return next((label for label in labels if label.name == spec.data.label), None)


def joined_features(spec: JobSpec, infos: Sequence[TableInfo]) -> tuple[FeatureColumn, ...]:
    """The feature columns of the data sets together, in order."""
    if spec.data.partition == "rows":
        return infos[0].features
    return tuple(feature for info in infos for feature in info.features)


def complaints_about_fit(
    spec: JobSpec, tables: Sequence[SharedTable], start: SharedTable | None = None
) -> Iterator[Complaint]:
    """What does not fit between the job, its data sets in the job's order, and its first model."""
    found = [*_models(spec, tables)] or [*_data(spec, tables)]
    yield from found
    if start is not None and not found:
        yield from _start(spec, tables, start)


def _models(spec: JobSpec, tables: Sequence[SharedTable]) -> Iterator[Complaint]:
    """Models where data sets are due."""
    for index, table in enumerate(tables):
        if table.info.model is not None:
            yield Complaint(
                ("data", spec.data.partition, index),
                f"{table.name!r} is a model, not a data set",
                "Name it in model.start_from to start from it.",
            )


def _start(spec: JobSpec, tables: Sequence[SharedTable], start: SharedTable) -> Iterator[Complaint]:
    """Does the model that the job starts from fit it?"""
    from masque.jobs.networks import network_of  # kernels, which linear models do without here
    from masque.jobs.starting import columns_of, complaints_about_start, model_info

    infos = [table.info for table in tables]
    features, label = joined_features(spec, infos), joined_label(spec, infos)
    assert isinstance(spec.model, SequentialSpec) and label is not None, "judged before"
    network = network_of(spec.model, len(features))
    standardized = spec.data.standardize
    due = model_info(network, columns_of(features), label, standardized=standardized)
    yield from complaints_about_start(start.name, start.info, network, due)


def _data(spec: JobSpec, tables: Sequence[SharedTable]) -> Iterator[Complaint]:
    """What does not fit between the job and its data sets."""
    infos = [table.info for table in tables]
    if spec.data.partition == "rows":
        together = list(_stacked(spec, tables))
    else:
        together = list(_joined(spec, tables))
    yield from together
    yield from _private(spec, tables)
    label = joined_label(spec, infos)
    features = joined_features(spec, infos)
    if not features:
        yield Complaint(("data",), "has no feature column", "Share data sets with features.")
    if isinstance(spec.model, SequentialSpec):
        yield from _network(spec, spec.model, len(features), label)
    elif label is not None:
        yield from _label_kind(spec.model, label)
    if not together:
        yield from _rows(spec, split(spec, joined_rows(spec, infos)))


def _stacked(spec: JobSpec, tables: Sequence[SharedTable]) -> Iterator[Complaint]:
    first = tables[0]
    for index, table in enumerate(tables):
        label = table.info.label
        if label is None or label.name != spec.data.label:
            yield _no_label(spec, table)
        elif table.info.schema_digest != first.info.schema_digest:
            yield Complaint(
                ("data", "rows", index),
                f"does not fit on {first.name!r}: {_schemas_differ(first, table)}",
                f"Share {table.name!r} again with the schema of {first.name!r}.",
            )


def _joined(spec: JobSpec, tables: Sequence[SharedTable]) -> Iterator[Complaint]:
    first = tables[0]
    owners: dict[str, str] = {}
    for index, table in enumerate(tables):
        where = ("data", "columns", index)
        if table.info.rows != first.info.rows:
            yield Complaint(
                where,
                f"has {table.info.rows} rows, but {first.name!r} has {first.info.rows}",
                "Data sets joined by columns must have the same rows in the same order.",
            )
        if table.info.has_identifiers != first.info.has_identifiers:
            having, lacking = (first, table) if first.info.has_identifiers else (table, first)
            yield Complaint(
                where,
                f"cannot be matched: {having.name!r} was shared with identifiers,"
                f" {lacking.name!r} without",
                f"Share {lacking.name!r} again with an identifier column.",
            )
        if table.info.label is not None and table.info.label.name != spec.data.label:
            yield Complaint(
                where,
                f"has the label {table.info.label.name!r} besides",
                f"Share it with {table.info.label.name!r} as a feature, or without it.",
            )
        for name in table.info.feature_names:
            if name in owners:
                yield Complaint(
                    where, f"has the column {name!r} that {owners[name]!r} has", "Rename one."
                )
                break
        owners |= dict.fromkeys(table.info.feature_names, table.name)
    labelled = [t.name for t in tables if t.info.label and t.info.label.name == spec.data.label]
    if not labelled:
        yield _no_label(spec, *tables)
    elif len(labelled) > 1:
        yield Complaint(
            ("data", "label"),
            f"{spec.data.label!r} is in {' and '.join(map(repr, labelled))}",
            "Share it in one of them only.",
        )


def _private(spec: JobSpec, tables: Sequence[SharedTable]) -> Iterator[Complaint]:
    """Whether identifiers match is opened, and is no more private than they are."""
    joined = spec.data.partition == "columns"
    if spec.privacy and joined and any(table.info.has_identifiers for table in tables):
        yield Complaint(
            ("data", "columns"),
            "were shared with identifiers: whether they match would be opened without noise",
            "Share them again without an identifier column, in an order that was agreed on.",
        )


def _no_label(spec: JobSpec, *tables: SharedTable) -> Complaint:
    names = ", ".join(repr(table.name) for table in tables)
    features = {feature.source for table in tables for feature in table.info.features}
    labels = sorted({table.info.label.name for table in tables if table.info.label})
    if spec.data.label in features:
        cure = "It is a feature there: mark it as the label in the schema and share again."
    elif labels:
        cure = f"The label there is {' or '.join(map(repr, labels))}."
    else:
        cure = "Add it to the schema as the label and share again."
    return Complaint(("data", "label"), f"{spec.data.label!r} is not the label of {names}", cure)


def _network(
    spec: JobSpec, model: SequentialSpec, features: int, label: LabelInfo | None
) -> Iterator[Complaint]:
    from masque.jobs.networks import LOSSES, complaints_about_data

    if features:
        yield from complaints_about_data(model, features, label)
    if label is not None and model.loss is None:  # otherwise judged without the label
        yield from complaints_about_metrics(LOSSES[label.kind], spec.reveal)
        yield from complaints_about_stop(LOSSES[label.kind], spec.training)


def label_in_words(label: LabelInfo) -> str:
    """What a label is, for an error text."""
    if label.kind == "number":
        return "a number"
    if label.kind == "binary":
        return "binary"
    return f"one of {len(label.classes)} classes"


def _label_kind(model: LinearSpec, label: LabelInfo) -> Iterator[Complaint]:
    if LABEL_KINDS[model.kind] == label.kind:
        return
    fitting = [kind for kind, predicted in LABEL_KINDS.items() if predicted == label.kind]
    yield Complaint(
        ("model", "kind"),
        f"cannot be {model.kind}: the label {label.name!r} is {label_in_words(label)}",
        f"It can be {' or '.join(fitting)}." if fitting else "",
    )


def _rows(spec: JobSpec, parts: Split) -> Iterator[Complaint]:
    if spec.data.holdout > 0 and parts.holdout < LEAST_ROWS:
        yield Complaint(
            ("data", "holdout"),
            f"leaves {parts.holdout} of {parts.rows} rows to evaluate on",
            f"At least {LEAST_ROWS} are needed.",
        )
    stop = spec.training.early_stop
    if stop is not None and parts.validation < LEAST_ROWS:
        yield Complaint(
            ("training", "early_stop", "validation"),
            f"leaves {parts.validation} of {parts.rows} rows to validate on",
            f"At least {LEAST_ROWS} are needed.",
        )
    batch = spec.training.batch_size
    if parts.training < batch:
        yield Complaint(
            ("training", "batch_size"),
            f"is {batch}, but only {parts.training} rows are left to train on",
            f"It can be at most {parts.training}." if parts.training > 0 else "Share more rows.",
        )
        return
    batches = -(-parts.training // batch)
    each = spec.training.batches_per_round
    if each is not None and each > batches:
        yield Complaint(
            ("training", "batches_per_round"),
            f"is {each}, but an epoch has {batches} batches",
            "Remove it to make a round an epoch.",
        )
        return
    epochs = spec.training.epochs
    if epochs * batches > MOST_STEPS:
        yield Complaint(
            ("training", "epochs"),
            f"makes {epochs} x {batches} batches, which is more than {MOST_STEPS}",
            "Lower it, or raise training.batch_size.",
        )
    elif each is not None and epochs * -(-batches // each) > MOST_ROUNDS:
        yield Complaint(
            ("training", "batches_per_round"),
            f"makes {epochs * -(-batches // each)} rounds, which is more than {MOST_ROUNDS}",
            "Raise it, or remove it to make a round an epoch.",
        )


def _schemas_differ(first: SharedTable, second: SharedTable) -> str:
    """The first difference of two schemas in words."""
    one, two = first.info, second.info
    for position, (a, b) in enumerate(zip(one.features, two.features, strict=False), start=1):
        if a.name != b.name:
            return (
                f"feature column {position} is {a.name!r} in {first.name!r}"
                f" and {b.name!r} in {second.name!r}"
            )
        if a != b:
            return f"column {a.name!r} {_fields_differ(a, b, first.name, second.name)}"
    if len(one.features) != len(two.features):
        return (
            f"{first.name!r} has {len(one.features)} feature columns,"
            f" {second.name!r} has {len(two.features)}"
        )
    label = one.label.name if one.label else ""
    return f"the label {label!r} {_fields_differ(one.label, two.label, first.name, second.name)}"


def _fields_differ(a: Any, b: Any, first: str, second: str) -> str:
    for field in type(a).model_fields:
        mine, other = getattr(a, field), getattr(b, field)
        if mine != other:
            return f"has {field} {mine!r} in {first!r} and {other!r} in {second!r}"
    return "differs"
