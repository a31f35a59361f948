"""The reference of the job file says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from masque.jobs import conditions, policy, spec
from masque.jobs.conditions import Conditions
from masque.jobs.layers import LayerSpec
from masque.jobs.policy import Policy
from masque.jobs.rules import METRICS, STOP_METRICS
from masque.jobs.spec import JobSpec

DOCS = Path(__file__).parents[2] / "docs"
TEXT, POLICY = (DOCS / "job.md").read_text(), (DOCS / "policy.md").read_text()
BLOCKS = re.findall(r"^```yaml( \w+)?\n(.*?)^```", TEXT + POLICY, re.M | re.S)
PARSERS = {"": spec.parse, " policy": policy.parse, " conditions": conditions.parse}


@pytest.mark.parametrize(("kind", "block"), BLOCKS)
def test_every_example_is_accepted(kind: str, block: str) -> None:
    PARSERS[kind](block)


ELSEWHERE = {"early_stop", "schedule", "layers"}
"""Sections with a table of their own."""


def sections(annotation: Any) -> list[type[BaseModel]]:
    inner: list[Any] = [annotation, *get_args(annotation)]
    return [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]


def paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inner = [] if name in ELSEWHERE else sections(field.annotation)
        for section in inner:
            found += paths(section, f"{prefix}{name}.")
        if not inner:
            found.append(prefix + name)
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("path", paths(JobSpec))
def test_every_field_has_a_row(path: str) -> None:
    assert f"| `{path}` |" in TEXT


@pytest.mark.parametrize("field", sorted({*Policy.model_fields, *Conditions.model_fields}))
def test_every_rule_has_a_row(field: str) -> None:
    assert f"| `{field}` |" in POLICY


@pytest.mark.parametrize("model", METRICS)
def test_what_fits_a_model_is_listed(model: str) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{model}` |"))
    columns = [re.findall(r"`(\w+)`", column) for column in row.split("|")]
    assert columns[3] == list(METRICS[model])
    assert columns[4] == list(STOP_METRICS[model])


@pytest.mark.parametrize("layer", get_args(get_args(LayerSpec)[0]))
def test_every_layer_is_listed_with_its_fields(layer: type[BaseModel]) -> None:
    fields = dict(layer.model_fields)
    (kind,) = get_args(fields.pop("kind").annotation)
    lines = [line for line in TEXT.splitlines() if line.startswith(f"| `{kind}` |")]
    listed = next(line for line in lines if re.match(r"([^|]*\|){4}$", line))
    named = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", listed.split("|")[2]))
    assert named == list(fields)
