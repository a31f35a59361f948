"""Do these data sets fit together, and into what? Decided from public descriptions alone.

Horizontal (`stack`): the same columns, rows below one another, in the order given. Vertical
(`join`): the same rows in the same order, columns beside one another, one of them with the label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from masque.data.faults import listed, quote
from masque.data.table import MAX_FEATURES, MAX_ROWS, FeatureColumn, LabelInfo, TableInfo, describe
from masque.errors import SpecError


@dataclass(frozen=True)
class Part:
    """Where one data set lies in the combined table.

    `features` are columns of the combined features, both for stacked and for joined data sets;
    `label` says whether its last columns are the label.
    """

    name: str
    rows: slice
    features: slice
    label: bool


@dataclass(frozen=True)
class Combined:
    """The combined table: its description and the place of each part, in the order given.

    `identifiers`: the parties must compare the parts' identifier digests before training.
    """

    how: Literal["rows", "columns"]
    info: TableInfo
    parts: tuple[Part, ...]
    identifiers: bool = False


def stack(infos: Mapping[str, TableInfo]) -> Combined:
    """Rows below one another. Errors: SpecError naming two data sets and their first difference."""
    names = _names(infos)
    first = infos[names[0]]
    for name in names[1:]:
        if infos[name].schema_digest != first.schema_digest:
            raise SpecError(
                f"the rows of {quote(names[0])} and {quote(name)} do not fit together: "
                f"{difference(names[0], first, name, infos[name])}.",
                hint="Use one schema for all data sets whose rows are stacked, and share again.",
                field="data.rows",
                datasets=(names[0], name),
            )
    parts = []
    row = 0
    every = slice(0, len(first.features))
    for name in names:
        rows = slice(row, row + infos[name].rows)
        parts.append(Part(name, rows, every, first.label is not None))
        row = rows.stop
    _check_size(row, len(first.features), "data.rows")
    return Combined("rows", describe(row, first.features, first.label), tuple(parts))


def join(infos: Mapping[str, TableInfo]) -> Combined:
    """Columns beside one another. Errors: SpecError naming the data sets and what differs."""
    names = _names(infos)
    _check_rows(names, infos)
    label_at = _label_owner(names, infos)
    _check_disjoint(names, infos)
    identifiers = _check_identifiers(names, infos)
    features: list[FeatureColumn] = []
    parts = []
    rows = infos[names[0]].rows
    for name in names:
        columns = slice(len(features), len(features) + len(infos[name].features))
        features.extend(infos[name].features)
        parts.append(Part(name, slice(0, rows), columns, name == label_at))
    _check_size(rows, len(features), "data.columns")
    info = describe(rows, tuple(features), infos[label_at].label, has_identifiers=identifiers)
    return Combined("columns", info, tuple(parts), identifiers)


def _names(infos: Mapping[str, TableInfo]) -> list[str]:
    if not infos:
        raise SpecError("no data set is named.", hint="Name at least one.", field="data")
    return list(infos)


def _check_size(rows: int, features: int, field: str) -> None:
    if rows > MAX_ROWS or features > MAX_FEATURES:
        raise SpecError(
            f"together that is {rows} rows by {features} columns; at most {MAX_ROWS} by "
            f"{MAX_FEATURES} are possible.",
            hint="Use fewer data sets.",
            field=field,
        )


def _check_rows(names: list[str], infos: Mapping[str, TableInfo]) -> None:
    for name in names[1:]:
        if infos[name].rows != infos[names[0]].rows:
            raise SpecError(
                f"{quote(names[0])} has {infos[names[0]].rows} rows and {quote(name)} has "
                f"{infos[name].rows}; columns can be joined only for the same rows.",
                hint="Agree on the rows and their order, then share again.",
                field="data.columns",
                datasets=(names[0], name),
            )


def _label_owner(names: list[str], infos: Mapping[str, TableInfo]) -> str:
    owners = [name for name in names if infos[name].label is not None]
    if len(owners) == 1:
        return owners[0]
    problem = (
        f"none of {listed(names)} has the label"
        if not owners
        else f"{listed(owners)} have a label each"
    )
    raise SpecError(
        f"{problem}; exactly one of the joined data sets must.",
        hint="Put `label:` into that owner's schema only, and share again.",
        field="data.columns",
        datasets=tuple(owners or names),
    )


def _check_disjoint(names: list[str], infos: Mapping[str, TableInfo]) -> None:
    owner: dict[str, str] = {}
    for name in names:
        info = infos[name]
        used = [*info.feature_names, *([info.label.name] if info.label else [])]
        sources = {feature.source for feature in info.features}
        for column in [*used, *sorted(sources - set(used))]:
            if column in owner:
                raise SpecError(
                    f"{quote(owner[column])} and {quote(name)} both have a column {quote(column)}.",
                    hint="Rename it or give it `type: ignore` at one of them, and share again.",
                    field="data.columns",
                    datasets=(owner[column], name),
                    column=column,
                )
        owner.update(dict.fromkeys([*used, *sources], name))


def _check_identifiers(names: list[str], infos: Mapping[str, TableInfo]) -> bool:
    having = [name for name in names if infos[name].has_identifiers]
    if having and len(having) < len(names):
        lacking = next(name for name in names if name not in having)
        raise SpecError(
            f"{quote(having[0])} was shared with identifiers and {quote(lacking)} without, so "
            "their rows cannot be checked against each other.",
            hint="Share both with an identifier column (or, if their order is sure, neither).",
            field="data.columns",
            datasets=(having[0], lacking),
        )
    return len(having) > 1


def difference(one: str, first: TableInfo, other: str, second: TableInfo) -> str:
    """In words, the first thing in which two tables' schemas differ; empty if they do not."""
    mine, theirs = first.feature_names, second.feature_names
    for name in mine:
        if name not in set(theirs):
            return f"column {quote(name)} is only in {quote(one)}"
    for name in theirs:
        if name not in set(mine):
            return f"column {quote(name)} is only in {quote(other)}"
    for index, name in enumerate(mine):
        if theirs[index] != name:
            return (
                f"the order of columns differs: column {index + 1} is {quote(name)} in "
                f"{quote(one)} and {quote(theirs[index])} in {quote(other)}"
            )
    for here, there in zip(first.features, second.features, strict=True):
        if here != there:
            return f"column {quote(here.name)} {_feature_difference(one, here, other, there)}"
    return _label_difference(one, first.label, other, second.label)


def _feature_difference(one: str, here: FeatureColumn, other: str, there: FeatureColumn) -> str:
    if here.kind != there.kind:
        return f"is {here.kind} in {quote(one)} and {there.kind} in {quote(other)}"
    if here.source != there.source:
        return f"comes from column {quote(here.source)} in {quote(one)}, not in {quote(other)}"
    return f"has the range {_range(here)} in {quote(one)} and {_range(there)} in {quote(other)}"


def _range(column: FeatureColumn | LabelInfo) -> str:
    low, high = column.middle - column.half, column.middle + column.half
    if isinstance(column, FeatureColumn) and column.bound != 1.0:
        return f"±{column.bound:.10g} (not scaled)"
    return f"[{low:.10g}, {high:.10g}]"


def _label_difference(one: str, here: LabelInfo | None, other: str, there: LabelInfo | None) -> str:
    if here == there:
        return ""
    if here is None or there is None:
        having, lacking = (other, one) if here is None else (one, other)
        return f"{quote(having)} has a label and {quote(lacking)} has none"
    if here.name != there.name:
        return (
            f"the label is {quote(here.name)} in {quote(one)} and {quote(there.name)} in "
            f"{quote(other)}"
        )
    if here.kind != there.kind:
        return f"the label is {here.kind} in {quote(one)} and {there.kind} in {quote(other)}"
    if here.classes != there.classes:
        return (
            f"the classes of the label are {listed(here.classes)} in {quote(one)} and "
            f"{listed(there.classes)} in {quote(other)}"
        )
    return (
        f"the label has the range {_range(here)} in {quote(one)} and {_range(there)} in "
        f"{quote(other)}"
    )
