"""The schema file: what each column of an owner's file is, written once, in YAML.

    table: hospital-a                 # optional, for people
    csv: {delimiter: ";", decimal: ","}   # optional; these are not the defaults
    missing_markers: [NA, "?"]        # optional; an empty cell is always missing
    columns:
      patient: {type: identifier}
      age:     {type: integer, range: [0, 120], missing: middle_of_range}
      weight:  {type: number, range: [0, 300], missing: {value: 75}, outside: clip}
      smoker:  {type: binary, categories: ["no", "yes"]}
      ward:    {type: category, categories: [north, south], missing: zeros}
      notes:   ignore
    label: {column: malignant, type: binary, classes: [0, 1], positive: 1}

Ranges, categories, classes and imputed values are **public**: they travel with the shares. Every
scalar is read as text first, so that `no`, `01` and `1e3` mean what they look like.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from masque.data.columns import Column, CsvFormat, Label, Missing, Strict
from masque.data.schema_file import parse, refuse
from masque.data.table import (
    MAX_FEATURES,
    FeatureColumn,
    LabelInfo,
    Name,
    TableInfo,
    describe,
    first_repeated,
    schema_digest,
)


class Schema(Strict):
    """A whole schema file; see the module's own text."""

    table: Name | None = None
    csv: CsvFormat = CsvFormat()
    missing_markers: tuple[str, ...] = ()
    columns: dict[Name, Column] = Field(default_factory=dict)
    label: Label | None = None

    @field_validator("columns", mode="before")
    @classmethod
    def _listed_columns(cls, given: object) -> object:
        if not isinstance(given, list):
            return given
        columns: dict[str, object] = {}
        for item in given:
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise ValueError("each column of a list needs a `name`")
            if item["name"] in columns:
                raise ValueError(f"column {item['name']!r} is listed twice")
            columns[item["name"]] = {key: value for key, value in item.items() if key != "name"}
        return columns

    @model_validator(mode="after")
    def _consistent(self) -> Schema:
        if self.label and self.label.column in self.columns:
            raise ValueError(f"the label {self.label.column!r} must not be under `columns` too")
        if len(self.identifiers) > 1:
            raise ValueError(f"only one identifier column is possible, not {self.identifiers}")
        self._check_markers()
        features = self.features()
        if not features and self.label is None:
            raise ValueError("there is nothing to share: list at least one feature or a label")
        if len(features) > MAX_FEATURES:
            raise ValueError(f"{len(features)} encoded columns; at most {MAX_FEATURES} fit")
        if repeated := first_repeated(feature.name for feature in features):
            raise ValueError(f"two encoded columns would be called {repeated!r}; rename one")
        return self

    def _check_markers(self) -> None:
        listed = {name: column.values for name, column in self.columns.items()}
        if self.label is not None:
            listed[self.label.column] = self.label.classes or ()
        for name, values in listed.items():
            for marker in self.missing_markers:
                if marker in values:
                    raise ValueError(f"{marker!r} is a missing marker and a value of {name!r} too")

    @property
    def identifiers(self) -> list[str]:
        """Names of the identifier columns (none or one)."""
        return [name for name, column in self.columns.items() if column.type == "identifier"]

    @property
    def ignored(self) -> set[str]:
        """Names of the columns that are skipped, whatever they hold."""
        return {name for name, column in self.columns.items() if column.type == "ignore"}

    @property
    def needed(self) -> list[str]:
        """Names of the columns that are read, in schema order, label last."""
        names = [name for name, column in self.columns.items() if column.type != "ignore"]
        return names + ([self.label.column] if self.label else [])

    def features(self) -> tuple[FeatureColumn, ...]:
        """The encoded feature columns, in the order of the schema (not of the file)."""
        encoded: list[FeatureColumn] = []
        for name, column in self.columns.items():
            encoded.extend(column.features(name))
        return tuple(encoded)

    def label_info(self) -> LabelInfo | None:
        """The public description of the label, if there is one."""
        return self.label.info() if self.label else None

    @property
    def digest(self) -> str:
        """What must agree between data sets whose rows are stacked; as in `TableInfo`."""
        return schema_digest(self.features(), self.label_info())

    def describe(self, rows: int) -> TableInfo:
        """The `TableInfo` of `rows` rows under this schema."""
        return describe(
            rows, self.features(), self.label_info(), has_identifiers=bool(self.identifiers)
        )

    def without_label(self) -> Schema:
        """The same schema for rows that are to be predicted: the label column is ignored."""
        if self.label is None:
            return self
        columns = {**self.columns, self.label.column: Column(type="ignore")}
        return Schema.model_validate({**dict(self), "columns": columns, "label": None})


def load(path: str | Path) -> Schema:
    """The schema in the YAML file `path`; DataError naming line, key and cure if it has faults."""
    source = Path(path)
    content, lines = parse(source)
    try:
        return Schema.model_validate(content)
    except ValidationError as error:
        raise refuse(source, error, lines, MODELS) from None


def loads(text: str, name: str = "schema") -> Schema:
    """The schema in the YAML `text`; `name` stands for the file in errors."""
    source = Path(name)
    content, lines = parse(source, text)
    try:
        return Schema.model_validate(content)
    except ValidationError as error:
        raise refuse(source, error, lines, MODELS) from None


MODELS: dict[str, type[BaseModel]] = {
    "": Schema,
    "csv": CsvFormat,
    "columns.*": Column,
    "columns.*.missing": Missing,
    "label": Label,
}
"""Which model the keys under each path of the file belong to; `*` is any column."""
