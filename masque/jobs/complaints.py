"""Turn what pydantic found wrong into words for the person who wrote the file.

Every complaint has the path of the field, what is wrong, and a cure; misspelt keys and values get
the nearest known one, keys in the wrong section the section where they belong.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from masque.errors import SpecError
from masque.jobs.document import Document, Where
from masque.jobs.fields import declared, homes, kinds_with, options, siblings

Model = TypeVar("Model", bound=BaseModel)

KEY_PATTERN = r"^[0-9a-f]{64}$"
"""32 bytes in hex: public keys."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHORT = 60
_MOST_LINES = 20
_LEAST_BEGINNING = 3


@dataclass(frozen=True)
class Complaint:
    """One thing wrong with a file: where, what, and what to do about it."""

    where: Where
    problem: str
    cure: str = ""

    @property
    def field(self) -> str:
        """The path in words, as `training.optimizer.learning_rate` or `data.rows[0]`."""
        text = ""
        for part in self.where:
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                text += ("." if text else "") + (part if _PLAIN.fullmatch(part) else shown(part))
        return text


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is probably meant to be: one spelt alike, or beginning so."""
    plain = {_plain(option): option for option in known}
    meant = _plain(name)
    close = difflib.get_close_matches(meant, plain, n=1, cutoff=0.6)
    if not close and len(meant) >= _LEAST_BEGINNING:
        close = [option for option in plain if option.startswith(meant)][:2]
    return plain[close[0]] if len(close) == 1 else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """A cure for an unknown name: the nearest known one, else all of them."""
    known = list(known)
    close = nearest(name, known)
    if close is not None:
        return f"Did you mean {close!r}?"
    return f"Known: {', '.join(known)}." if known else ""


def shown(value: Any) -> str:
    """A value for an error text, cut when it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, endless nesting
        return f"this {type(value).__name__}"
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."


def validated(model: type[Model], source: Document) -> tuple[Model | None, list[Complaint]]:
    """`source` as a `model`, or None and what is wrong with it."""
    if not isinstance(source.value, Mapping):
        what = "is empty" if source.value is None else "is not a list of `key: value` lines"
        keys = ", ".join(name for name, field in model.model_fields.items() if field.is_required())
        return None, [Complaint((), what, f"It needs: {keys}." if keys else "")]
    try:
        return model.model_validate(source.value), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    return None, list(_without_echoes(model, source.value, details))


def refusal(source: Document, complaints: Sequence[Complaint]) -> SpecError:
    """One SpecError for all complaints, in the order of the file's lines."""
    ordered = sorted(complaints, key=lambda complaint: source.line(complaint.where))
    first = ordered[0]
    return SpecError(
        _text(source, ordered),
        file=source.name,
        field=first.field or None,
        line=source.line(first.where) if source.lines else None,
        complaints=[
            {"field": c.field, "line": source.line(c.where), "problem": c.problem, "cure": c.cure}
            for c in ordered
        ],
    )


def _text(source: Document, ordered: Sequence[Complaint]) -> str:
    lines = []
    for complaint in ordered:
        place = f"line {source.line(complaint.where)}: " if source.lines else ""
        field = complaint.field or "the file"
        lines.append(f"{place}{field} {complaint.problem}. {complaint.cure}".strip())
    if len(lines) == 1:
        return f"{source.name}, {lines[0]}" if source.lines else f"{source.name}: {lines[0]}"
    head = f"{source.name} has {len(lines)} mistakes:"
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more"]
    return "\n  ".join([head, *lines])


def _without_echoes(
    model: type[BaseModel], value: Any, details: Sequence[ErrorDetails]
) -> Iterator[Complaint]:
    """Complaints for pydantic's findings; a misspelt key is not reported as a missing one too."""
    meant: set[Where] = set()
    for detail in details:
        where = _where(value, detail["loc"])
        if detail["type"] == "extra_forbidden":
            meaning = _meaning(model, value, where)
            meant |= {meaning} if meaning else set()
    seen: set[Where] = set()
    for detail in details:
        where = _where(value, detail["loc"])
        if detail["type"] == "missing" and where in meant:
            continue
        complaint = _complaint(model, value, where, detail)
        if complaint.where not in seen:
            seen.add(complaint.where)
            yield complaint


def _complaint(model: type[BaseModel], value: Any, where: Where, detail: ErrorDetails) -> Complaint:
    kind, context, given = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "extra_forbidden":
        return _unknown_key(model, value, where)
    if kind == "missing":
        return _missing(model, value, where)
    if given is None:
        return Complaint(where, "is empty", "Give it a value or remove the line.")
    if kind == "literal_error":
        known = options(declared(model, value, where))
        return Complaint(where, f"cannot be {shown(given)}", suggestion(str(given), known))
    if kind == "union_tag_invalid":
        known, tag = options(declared(model, value, where)), given["kind"]
        where = where if isinstance(_at(value, where), str) else (*where, "kind")
        return Complaint(where, f"cannot be {shown(tag)}", suggestion(str(tag), known))
    if kind == "union_tag_not_found":
        known = options(declared(model, value, where))
        for key in given if isinstance(given, Mapping) else ():
            if nearest(str(key), ["kind"]):
                return Complaint((*where, key), "is not a known key", "Did you mean 'kind'?")
        return Complaint(where, "has no kind", f"Known kinds: {', '.join(known)}.")
    if kind == "string_pattern_mismatch" and context.get("pattern") == KEY_PATTERN:
        return Complaint(where, f"must be 64 digits 0-9, a-f, not {shown(given)}")
    if kind == "tuple_type" and isinstance(given, str) and _PLAIN.fullmatch(given):
        return Complaint(where, f"must be a list, not {shown(given)}", f"Write [{given}].")
    if kind not in _WORDS:
        return Complaint(where, f"is not valid: {detail['msg']}")
    problem, cure = _WORDS[kind]
    return Complaint(where, problem.format(given=shown(given), **context), cure)


_NETWORK_SHAPE = "Write [features] or [channels, height, width]."
_LIST = ("must be a list, not {given}", "Write a list, as [first, second].")
_WORDS: dict[str, tuple[str, str]] = {
    "greater_than": ("must be more than {gt}, not {given}", ""),
    "greater_than_equal": ("must be at least {ge}, not {given}", ""),
    "less_than": ("must be less than {lt}, not {given}", ""),
    "less_than_equal": ("must be at most {le}, not {given}", ""),
    "finite_number": ("must be a finite number, not {given}", ""),
    "int_type": ("must be a whole number, not {given}", ""),
    "int_from_float": ("must be a whole number, not {given}", ""),
    "float_type": ("must be a number, not {given}", ""),
    "bool_type": ("must be true or false, not {given}", ""),
    "string_type": ("must be text, not {given}", "Put it in quotes if it is meant as text."),
    "string_pattern_mismatch": (
        "cannot be {given}",
        "A name is 1 to 64 letters, digits, '.', '_' or '-' and starts with a letter or digit.",
    ),
    "string_too_short": ("is empty", "Give it a value."),
    "string_too_long": ("is longer than {max_length} characters", ""),
    "too_long": ("has more than {max_length} entries", ""),
    "too_short": ("has fewer than {min_length} entries", ""),
    "pair": (
        "must be one or two whole numbers of {least} to {most}, not {given}",
        "Write 5, or [5, 3] for 5 down and 3 across.",
    ),
    "day": ("must be a day, not {given}", "Write it as 2027-12-31."),
    "line": ("must be one line of printable characters", ""),
    "shape": ("must be one or three whole numbers, not {given}", _NETWORK_SHAPE),
    "tuple_type": _LIST,
    "list_type": _LIST,
    "model_type": ("must be a group of `key: value` lines, not {given}", ""),
    "dict_type": ("must be a group of `key: value` lines, not {given}", ""),
    "model_attributes_type": ("must be a group of `key: value` lines, not {given}", ""),
}


def _unknown_key(model: type[BaseModel], value: Any, where: Where) -> Complaint:
    name = str(where[-1])
    known = siblings(model, value, where)
    others = kinds_with(declared(model, value, where[:-1]), name)
    if others:
        kind = shown(_at(value, where[:-1])["kind"])
        return Complaint(where, f"is no key of {kind}", f"It is one of {' and '.join(others)}.")
    if nearest(name, known) is None:
        home = next((home for home in homes(model, ()) if home[-1] == name), None)
        if home is not None:
            place = ".".join(str(part) for part in home[:-1]) or "the top of the file"
            return Complaint(where, "does not belong here", f"It belongs in {place}.")
    return Complaint(where, "is not a known key", suggestion(name, known))


def _missing(model: type[BaseModel], value: Any, where: Where) -> Complaint:
    field = siblings(model, value, where).get(str(where[-1]))
    examples = (field.examples if field is not None else None) or []
    known = options(field.annotation) if field is not None else []
    if isinstance(_at(value, where[:-1]), str):
        return _bare(model, value, where)
    if examples:
        return Complaint(where, "is missing", f"Add it, for example {where[-1]}: {examples[0]}")
    return Complaint(where, "is missing", f"Known: {', '.join(known)}." if known else "")


def _bare(model: type[BaseModel], value: Any, where: Where) -> Complaint:
    """A word where a group is due: what stands for it needs fields."""
    word, known = _at(value, where[:-1]), siblings(model, value, where)
    due = [f"{n}: {(f.examples or ['...'])[0]}" for n, f in known.items() if f.is_required()]
    fields = ", ".join([f"kind: {word}", *(text for text in due if not text.startswith("kind:"))])
    return Complaint(where[:-1], f"has no {where[-1]}", f"Write {{{fields}}}.")


def _meaning(model: type[BaseModel], value: Any, where: Where) -> Where | None:
    """The field that an unknown key is a misspelling of."""
    close = nearest(str(where[-1]), siblings(model, value, where))
    return (*where[:-1], close) if close is not None else None


def _where(value: Any, location: tuple[int | str, ...]) -> Where:
    """pydantic's location without the tags of discriminated unions, which no file contains."""
    where: list[int | str] = []
    for part in location:
        chosen = value.get("kind") if isinstance(value, Mapping) and part not in value else value
        if isinstance(part, str) and isinstance(chosen, str) and chosen == part:
            continue
        where.append(part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(where)


def _at(value: Any, where: Where) -> Any:
    """What a file has at a place."""
    for part in where:
        value = value[part]
    return value


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
