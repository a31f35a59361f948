"""What a schema says of one column, of the label and of the file's format; see `schema`."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from masque.data.table import (
    MAX_CLASSES,
    MAX_FEATURES,
    MAX_VALUE,
    FeatureColumn,
    LabelInfo,
    Name,
    first_repeated,
)

Kind = Literal["number", "integer", "category", "binary", "identifier", "ignore"]
Outside = Literal["refuse", "clip"]
Number = Annotated[float, Field(allow_inf_nan=False)]
Range = tuple[Number, Number]


class Strict(BaseModel):
    """Unchangeable, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_range(limits: Range) -> None:
    low, high = limits
    if not low < high:
        raise ValueError(f"the range [{low:g}, {high:g}] is empty; write [lowest, highest]")
    if not math.isfinite(high - low) or (high - low) / 2 == 0:
        raise ValueError(f"the range [{low:g}, {high:g}] is too wide or too narrow")


def _check_listed(what: str, names: tuple[str, ...], least: int, most: int) -> None:
    if not least <= len(names) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise ValueError(f"{what} must list {wanted} values, not {len(names)}")
    if repeated := first_repeated(names):
        raise ValueError(f"{what} lists {repeated!r} twice")
    for name in names:
        if name != name.strip():
            raise ValueError(f"{what} lists {name!r}: blanks at its ends are never compared")


class CsvFormat(Strict):
    """How the CSV file is written; the decimal sign applies to numbers only."""

    delimiter: Literal[",", ";", "\t", "|"] = ","
    decimal: Literal[".", ","] = "."

    @model_validator(mode="after")
    def _differ(self) -> CsvFormat:
        if self.delimiter == self.decimal:
            raise ValueError("delimiter and decimal cannot be the same sign")
        return self


class Missing(Strict):
    """What an empty cell becomes: refused, a public constant, or no category at all (zeros)."""

    rule: Literal["refuse", "middle_of_range", "zeros", "value"] = "refuse"
    value: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, given: object) -> object:
        if isinstance(given, str):
            return {"rule": given}
        if isinstance(given, dict) and "value" in given and "rule" not in given:
            return {"rule": "value", **given}
        return given

    @model_validator(mode="after")
    def _value_with_its_rule(self) -> Missing:
        if (self.rule == "value") != (self.value is not None):
            raise ValueError("write `missing: {value: X}`, or a rule without a value")
        return self


class Column(Strict):
    """One column of the file. `number` and `integer` need a range, `category` its categories."""

    type: Kind
    range: Range | None = None
    categories: tuple[Name, ...] | None = None
    missing: Missing = Missing()
    scaling: Literal["range", "none"] | None = None
    outside: Outside | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: object) -> object:
        return {"type": given} if isinstance(given, str) else given

    @property
    def numeric(self) -> bool:
        """Is it mapped from a range?"""
        return self.type in ("number", "integer")

    @property
    def values(self) -> tuple[str, ...]:
        """The texts a category or binary cell may hold; binary: (zero, one)."""
        if self.categories is not None:
            return self.categories
        return ("0", "1") if self.type == "binary" else ()

    @property
    def span(self) -> Range:
        """(lowest, highest) of a numeric column."""
        assert self.range is not None, "only numeric columns have a range"
        return self.range

    @model_validator(mode="after")
    def _keys_fit_the_type(self) -> Column:
        wants_range = self.numeric
        if wants_range and self.range is None:
            raise ValueError(f"type {self.type} needs `range: [lowest, highest]` (public bounds)")
        for key in ("range", "scaling", "outside"):
            if not wants_range and getattr(self, key) is not None:
                raise ValueError(f"`{key}` does not belong to type {self.type}")
        if self.categories is not None and self.type not in ("category", "binary"):
            raise ValueError(f"`categories` does not belong to type {self.type}")
        if self.type in ("identifier", "ignore") and self.missing != Missing():
            raise ValueError(f"`missing` does not belong to type {self.type}")
        if wants_range:
            self._check_numbers()
        elif self.type == "category":
            _check_listed("categories", self.values, 1, MAX_FEATURES)
        elif self.type == "binary":
            _check_listed("categories", self.values, 2, 2)
        self._check_missing()
        return self

    def _check_numbers(self) -> None:
        _check_range(self.span)
        if self.scaling == "none" and max(abs(limit) for limit in self.span) > MAX_VALUE:
            raise ValueError(
                f"without scaling the range must stay within ±{MAX_VALUE:.0f}, the largest number "
                "that can be encoded; use `scaling: range`"
            )

    def _check_missing(self) -> None:
        rule, value = self.missing.rule, self.missing.value
        if rule == "middle_of_range" and not self.numeric:
            raise ValueError("`missing: middle_of_range` needs a range")
        if rule == "zeros" and self.type != "category":
            raise ValueError("`missing: zeros` is for categories; write `missing: {value: X}`")
        if value is None:
            return
        if not self.numeric and value not in self.values:
            raise ValueError(f"the missing value {value!r} is not one of the categories")
        if self.numeric:
            self.fill()

    def fill(self) -> float | None:
        """The number an empty cell of a numeric column becomes, or None where it is refused."""
        low, high = self.span
        if self.missing.rule == "middle_of_range":
            return low + (high - low) / 2
        if self.missing.value is None:
            return None
        try:
            number = float(self.missing.value)
        except ValueError:
            raise ValueError(f"the missing value {self.missing.value!r} is no number") from None
        if not low <= number <= high:
            raise ValueError(f"the missing value {number:g} is outside the range")
        if self.type == "integer" and number != int(number):
            raise ValueError(f"the missing value {number:g} is not a whole number")
        return number

    def features(self, name: str) -> list[FeatureColumn]:
        """The encoded columns of this column, called `name` in the file."""
        if self.type == "binary":
            return [FeatureColumn(name=name, source=name, kind="binary")]
        if self.type == "category":
            return [
                FeatureColumn(name=f"{name}={value}", source=name, kind="category")
                for value in self.values
            ]
        if self.type not in ("number", "integer"):
            return []
        low, high = self.span
        kind: Literal["number", "integer"] = "integer" if self.type == "integer" else "number"
        if self.scaling == "none":
            bound = max(abs(low), abs(high))
            return [FeatureColumn(name=name, source=name, kind=kind, bound=bound)]
        half = (high - low) / 2
        return [FeatureColumn(name=name, source=name, kind=kind, middle=low + half, half=half)]


class Label(Strict):
    """The column to be predicted: a number with its range, or one of the listed classes."""

    column: Name
    type: Literal["binary", "classes", "number"]
    classes: tuple[Name, ...] | None = None
    positive: Name | None = None
    range: Range | None = None
    outside: Outside | None = None

    @model_validator(mode="after")
    def _keys_fit_the_type(self) -> Label:
        if self.type == "number":
            if self.range is None:
                raise ValueError("a number label needs `range: [lowest, highest]` (public bounds)")
            _check_range(self.range)
        elif self.range is not None or self.outside is not None:
            raise ValueError("`range` and `outside` belong to type number only")
        if self.type == "number" and self.classes is not None:
            raise ValueError("`classes` does not belong to type number")
        if self.type != "binary" and self.positive is not None:
            raise ValueError("`positive` belongs to type binary only")
        if self.type == "classes":
            _check_listed("classes", self.classes or (), 2, MAX_CLASSES)
        if self.type == "binary":
            self._check_positive()
        return self

    def _check_positive(self) -> None:
        classes = self.classes or ("0", "1")
        _check_listed("classes", classes, 2, 2)
        if self.classes is not None and self.positive is None:
            raise ValueError(f"say which class is encoded as 1: `positive: {classes[1]}`")
        if self.positive is not None and self.positive not in classes:
            raise ValueError(
                f"the positive class {self.positive!r} is not one of the classes "
                f"{list(classes)}; list both: `classes: [negative, positive]`"
            )

    def info(self) -> LabelInfo:
        """Its public description; binary classes are ordered (negative, positive)."""
        if self.type == "number":
            assert self.range is not None, "checked when the schema was read"
            half = (self.range[1] - self.range[0]) / 2
            return LabelInfo(
                name=self.column, kind="number", middle=self.range[0] + half, half=half
            )
        classes = self.classes or ("0", "1")
        if self.type == "binary" and self.positive == classes[0]:
            classes = (classes[1], classes[0])
        return LabelInfo(name=self.column, kind=self.type, classes=classes)
