"""scikit-learn's small data sets as if they came from hospitals, for demos, tests and benchmarks.

Each has a schema next to this module (`schemas/<name>.yaml`) whose ranges are public: those of
the data sets' published descriptions, rounded outwards. scikit-learn is needed only to write the
files (`pip install masque[demo]`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from masque.data.faults import listed, suggestion
from masque.data.schema import Schema, load
from masque.errors import InputError, NotFound
from masque.mpc import prg

NAMES = ("breast-cancer", "diabetes", "digits", "iris", "wine")
IDENTIFIER = "patient"
"""The column that numbers the rows in files split by columns."""


@dataclass(frozen=True)
class Files:
    """What `write` wrote: one CSV and its schema a hospital, the held-out rows, all columns.

    `hospitals[i]` is described by `schemas[i]`; `heldout` (None without any) by `schema`.
    """

    hospitals: tuple[Path, ...]
    schemas: tuple[Path, ...]
    heldout: Path | None
    schema: Path


def schema_path(name: str) -> Path:
    """The shipped schema of data set `name`. Errors: NotFound, with a suggestion."""
    if name not in NAMES:
        raise NotFound(
            f"there is no bundled data set {name!r}.",
            hint=f"{suggestion(name, NAMES)} There are {listed(NAMES)}.".strip(),
            dataset=name,
        )
    return Path(__file__).with_name("schemas") / f"{name}.yaml"


def rows(name: str) -> list[list[str]]:
    """The data set as rows of text, columns in schema order, label last. Needs scikit-learn."""
    schema_path(name)
    try:
        from sklearn import datasets
    except ImportError:
        raise InputError(
            "the bundled data sets come with scikit-learn, which is not installed.",
            hint="Install it: pip install 'masque[demo]'.",
        ) from None
    loaded = {
        "breast-cancer": datasets.load_breast_cancer,
        "diabetes": lambda: datasets.load_diabetes(scaled=False),
        "digits": datasets.load_digits,
        "iris": datasets.load_iris,
        "wine": datasets.load_wine,
    }[name]()
    labels = [_text(value) for value in loaded.target]
    if name == "breast-cancer":
        labels = ["1" if label == "0" else "0" for label in labels]  # theirs counts benign as 1
    elif name in ("iris", "wine"):
        labels = [str(loaded.target_names[int(label)]) for label in labels]
    return [
        [*map(_text, features), label] for features, label in zip(loaded.data, labels, strict=True)
    ]


def _text(value: float) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)


def write(
    name: str,
    directory: str | Path,
    *,
    hospitals: int = 2,
    by: Literal["rows", "columns"] = "rows",
    holdout: float = 0.2,
    seed: int = 0,
) -> Files:
    """Write data set `name` to `directory`, split among `hospitals` by rows or by columns.

    Rows are shuffled by the public `seed`; the last `holdout` of them go to `heldout.csv`. Split
    by columns, every hospital has all (other) rows in the same order under the same identifiers,
    and the last one has the label. Errors: NotFound, InputError.
    """
    source = schema_path(name)
    schema = load(source)
    every = rows(name)
    order = prg.permutation(seed, "bundled rows", len(every))
    shuffled = [every[index] for index in order]
    if not 0 <= holdout < 1:
        raise InputError(f"holdout {holdout:g} is not a fraction.", hint="Choose 0 to 0.9.")
    training = len(every) - round(holdout * len(every))
    _check_split(name, schema, hospitals, by, training)
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    whole = target / "schema.yaml"
    whole.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    heldout = None
    if training < len(every):
        heldout = _write_csv(target / "heldout.csv", schema.needed, shuffled[training:])
    split = _by_rows if by == "rows" else _by_columns
    paths, schemas = split(target, source, schema, shuffled[:training], hospitals)
    return Files(tuple(paths), tuple(schemas), heldout, whole)


def _check_split(name: str, schema: Schema, hospitals: int, by: str, training: int) -> None:
    most = training if by == "rows" else len(schema.columns)
    if not 1 <= hospitals <= min(most, 26):
        raise InputError(
            f"{name} cannot be split among {hospitals} hospitals by {by}.",
            hint=f"Choose 1 to {min(most, 26)}.",
        )


def hospital(index: int) -> str:
    """`hospital-a`, `hospital-b`, ..."""
    return f"hospital-{chr(ord('a') + index)}"


def _by_rows(
    target: Path, source: Path, schema: Schema, table: list[list[str]], hospitals: int
) -> tuple[list[Path], list[Path]]:
    paths = []
    for index, part in enumerate(np.array_split(np.arange(len(table)), hospitals)):
        path = target / f"{hospital(index)}.csv"
        paths.append(_write_csv(path, schema.needed, [table[row] for row in part]))
    return paths, [target / "schema.yaml"] * hospitals


def _by_columns(
    target: Path, source: Path, schema: Schema, table: list[list[str]], hospitals: int
) -> tuple[list[Path], list[Path]]:
    names = schema.needed
    parts = [list(part) for part in np.array_split(np.arange(len(schema.columns)), hospitals)]
    parts[-1].append(len(names) - 1)
    paths, schemas = [], []
    for index, part in enumerate(parts):
        header = [IDENTIFIER, *(names[column] for column in part)]
        cells = [
            [f"P{row:06d}", *(values[column] for column in part)]
            for row, values in enumerate(table)
        ]
        paths.append(_write_csv(target / f"{hospital(index)}.csv", header, cells))
        path = target / f"{hospital(index)}.yaml"
        path.write_text(_part_of_schema(source, schema, header[1:]), encoding="utf-8")
        schemas.append(path)
    return paths, schemas


def _part_of_schema(source: Path, schema: Schema, names: Sequence[str]) -> str:
    """The lines of the shipped schema (one a column) that belong to `names`."""
    kept = []
    for line in source.read_text(encoding="utf-8").splitlines():
        column = line.strip().split(":")[0] if line.startswith("  ") else None
        if line.startswith("label:") and schema.needed[-1] not in names:
            continue
        if column is None or column in names:
            kept.append(line)
        if line.startswith("columns:"):
            kept.append(f"  {IDENTIFIER}: identifier")
    return "\n".join(kept) + "\n"


def _write_csv(path: Path, header: Iterable[str], table: Iterable[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(table)
    return path
