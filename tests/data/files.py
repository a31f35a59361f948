"""Small files and schemas for the tests of data's way in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from masque.data.schema import Schema, loads
from masque.data.shares import ShareStream, share_stream
from masque.errors import DataError
from masque.mpc import prg, sharing

PATIENTS = """
columns:
  patient: identifier
  age:     {type: integer, range: [0, 120], missing: middle_of_range}
  weight:  {type: number, range: [0, 300], missing: {value: 75}}
  smoker:  {type: binary, categories: [no, yes]}
  ward:    {type: category, categories: [north, 01], missing: zeros}
  notes:   ignore
label: {column: malignant, type: binary}
"""
HEADER = "notes,patient,age,weight,smoker,ward,malignant\n"
GOOD = "fine,p1,50,80.5,yes,north,1\n"

Words = NDArray[np.uint64]


def written(directory: Path, content: str | bytes, name: str = "data.csv") -> Path:
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def stream(path: Path, schema: str | Schema = PATIENTS, parties: int = 2) -> ShareStream:
    loaded = schema if isinstance(schema, Schema) else loads(schema)
    return share_stream(path, loaded, parties, prg.reader(bytes(32)))


def joined(shared: ShareStream) -> Words:
    return np.concatenate([sharing.join(chunk.shares) for chunk in shared.chunks()])


def refused(path: Path, schema: str = PATIENTS) -> DataError:
    """The fault that sharing `path` is refused with."""
    with pytest.raises(DataError) as caught:
        list(stream(path, schema).chunks())
    return caught.value
