"""Read YAML into plain values, remembering the line of every field.

Only the YAML 1.2 core types are understood: `no`, `on` and `2026-01-01` stay text, `1e-3` is a
number. Aliases, merge keys, tags and repeated keys are refused: a job file that means two things to
two readers must not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import yaml

from masque.errors import SpecError

LARGEST = 1 << 16
"""Bytes of the largest file read."""

DEEPEST = 32
"""Nesting beyond this is refused."""

Where = tuple[str | int, ...]
"""Path of a field: keys and list positions from the top."""

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MOST_DIGITS = 400
_CORE_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str")} | {None}


@dataclass(frozen=True)
class Document:
    """A parsed file: its name, its plain values, and the 1-based line of each field."""

    name: str
    value: Any
    lines: dict[Where, int]

    def line(self, where: Where) -> int:
        """The line of a field, or of the nearest field around it that the file has."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)


class _Loader(yaml.SafeLoader):
    """Resolves no plain scalar (`_Reader` does, by the rules of YAML 1.2) and refuses aliases."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases are not understood", problem_mark=event.start_mark
            )
        if self.depth > DEEPEST:  # each level costs as much time as there are around it
            raise yaml.MarkedYAMLError(
                problem="it is nested too deeply", problem_mark=event.start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read(path: str | PathLike[str]) -> Document:
    """Read and parse a file. Raises SpecError that names it when it is missing or unreadable."""
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(
            f"{name} cannot be read: {reason}.", hint="Check the path.", file=name
        ) from None
    try:
        return parse(raw.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpecError(
            f"{name}, line {line}: the file is not UTF-8 text.",
            hint="Save it as UTF-8.",
            file=name,
            line=line,
        ) from None


def parse(text: str, name: str) -> Document:
    """Parse YAML text; `name` is what errors call it. Raises SpecError with file and line."""
    if len(text) > LARGEST:
        message = f"{name} is larger than {LARGEST} bytes."
        raise SpecError(message, hint="Is it the right file?", file=name)
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _broken(name, mark, error.problem or error.context or "it is not YAML") from None
    except yaml.YAMLError as error:
        raise _broken(name, None, str(error).splitlines()[0]) from None
    except RecursionError:
        raise _broken(name, None, "it is nested too deeply") from None
    except (ValueError, OverflowError, IndexError) as error:
        raise _broken(name, None, f"it holds an escape that is no character ({error})") from None
    lines: dict[Where, int] = {}
    value = None if root is None else _Reader(name, lines).value(root, ())
    return Document(name, value, lines)


def _compose(text: str) -> yaml.Node | None:
    """The node graph of the only document of `text`; None when there is nothing in it."""
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


@dataclass
class _Reader:
    """Turns nodes into plain values, filling `lines`."""

    name: str
    lines: dict[Where, int]

    def value(self, node: yaml.Node, where: Where) -> Any:
        if len(where) > DEEPEST:
            raise _broken(self.name, node.start_mark, "it is nested too deeply")
        self.lines[where] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            self._core(node)
            return [self.value(child, (*where, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        self._core(node)
        found: dict[str, Any] = {}
        for key, child in node.value:
            name = key.value
            if not isinstance(name, str) or name == "<<":
                raise _broken(self.name, key.start_mark, "a key must be plain text")
            if name in found:
                raise _broken(self.name, key.start_mark, f"the key {name!r} is there twice")
            found[name] = self.value(child, (*where, name))
            self.lines[(*where, name)] = key.start_mark.line + 1
        return found

    def _scalar(self, node: yaml.Node) -> Any:
        self._core(node)
        text: str = node.value
        if getattr(node, "style", None) is not None:  # quoted or block text
            return text
        for read_scalar in _SCALARS:
            found, value = read_scalar(text)
            if found:
                return value
        return text

    def _core(self, node: yaml.Node) -> None:
        if node.tag not in _CORE_TAGS:
            raise _broken(self.name, node.start_mark, f"the tag {node.tag!r} is not understood")


_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def _word(text: str) -> tuple[bool, Any]:
    words = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
    truths = {
        "true": True,
        "True": True,
        "TRUE": True,
        "false": False,
        "False": False,
        "FALSE": False,
    }
    return text in words or text in truths, truths.get(text, words.get(text))


def _integer(text: str) -> tuple[bool, Any]:
    if len(text) > _MOST_DIGITS or not _INTEGER.fullmatch(text):
        return False, None
    return True, int(text)


def _float(text: str) -> tuple[bool, Any]:
    if _SPECIAL.fullmatch(text):
        return True, float(text.replace(".", "").lower())
    if len(text) > _MOST_DIGITS or not _FLOAT.fullmatch(text):
        return False, None
    return True, float(text)


_SCALARS: tuple[Callable[[str], tuple[bool, Any]], ...] = (_word, _integer, _float)


def _broken(name: str, mark: yaml.Mark | None, problem: str) -> SpecError:
    """The SpecError for text that is not YAML as we read it."""
    if mark is None:
        return SpecError(f"{name}: {problem}.", hint="Correct the YAML there.", file=name)
    line, column = mark.line + 1, mark.column + 1
    return SpecError(
        f"{name}, line {line}, column {column}: {problem}.",
        hint="Correct the YAML there.",
        file=name,
        line=line,
    )
