"""Look up the declared fields of a pydantic model by their path in a file."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from masque.jobs.document import Where


def declared(annotation: Any, value: Any, where: Where) -> Any:
    """The declared type of the field at `where`, going by `value` where there is a choice."""
    for part in where:
        known = fields(annotation, value)
        if isinstance(part, int):
            inner = [kind for kind in _flat(annotation) if typing.get_args(kind)]
            annotation = typing.get_args(inner[0])[0] if inner else Any
        else:
            annotation = known[part].annotation if part in known else Any
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    return annotation


def siblings(model: type[BaseModel], value: Any, where: Where) -> dict[str, Any]:
    """Fields of the section that the field at `where` is in, going by what `value` chose there."""
    section = value
    for part in where[:-1]:
        section = section[part]
    return fields(declared(model, value, where[:-1]), section)


def fields(annotation: Any, value: Any = None) -> dict[str, Any]:
    """Fields of a model or of the alternative of a union that `value` chose."""
    models = [kind for kind in _flat(annotation) if _is_model(kind)]
    return dict(_chosen(models, value).model_fields) if models else {}


def _chosen(models: Sequence[Any], value: Any) -> Any:
    kind = value.get("kind") if isinstance(value, Mapping) else value
    for model in models:
        if "kind" in model.model_fields and kind in options(model.model_fields["kind"].annotation):
            return model
    return models[0]


def _flat(annotation: Any) -> Iterator[Any]:
    """The alternatives of a type, without None and annotations."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _flat(typing.get_args(annotation)[0])
    elif origin in {typing.Union, types.UnionType}:
        for option in typing.get_args(annotation):
            yield from _flat(option)
    elif annotation is not type(None):
        yield annotation


def kinds_with(annotation: Any, name: str) -> list[str]:
    """The kinds of a union of sections whose sections have a field `name`."""
    return [
        kind
        for model in _flat(annotation)
        if _is_model(model) and name in model.model_fields
        for kind in options(model)
    ]


def options(annotation: Any) -> list[str]:
    """The values a choice allows, or the kinds of a union of sections."""
    found: list[str] = []
    for kind in _flat(annotation):
        if typing.get_origin(kind) is typing.Literal:
            found += [str(option) for option in typing.get_args(kind)]
        elif _is_model(kind) and "kind" in kind.model_fields:
            found += options(kind.model_fields["kind"].annotation)
    return found


def homes(annotation: Any, where: Where) -> Iterator[Where]:
    """The path of every field below a type."""
    for kind in _flat(annotation):
        for name, field in kind.model_fields.items() if _is_model(kind) else ():
            yield (*where, name)
            yield from homes(field.annotation, (*where, name))


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
