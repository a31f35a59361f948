"""Logs that say everything about the work and nothing about the data.

One configuration for all services: structlog, one JSON object a line, or coloured lines on a
terminal. Records of the standard library's `logging` (gRPC's, for one) go the same way. The last
processor but the renderer is `redact`, which lets only plain values through and no field whose
name speaks of secrets.
"""

from __future__ import annotations

import datetime as dt
import enum
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import structlog

from masque.wire.identity import Identity

SECRET_WORDS = frozenset(
    "share shares seed seeds mask masks key keys secret secrets correction corrections private "
    "password plaintext plain opening openings opened payload payloads material triple triples "
    "weights value values".split()
)
"""A field whose name holds one of these words is not logged, whatever its value."""

DIGEST_WORDS = frozenset({"digest", "fingerprint"})
"""Fields that may hold long hexadecimal numbers, which are secrets anywhere else."""

TRACE = "trace"
"""The field that names a request: 32 hexadecimal digits, all of which may be decimal ones."""

REDACTED = "<redacted>"
LARGE = 2**53
"""Whole numbers from here on look like shares; no count, size or time is as large."""

_LONG_LIST, _LONG_TEXT, _DEPTH = 16, 20_000, 4
_WORDS = re.compile(r"[A-Za-z][a-z]*")
_RAW = re.compile(
    r"""(?<![\w-])b(?:'[^'\n]*'|"[^"\n]*")"""  # repr of bytes, not the end of 'party-b'
    r"|\barray\(\[[^)]*\)?"  # repr of arrays
    r"|\[(?:\s*-?\d+[ ,\n]+){7,}[^\]]*\]?"  # eight numbers or more in brackets
    r"|\b\d{17,}\b"  # numbers as large as shares
)
_TRACE = re.compile("[0-9a-f]{32}")
_ENCODED = re.compile(r"[0-9A-Za-z+=]{36,}")
"""Hexadecimal or base64 of 18 bytes and more."""

EventDict = MutableMapping[str, Any]


def configure(
    service: str,
    *,
    level: str = "info",
    stream: TextIO | None = None,
    json: bool | None = None,
) -> None:
    """Send the logs of this process to `stream` (standard error) in the name of `service`.

    `json` None means: JSON unless the stream is a terminal. `level` is debug, info, warning or
    error.
    """
    stream = stream or sys.stderr
    as_json = not stream.isatty() if json is None else json
    number = logging.getLevelNamesMapping()[level.upper()]

    def name_service(_: object, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    _configure_standard_logging(stream, number, shared, as_json)


def _configure_standard_logging(
    stream: TextIO, level: int, shared: Sequence[structlog.typing.Processor], as_json: bool
) -> None:
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(shared),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def redact(_: object, __: str, event: EventDict) -> EventDict:
    """The structlog processor that keeps secrets out: by field name, by type, by look."""
    return {str(name): _field(str(name), value, 0) for name, value in event.items()}


def is_secret_name(name: str) -> bool:
    """Whether a field called `name` is withheld; words are split at case, `_`, `-` and `.`."""
    return not SECRET_WORDS.isdisjoint(_words(name))


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORDS.findall(name)}


def _field(name: str, value: object, depth: int) -> object:
    if is_secret_name(name):
        return REDACTED
    if name == TRACE and isinstance(value, str) and _TRACE.fullmatch(value):
        return value
    return _value(value, depth, digest=not DIGEST_WORDS.isdisjoint(_words(name)))


def _value(value: object, depth: int, *, digest: bool = False) -> object:
    """Only what is plainly harmless passes; anything else becomes the name of its type."""
    if type(value) is int:
        return value if abs(value) < LARGE else REDACTED
    if value is None or type(value) in (bool, float):
        return value
    if isinstance(value, str | Path | enum.Enum | Identity | dt.datetime | dt.date):
        return _text(str(value), digest=digest)
    if isinstance(value, BaseException):
        return _text(f"{type(value).__name__}: {value}", digest=False)
    if depth < _DEPTH and isinstance(value, Mapping):
        return {str(key): _field(str(key), item, depth + 1) for key, item in value.items()}
    if depth < _DEPTH and isinstance(value, list | tuple | set | frozenset):
        if len(value) <= _LONG_LIST:
            return [_value(item, depth + 1, digest=digest) for item in value]
        return f"<{type(value).__name__} of {len(value)}>"
    return f"<{type(value).__name__}>"


def _text(text: str, *, digest: bool) -> str:
    text = _RAW.sub(REDACTED, text[:_LONG_TEXT])
    return text if digest else _ENCODED.sub(REDACTED, text)
