"""Cells to fixed-point numbers and back; every cell checked before it is encoded.

Scale: `DATA_SCALE` = 24 fraction bits; a number x becomes round(x * 2^24) mod 2^64, rounded to
nearest, ties to even. Numeric columns are first mapped to (x - middle) / half, so that the only
rounding is that of float64 and the last one of at most 2^-25.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masque.data.cells import category_codes, numbers
from masque.data.columns import Column, Label
from masque.data.readers import Block, Reader
from masque.data.schema import Schema
from masque.data.table import DATA_SCALE, MAX_VALUE, FeatureColumn, TableInfo
from masque.errors import RangeError

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

ONE = np.uint64(1 << DATA_SCALE)
_UNIT = float(1 << DATA_SCALE)


def to_fixed(values: Floats) -> Words:
    """`values` (any shape) with `DATA_SCALE` fraction bits, as ring elements.

    Errors: RangeError if any is NaN or beyond 2^20 in either direction.
    """
    if not bool(np.all(np.abs(values) <= MAX_VALUE)):
        raise RangeError(
            f"a value is beyond ±{MAX_VALUE:.0f} and cannot be encoded.",
            hint="Use `scaling: range` for its column.",
        )
    return np.rint(values * _UNIT).astype(np.int64).view(np.uint64)


def from_fixed(words: Words, scale: int = DATA_SCALE) -> Floats:
    """The numbers that `words` (uint64, any shape) stand for; exact below 2^53 units."""
    return words.view(np.int64).astype(np.float64) / float(1 << scale)


class Encoder:
    """Blocks of one reader to share-ready matrices [rows, columns], label columns last."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.schema: Schema = reader.schema
        self.columns = reader.schema.describe(1).columns
        self._features: Mapping[str, list[FeatureColumn]] = {
            name: column.features(name) for name, column in self.schema.columns.items()
        }

    def encode(self, block: Block) -> Words:
        """uint64 [block.rows, columns]. Errors: DataError naming row and column."""
        matrix = np.zeros((block.rows, self.columns), dtype=np.uint64)
        at = 0
        for name in self.sources:
            width = self.columns - at
            if name in self.schema.columns:
                width = len(self._features[name])
            self.encode_column(block, name, matrix[:, at : at + width])
            at += width
        return matrix

    @property
    def sources(self) -> list[str]:
        """Names of the columns that are encoded, in order, the label last."""
        label = self.schema.label
        return [name for name, made in self._features.items() if made] + (
            [label.column] if label else []
        )

    def encode_column(self, block: Block, name: str, out: Words | None = None) -> None:
        """One column of the file into `out`, or only its check. Errors: as `encode`."""
        if name in self.schema.columns:
            features = self._features[name]
            out = np.zeros((block.rows, len(features)), np.uint64) if out is None else out
            self._feature(block, name, self.schema.columns[name], features, out)
            return
        label = self.schema.label
        assert label is not None and label.column == name, "a column of the schema"
        out = np.zeros((block.rows, label.info().columns), np.uint64) if out is None else out
        self._label(block, label, out)

    def _feature(
        self, block: Block, name: str, column: Column, features: list[FeatureColumn], out: Words
    ) -> None:
        if column.numeric:
            values = numbers(
                self.reader,
                block,
                name,
                column.span,
                integer=column.type == "integer",
                clip=column.outside == "clip",
                fill=column.fill(),
            )
            out[:, 0] = to_fixed((values - features[0].middle) / features[0].half)
            return
        fill = column.missing.value
        codes = category_codes(
            self.reader,
            block,
            name,
            column.values,
            fill=fill if column.missing.rule == "value" else None,
            allow_missing=column.missing.rule == "zeros",
        )
        if column.type == "binary":
            out[:, 0] = codes.astype(np.uint64) * ONE
        else:
            _one_hot(codes, out)

    def _label(self, block: Block, label: Label, out: Words) -> None:
        info = label.info()
        if info.kind == "number":
            assert label.range is not None, "checked when the schema was read"
            values = numbers(
                self.reader, block, info.name, label.range, clip=label.outside == "clip"
            )
            out[:, 0] = to_fixed((values - info.middle) / info.half)
            return
        codes = category_codes(self.reader, block, info.name, info.classes, what="class")
        if info.kind == "binary":
            out[:, 0] = codes.astype(np.uint64) * ONE
        else:
            _one_hot(codes, out)


def _one_hot(codes: NDArray[np.int64], out: Words) -> None:
    present = np.flatnonzero(codes >= 0)
    out[present, codes[present]] = ONE


def decode(matrix: Words, info: TableInfo) -> dict[str, NDArray[Any]]:
    """A whole table back in the owner's units: encoded column name to values [rows].

    Numbers lose what fixed point rounds off: at most half * 2^-25 (and float64's own rounding).
    0/1 columns come as 0.0 and 1.0, a label with classes as their names.
    """
    assert matrix.ndim == 2 and matrix.shape[1] == info.columns, "the matrix of another table"
    values = from_fixed(matrix)
    table: dict[str, NDArray[Any]] = {
        feature.name: feature.middle + feature.half * values[:, index]
        for index, feature in enumerate(info.features)
    }
    if info.label is None:
        return table
    label = values[:, len(info.features) :]
    if info.label.kind == "number":
        table[info.label.name] = info.label.middle + info.label.half * label[:, 0]
    else:
        hot = label[:, 0] > 0.5 if info.label.kind == "binary" else label.argmax(axis=1)
        table[info.label.name] = np.array(info.label.classes)[hot.astype(np.int64)]
    return table


def read_table(reader: Reader) -> tuple[TableInfo, Words]:
    """A whole file, encoded, in memory: for held-out rows and plaintext comparisons."""
    encoder = Encoder(reader)
    matrix = np.concatenate([encoder.encode(block) for block in reader.blocks()])
    return reader.schema.describe(len(matrix)), matrix
