"""Parquet files, a few thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from masque.data.blocks import Reader, check_names, system_fault
from masque.data.faults import fault
from masque.data.schema import Schema
from masque.errors import DataError

BUFFER_BYTES = 2**20
CELLS = 2**17
"""Cells in one block: 1 MiB of numbers."""


class ParquetReader(Reader):
    """A Parquet file; nested, date and binary columns are refused where they are needed."""

    def __init__(self, path: Path, schema: Schema) -> None:
        super().__init__(path, schema)
        layout = read_layout(path)
        check_names(path, layout.names, schema)
        for name in schema.needed:
            self._check_type(name, layout.field(name).type)

    def _check_type(self, name: str, kind: Any) -> None:
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
        number = (
            pa.types.is_integer(inner)
            or pa.types.is_floating(inner)
            or pa.types.is_decimal(inner)
            or pa.types.is_boolean(inner)
        )
        if not (text or number or pa.types.is_null(inner)):
            raise fault(
                self.path,
                f"holds {kind}, which cannot be encoded.",
                "Convert it to numbers or text, or give it `type: ignore` in the schema.",
                column=name,
            )

    def _batches(self) -> Iterator[Any]:
        needed = self.schema.needed
        with _open(self.path) as file:
            size = max(1, CELLS // len(needed))
            try:
                for batch in file.iter_batches(size, columns=needed, use_threads=False):
                    selected = batch.select(needed)
                    selected.validate(full=True)  # text may be anything but UTF-8
                    yield selected
            except (pa.ArrowException, OSError, MemoryError, UnicodeError) as error:
                raise fault(
                    self.path,
                    "is damaged and cannot be read to its end.",
                    f"Copy or export it again. The reader says: {str(error)[:200]}",
                ) from None


def read_layout(path: Path) -> Any:
    """The Arrow schema of the file. Errors: DataError if it is not whole."""
    with _open(path) as file:
        try:
            layout = file.schema_arrow
            _ = layout.names
        except (pa.ArrowException, UnicodeError):
            raise _not_whole(path) from None
        return layout


def _open(path: Path) -> Any:
    try:
        return pa.parquet.ParquetFile(str(path), buffer_size=BUFFER_BYTES)
    except (pa.ArrowException, MemoryError, UnicodeError):
        raise _not_whole(path) from None
    except OSError as error:
        raise system_fault(path, error) from None


def _not_whole(path: Path) -> DataError:
    return fault(path, "is not a whole Parquet file.", "It may be cut short; copy it again.")
