"""What the sections of a job file are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Names of jobs, data sets, recipients and kept models."""


def listed(value: Any) -> Any:
    """A list as the tuple that frozen sections hold."""
    return tuple(value) if isinstance(value, list) else value


def _positive_zero(value: float) -> float:
    return value + 0.0  # -0.0 + 0.0 is 0.0: one spelling for one number


Name = Annotated[str, Field(pattern=NAME)]
Names = Annotated[tuple[Name, ...], BeforeValidator(listed), Field(max_length=64)]
Real = Annotated[float, AfterValidator(_positive_zero)]


class Section(BaseModel):
    """Base of every part of a job file: unknown keys refused, values never coerced, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
