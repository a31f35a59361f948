"""Jobs and data sets that the tests of this folder vary."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from masque.data.table import FeatureColumn, LabelInfo, TableInfo, describe
from masque.jobs.bound import BoundJob, Recipient, bind
from masque.jobs.fit import SharedTable
from masque.jobs.spec import JobSpec, from_values

MINIMAL = """\
name: breast-cancer
data: {rows: [hospital-a, hospital-b], label: malignant, standardize: true, holdout: 0.2}
model: {kind: logistic_regression, l2: 0.001}
training:
  epochs: 30
  batch_size: 32
  optimizer: {kind: sgd, learning_rate: 0.1, momentum: 0.9}
  seed: 7
reveal: {metrics: [accuracy, auc], to: [analyst]}
model_output: {sealed_to: [analyst]}
"""

VALUES: dict[str, Any] = {
    "name": "breast-cancer",
    "data": {
        "rows": ["hospital-a", "hospital-b"],
        "label": "malignant",
        "standardize": True,
        "holdout": 0.2,
    },
    "model": {"kind": "logistic_regression", "l2": 0.001},
    "training": {
        "epochs": 30,
        "batch_size": 32,
        "optimizer": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9},
        "seed": 7,
    },
    "reveal": {"metrics": ["accuracy", "auc"], "to": ["analyst"]},
    "model_output": {"sealed_to": ["analyst"]},
}

LABEL = LabelInfo(name="malignant", kind="binary", classes=("no", "yes"))
KEYS = {"analyst": "ab" * 32, "auditor": "cd" * 32}
PEOPLE = [Recipient(name=name, key=key) for name, key in KEYS.items()]


def values(**changes: Any) -> dict[str, Any]:
    """VALUES with fields replaced by dotted path (`__` for the dot); `...` removes one."""
    changed = copy.deepcopy(VALUES)
    for path, value in changes.items():
        *sections, last = path.split("__")
        section = changed
        for key in sections:
            section = section.setdefault(key, {})
        if value is ...:
            section.pop(last, None)
        else:
            section[last] = value
    return changed


def job(**changes: Any) -> JobSpec:
    """The job of VALUES with changes."""
    return from_values(values(**changes))


def features(*names: str, **options: Any) -> tuple[FeatureColumn, ...]:
    """Number columns with these names."""
    return tuple(FeatureColumn(name=name, source=name, kind="number", **options) for name in names)


def table(
    name: str,
    rows: int = 100,
    *columns: str,
    label: LabelInfo | None = LABEL,
    identifiers: bool = False,
    upload: str = "",
) -> SharedTable:
    """A shared data set."""
    info: TableInfo = describe(
        rows, features(*(columns or ("age", "size"))), label, has_identifiers=identifiers
    )
    return SharedTable(name=name, upload=upload or f"upload-of-{name}", info=info)


HOSPITALS = [table("hospital-a"), table("hospital-b", 150)]


def bound(
    spec: JobSpec | None = None, tables: list[SharedTable] | None = None, **changes: Any
) -> BoundJob:
    """The job of VALUES bound to two hospitals and two parties."""
    services: dict[str, Any] = {
        "parties": ["party-0", "party-1"],
        "recipients": PEOPLE,
        "job_id": "job-1",
        "attempt": 1,
        "dealer": "dealer",
        "coordinator": "coordinator",
        "client": "analyst",
    } | changes
    bind_it: Callable[..., BoundJob] = bind
    return bind_it(spec or job(), HOSPITALS if tables is None else tables, **services)
