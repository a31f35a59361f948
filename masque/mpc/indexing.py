"""Numpy's indexing as parameters of a node: hashable, and written alike everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from masque.mpc.types import Shape

Params = tuple[object, ...]


def indexed(shape: Shape, index: object) -> tuple[Shape, Params]:
    """The shape of x[index], and the parameters of an `index` node."""
    example = np.empty(shape, dtype=np.bool_)[index]  # type: ignore[call-overload]
    params: list[object] = []
    for key in index if isinstance(index, tuple) else (index,):
        if isinstance(key, slice):
            params.append(("slice", key.start, key.stop, key.step))
        elif isinstance(key, np.ndarray):
            params.append(("take", key.shape, tuple(key.reshape(-1).tolist())))
        else:
            params.append(key)
    return np.shape(example), tuple(params)


@cache
def key_of(params: Params) -> tuple[Any, ...]:
    """The index that `indexed` made parameters of."""
    found: list[Any] = []
    for part in params:
        match part:
            case ("slice", *ends):
                found.append(slice(*ends))
            case ("take", shape, places):
                found.append(np.array(places, dtype=np.intp).reshape(shape))
            case _:
                found.append(part)
    return tuple(found)


def placements(shape: Shape, shapes: Sequence[Shape], indices: Sequence[object]) -> Params:
    """The parameters of a `place` node: where parts of these shapes go, no element twice."""
    params = []
    taken = np.zeros(shape, dtype=np.bool_)
    for part, index in zip(shapes, indices, strict=True):
        region, index_params = indexed(shape, index)
        assert region == part, f"an array of {part} cannot be placed where {region} is due"
        taken[key_of(index_params)] = True
        params.append(index_params)
    count = sum(int(np.prod(part)) for part in shapes)
    assert np.count_nonzero(taken) == count, "two elements cannot be placed at one place"
    return tuple(params)
