"""The reference of the job file says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from masque.jobs import policy, spec
from masque.jobs.policy import Policy
from masque.jobs.rules import METRICS, STOP_METRICS
from masque.jobs.spec import JobSpec

TEXT = (Path(__file__).parents[2] / "docs" / "job.md").read_text()
BLOCKS = re.findall(r"^```yaml( policy)?\n(.*?)^```", TEXT, re.M | re.S)


@pytest.mark.parametrize(("kind", "block"), BLOCKS)
def test_every_example_is_accepted(kind: str, block: str) -> None:
    if kind:
        policy.parse(block)
    else:
        spec.parse(block)


def paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inner: list[Any] = [field.annotation, *get_args(field.annotation)]
        sections = [
            kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if len(sections) == 1 and name not in {"early_stop", "schedule"}:
            found += paths(sections[0], f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


@pytest.mark.parametrize("path", [*paths(JobSpec), *Policy.model_fields])
def test_every_field_has_a_row(path: str) -> None:
    assert f"| `{path}` |" in TEXT


@pytest.mark.parametrize("model", METRICS)
def test_what_fits_a_model_is_listed(model: str) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{model}` |"))
    columns = [re.findall(r"`(\w+)`", column) for column in row.split("|")]
    assert columns[3] == list(METRICS[model])
    assert columns[4] == list(STOP_METRICS[model])
