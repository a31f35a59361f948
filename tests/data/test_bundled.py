"""The bundled data sets: shipped schemas fit, splits join to the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from masque.data import bundled
from masque.data.encode import decode, read_table
from masque.data.partitioning import join, stack
from masque.data.readers import open_table
from masque.data.schema import load
from masque.errors import InputError, NotFound
from masque.mpc import sharing
from tests.data.files import joined, stream

SHAPES = {
    "breast-cancer": (569, 30, 1),
    "diabetes": (442, 10, 1),
    "digits": (1797, 64, 10),
    "iris": (150, 4, 3),
    "wine": (178, 13, 3),
}


@pytest.mark.parametrize("name", bundled.NAMES)
def test_rows_split_among_hospitals_stack_to_the_whole(tmp_path: Path, name: str) -> None:
    files = bundled.write(name, tmp_path, hospitals=3)
    shared = [
        stream(path, load(schema))
        for path, schema in zip(files.hospitals, files.schemas, strict=True)
    ]
    combined = stack(
        {path.stem: one.info for path, one in zip(files.hospitals, shared, strict=True)}
    )
    assert files.heldout is not None
    held, _ = read_table(open_table(files.heldout, load(files.schema)))
    rows, features, label = SHAPES[name]
    assert combined.info.rows + held.rows == rows
    assert held.rows == round(0.2 * rows)
    assert (len(combined.info.features), combined.info.columns) == (features, features + label)
    assert held.schema_digest == combined.info.schema_digest


@pytest.mark.parametrize("name", bundled.NAMES)
def test_columns_split_among_hospitals_join_to_the_whole(tmp_path: Path, name: str) -> None:
    whole = bundled.write(name, tmp_path / "rows", hospitals=1, holdout=0)
    assert whole.heldout is None
    info, matrix = read_table(open_table(whole.hospitals[0], load(whole.schema)))
    files = bundled.write(name, tmp_path / "columns", hospitals=2, by="columns", holdout=0)
    shared = [
        stream(path, load(schema))
        for path, schema in zip(files.hospitals, files.schemas, strict=True)
    ]
    combined = join(
        {path.stem: one.info for path, one in zip(files.hospitals, shared, strict=True)}
    )
    assert combined.identifiers
    assert combined.info.features == info.features
    assert combined.info.label == info.label
    parts = [joined(one) for one in shared]
    last = len(shared[-1].info.features)
    beside = np.hstack([*parts[:-1], parts[-1][:, :last], parts[-1][:, last:]])
    assert np.array_equal(beside, matrix)
    digests = {
        bytes(sharing.join(one.identifiers)) for one in shared if one.identifiers is not None
    }
    assert len(digests) == 1


def test_malignant_is_one_and_values_come_back(tmp_path: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    loaded = load_breast_cancer()
    files = bundled.write("breast-cancer", tmp_path, hospitals=1, holdout=0)
    info, matrix = read_table(open_table(files.hospitals[0], load(files.schema)))
    table = decode(matrix, info)
    assert sorted(table["mean_radius"].round(3)) == sorted(loaded.data[:, 0].round(3))
    assert (table["malignant"] == "1").sum() == (loaded.target == 0).sum() == 212


def test_the_split_is_repeatable(tmp_path: Path) -> None:
    one = bundled.write("iris", tmp_path / "one")
    two = bundled.write("iris", tmp_path / "two")
    other = bundled.write("iris", tmp_path / "other", seed=1)
    assert one.hospitals[0].read_bytes() == two.hospitals[0].read_bytes()
    assert one.hospitals[0].read_bytes() != other.hospitals[0].read_bytes()


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r'Did you mean "breast-cancer"\?'):
        bundled.write("breast_cancer", tmp_path)
    for hospitals in (0, 27):
        with pytest.raises(InputError, match="cannot be split"):
            bundled.write("iris", tmp_path, hospitals=hospitals)
    with pytest.raises(InputError, match="cannot be split among 5"):
        bundled.write("iris", tmp_path, hospitals=5, by="columns")
    for holdout in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="holdout"):
            bundled.write("iris", tmp_path, holdout=holdout)
