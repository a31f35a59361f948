"""In which fields two bound jobs differ, in words: for refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from masque.jobs.bound import BoundJob
from masque.jobs.complaints import shown

MOST_DIFFERENCES = 5
"""Differences between two jobs that are told at once."""


def difference(mine: BoundJob, theirs: BoundJob) -> list[str]:
    """In words, the first fields in which two bound jobs differ; empty if they are the same."""
    here, there = (_by_name(job.model_dump(mode="json")) for job in (mine, theirs))
    found = list(_walk(here, there, ""))
    if not found and mine.canonical() != theirs.canonical():
        return ["they are spelt differently"]
    if len(found) > MOST_DIFFERENCES:
        found[MOST_DIFFERENCES:] = [f"and {len(found) - MOST_DIFFERENCES} more"]
    return found


def _by_name(value: Any) -> Any:
    """Lists of named things as mappings by name, so that differences are told by name."""
    if isinstance(value, dict):
        return {key: _by_name(inner) for key, inner in value.items()}
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return value
    names = [inner.get("name") for inner in value]
    if None in names or len(set(names)) != len(names):
        return [_by_name(inner) for inner in value]
    return {f"[{name}]": _by_name(inner) for name, inner in zip(names, value, strict=True)}


def _places(value: dict[str, Any]) -> list[str]:
    """The named things of a list in their order; nothing for what was no list."""
    return [key for key in value if key.startswith("[")]


def _walk(mine: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in sorted({*mine, *theirs}):
            step = f"{path}{key}" if key.startswith("[") or not path else f"{path}.{key}"
            yield from _walk(mine.get(key), theirs.get(key), step)
        if _places(mine) != _places(theirs) and mine.keys() == theirs.keys():
            yield f"{path} is in another order"
    elif mine == theirs and type(mine) is type(theirs):
        return
    elif path.endswith((".key", ".proof")):
        yield f"{path} differs"
    else:
        yield f"{path} is {shown(mine)} here and {shown(theirs)} there"
