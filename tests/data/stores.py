"""A small table, and how it comes into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masque.data.chunks import checksum
from masque.data.schema import loads
from masque.data.store import Store
from masque.data.table import TableInfo
from masque.data.upload import Writer

Words = NDArray[np.uint64]
SCHEMA = loads("columns: {x: {type: number, range: [0, 1]}}\nlabel: {column: y, type: binary}")
WITH_IDENTIFIERS = loads("columns: {id: identifier, x: {type: number, range: [0, 1]}}")


def table(rows: int = 10) -> tuple[TableInfo, Words]:
    words = np.random.default_rng(rows).integers(0, 2**64, (rows, 2), dtype=np.uint64)
    return SCHEMA.describe(rows), words


def send(writer: Writer, words: Words, each: int = 4) -> None:
    for start in range(0, len(words), each):
        part = words[start : start + each]
        payload = part.tobytes()
        writer.write(start, len(part), payload, checksum(payload))


def stored(store: Store, name: str = "a", rows: int = 10, **options: Any) -> Words:
    info, words = table(rows)
    writer = store.begin(name, info, "upload-1", **options)
    send(writer, words)
    writer.commit()
    return words


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
