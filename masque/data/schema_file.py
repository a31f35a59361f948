"""Reading the schema's YAML: every scalar as text, every key with its line, every fault in words.

YAML's own guesses (`no` is false, `01` is 1, `1e3` is text) are the wrong ones for categories and
classes, so nothing is guessed: the schema's types decide. Aliases and duplicate keys are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from masque.data.faults import fault, listed, quote, suggestion
from masque.errors import DataError

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 8

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser where PyYAML has it: ten times faster on schemas of thousands of columns."""

Keys = tuple[str, ...]
Lines = dict[Keys, int]


def parse(path: Path, text: str | None = None) -> tuple[dict[str, Any], Lines]:
    """The mapping in the file (or in `text`) and the line of every key, by its path of keys."""
    document = _read(path) if text is None else text
    try:
        events = list(yaml.parse(document, Loader=_LOADER))
        if any(isinstance(event, yaml.AliasEvent) for event in events):
            raise fault(path, "YAML aliases (*name) are not allowed.", "Write the value out.")
        node = yaml.compose(document, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise _broken(path, error) from None
    if not isinstance(node, yaml.MappingNode):
        raise fault(
            path,
            "this is not a schema: no `columns:` and `label:` found.",
            "See docs/data.md, or draft one from the data file with `masque schema draft`.",
        )
    lines: Lines = {}
    content = _plain(path, node, (), lines)
    assert isinstance(content, dict), "a mapping node becomes a dictionary"
    return content, lines


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise fault(path, "this is too large for a schema.", "Was the data file given twice?")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise fault(
            path,
            f"there is no such schema file: {path}.",
            "Check the path, or draft a schema from the data file with `masque schema draft`.",
        ) from None
    except OSError as error:
        raise fault(path, f"cannot be read: {error.strerror}.", "Check the path.") from None
    except UnicodeDecodeError:
        raise fault(path, "this is not UTF-8 text.", "Save the schema as UTF-8.") from None


def _broken(path: Path, error: yaml.YAMLError) -> DataError:
    mark = getattr(error, "problem_mark", None)
    if str(getattr(error, "context", "")).startswith("while scanning"):
        mark = getattr(error, "context_mark", None) or mark  # where a quote was opened
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    return fault(
        path,
        f"this is not valid YAML: {problem}.",
        "Check indentation, colons and quotes there.",
        line=mark.line + 1 if mark else None,
    )


def _plain(path: Path, node: yaml.Node, where: Keys, lines: Lines) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(where, line)
    if len(where) > MAX_DEPTH:
        raise fault(path, "the schema is nested too deeply.", "See docs/data.md.", line=line)
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(path, item, (*where, str(index)), lines) for index, item in enumerate(node.value)
        ]
    assert isinstance(node, yaml.MappingNode), "aliases were refused"
    content: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if not isinstance(key, str):
            raise fault(path, "a key must be plain text.", "See docs/data.md.", line=line)
        if key in content:
            raise fault(path, f"{quote(key)} is given twice.", "Remove one.", line=line)
        lines[(*where, key)] = line
        content[key] = _plain(path, value_node, (*where, key), lines)
    return content


def refuse(
    path: Path, error: ValidationError, lines: Lines, models: Mapping[str, type[BaseModel]]
) -> DataError:
    """The first fault that pydantic found in the schema, as its author should hear it."""
    every = error.errors(include_url=False)
    unknown = [one for one in every if one["type"] == "extra_forbidden"]
    first = (unknown or every)[0]  # a misspelt key explains the one that is missing
    where = tuple(str(part) for part in first["loc"])
    line = _line(where, lines)
    field = ".".join(where)
    column = where[1] if len(where) > 1 and where[0] == "columns" else None
    inner = field if column is None else ".".join(where[2:])
    prefix = f"{inner}: " if inner else ""
    if first["type"] == "extra_forbidden":
        known = list(models[_pattern(where[:-1])].model_fields)
        problem = f"{quote(where[-1])} is not a key of {_named(where[:-1])}."
        cure = suggestion(where[-1], known) or f"Known keys: {listed(known, 12)}."
    elif first["type"] == "literal_error":
        expected = str(first["ctx"]["expected"])
        choices = [part.strip(" '") for part in expected.replace(" or ", ", ").split(",")]
        problem = f"{prefix}{quote(first['input'])} is not one of {expected}."
        cure = suggestion(str(first["input"]), choices) or "Choose one of them."
    elif "range" in where and first["type"] != "value_error":
        problem = f"{_named(where[: where.index('range')])}: the range must be two finite numbers."
        cure = "Write `range: [lowest, highest]`."
    elif first["type"] == "missing":
        problem = f"{_named(where[:-1])} needs the key {quote(where[-1])}."
        cure = "See docs/data.md for what it holds."
    else:
        said = first["msg"].removeprefix("Value error, ").replace("dictionary", "mapping")
        given = first["input"]
        shown = f" (given: {quote(given)})" if isinstance(given, str) else ""
        problem = f"{prefix}{said}{shown}."
        cure = "See docs/data.md for what belongs here."
    return fault(path, problem, cure, line=line, column=column, field=field or None)


def _line(where: Keys, lines: Lines) -> int | None:
    for length in range(len(where), -1, -1):
        if where[:length] in lines:
            return lines[where[:length]]
    return None


def _pattern(where: Keys) -> str:
    parts = list(where)
    if len(parts) > 1 and parts[0] == "columns":
        parts[1] = "*"
    return ".".join(parts)


def _named(where: Keys) -> str:
    if not where:
        return "a schema"
    if len(where) > 1 and where[0] == "columns":
        inner = ".".join(where[2:])
        return f"column {quote(where[1])}" + (f", {inner}" if inner else "")
    return f"`{'.'.join(where)}`"
