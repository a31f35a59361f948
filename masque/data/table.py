"""What everybody may know about a shared data set: size, columns, public ranges, label.

A `TableInfo` travels with the shares to every party and from there into the job, so it is public
metadata: nothing in it may be computed from the rows, apart from their number. Party i's share of
the table is a uint64 matrix [rows, columns] in C order, fixed point with `DATA_SCALE` fraction
bits, features first and label columns last.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from masque.errors import DataError

DATA_SCALE: Literal[24] = 24
"""Fraction bits of every encoded value."""

MAX_VALUE = float(2**20)
"""No encoded value is larger than this, in either direction."""

MAX_ROWS = 2**31
MAX_FEATURES = 2**16 - 1
MAX_CLASSES = 1024
MAX_NAME = 256
MAX_ARCHITECTURE = 2**16

PARAMETER_BOUND = 1024.0
"""No parameter of a model that is shared as a data set is larger, in either direction."""

FeatureKind = Literal["number", "integer", "binary", "category"]
LabelKind = Literal["binary", "classes", "number"]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("names may hold printable characters only")
    return text


Printable = Annotated[str, AfterValidator(_printable)]
Name = Annotated[Printable, Field(min_length=1, max_length=MAX_NAME)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Public(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureColumn(_Public):
    """One encoded feature column: value = middle + half * encoded, |encoded| <= bound.

    `name` is unique in the table; `source` is the owner's column it comes from (a category column
    becomes one 0/1 column a category, called `source=category`).
    """

    name: Annotated[Printable, Field(min_length=1, max_length=2 * MAX_NAME + 1)]
    source: Name
    kind: FeatureKind
    middle: Finite = 0.0
    half: Positive = 1.0
    bound: Annotated[float, Field(gt=0, le=MAX_VALUE)] = 1.0


PARAMETER = FeatureColumn(
    name="parameter", source="parameter", kind="number", bound=PARAMETER_BOUND
)
"""The only column of a model that is shared as a data set."""


class LabelInfo(_Public):
    """What is to be predicted, in the last column or columns of the table.

    `binary`: one 0/1 column, `classes` = (negative, positive). `classes`: one 0/1 column a class,
    in their order. `number`: one column, value = middle + half * encoded, |encoded| <= 1.
    """

    name: Name
    kind: LabelKind
    classes: Annotated[tuple[Name, ...], Field(max_length=MAX_CLASSES)] = ()
    middle: Finite = 0.0
    half: Positive = 1.0

    @property
    def columns(self) -> int:
        """How many encoded columns the label takes."""
        return len(self.classes) if self.kind == "classes" else 1

    @model_validator(mode="after")
    def _classes_fit(self) -> LabelInfo:
        least = {"binary": 2, "classes": 2, "number": 0}[self.kind]
        most = {"binary": 2, "classes": MAX_CLASSES, "number": 0}[self.kind]
        if not least <= len(self.classes) <= most:
            raise ValueError(f"a {self.kind} label cannot have {len(self.classes)} classes")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is listed twice")
        return self


class ModelInfo(_Public):
    """Whose parameters a table holds, one a row, if it is a network that training may start from.

    `architecture`: canonical JSON of its input shape and layers. `columns` and `predicted`: SHA-256
    (hex) of the columns that it reads, with their transforms, and of its label.
    """

    architecture: Annotated[str, Field(max_length=MAX_ARCHITECTURE)]
    columns: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    predicted: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    standardized: bool


class TableInfo(_Public):
    """Public metadata of one shared data set; see the module's own text.

    `schema_digest` is the SHA-256 (hex) of all that must agree between data sets whose rows are to
    be stacked: feature columns in order, label, scale. It is derived from them (`describe`), and a
    `TableInfo` whose digest does not fit its columns is refused.
    """

    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    features: Annotated[tuple[FeatureColumn, ...], Field(max_length=MAX_FEATURES)]
    label: LabelInfo | None = None
    scale: Literal[24] = DATA_SCALE
    has_identifiers: bool = False
    schema_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    model: ModelInfo | None = None

    @property
    def columns(self) -> int:
        """Columns of the share matrix: features, then label columns."""
        return len(self.features) + (self.label.columns if self.label else 0)

    @property
    def share_bytes(self) -> int:
        """Bytes of one party's share matrix."""
        return self.rows * self.columns * 8

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded feature columns, in order."""
        return tuple(feature.name for feature in self.features)

    @model_validator(mode="after")
    def _consistent(self) -> TableInfo:
        if self.columns == 0:
            raise ValueError("a table needs at least one feature or a label")
        repeated = first_repeated(self.feature_names)
        if repeated is not None:
            raise ValueError(f"column {repeated!r} appears twice")
        if self.label and self.label.name in {feature.source for feature in self.features}:
            raise ValueError(f"the label {self.label.name!r} is among the features too")
        if self.model is not None and self.features != (PARAMETER,):
            raise ValueError("a model has one column, of its parameters")
        if self.model is not None and (self.label is not None or self.has_identifiers):
            raise ValueError("a model has neither label nor identifiers")
        if self.schema_digest != schema_digest(self.features, self.label):
            raise ValueError("schema_digest does not belong to these columns")
        return self


def describe(
    rows: int,
    features: tuple[FeatureColumn, ...],
    label: LabelInfo | None,
    *,
    has_identifiers: bool = False,
) -> TableInfo:
    """The `TableInfo` of `rows` rows with these columns, digest included."""
    return TableInfo(
        rows=rows,
        features=features,
        label=label,
        has_identifiers=has_identifiers,
        schema_digest=schema_digest(features, label),
    )


def describe_model(rows: int, model: ModelInfo) -> TableInfo:
    """The `TableInfo` of a model with so many parameters."""
    digest = schema_digest((PARAMETER,), None)
    return TableInfo(rows=rows, features=(PARAMETER,), schema_digest=digest, model=model)


def schema_digest(features: tuple[FeatureColumn, ...], label: LabelInfo | None) -> str:
    """SHA-256 (hex) over canonical JSON of the encoded columns, their transforms and the label."""
    content = {
        "format": "masque table 1",
        "scale": DATA_SCALE,
        "features": [feature.model_dump(mode="json") for feature in features],
        "label": label.model_dump(mode="json") if label else None,
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()


def table_digest(info: TableInfo) -> str:
    """SHA-256 (hex) of a data set's public description."""
    return hashlib.sha256(canonical_json(info.model_dump(mode="json"))).hexdigest()


def canonical_json(content: Any) -> bytes:
    """One spelling of `content`: sorted keys, no spaces, ASCII, no NaN; -0.0 is written 0.0."""
    text = json.dumps(
        _without_negative_zero(content),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
        allow_nan=False,
    )
    return text.encode("ascii")


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before, or None."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def parse_table(text: str | bytes) -> TableInfo:
    """The `TableInfo` written by `model_dump_json`; DataError if it is not one."""
    try:
        return TableInfo.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "table"
        raise DataError(
            f"this description of a data set is not valid: {where}: {first['msg']}.",
            hint="Share the data again with the same version of Masque as the party's.",
            field=where,
        ) from None


def _without_negative_zero(content: Any) -> Any:
    if isinstance(content, float) and not math.copysign(1.0, content) > 0 and content == 0.0:
        return 0.0
    if isinstance(content, Mapping):
        return {key: _without_negative_zero(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_negative_zero(value) for value in content]
    return content
