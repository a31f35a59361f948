"""What a server's calls have in common: a trace, fields of the log, a span, and a count."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import structlog

from masque.errors import IdentityError
from masque.jobs.section import NAME
from masque.wire import tracing
from masque.wire.authorise import caller


class Calls:
    """Begins and ends every call of one server, and counts them since its start.

    `counts`: calls that have ended, by (method, status); `seconds`: how long they took, by method.
    Methods are those that the server has, written `masque.v1.Dealer/Prepare`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._seconds: dict[str, float] = {}

    def begin(
        self, method: str, request: object, context: grpc.ServicerContext
    ) -> Callable[[], None]:
        """Called before anything of a call is done, in its context; returns what ends it."""
        started, name = time.monotonic(), method.lstrip("/")
        structlog.contextvars.bind_contextvars(**_fields(request, context))
        received = tracing.received(context.invocation_metadata())
        span = tracing.begin(name, received, {}, answers=True)
        tracing.adopt(span.trace if span is not None else received)

        def end() -> None:
            status = _status(context)
            if span is not None:
                span.end("" if status == "OK" else status)
            with self._lock:
                self._counts[name, status] += 1
                self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started

        return end

    def counts(self) -> dict[tuple[str, ...], float]:
        """A copy, at one moment."""
        with self._lock:
            return dict(self._counts)

    def seconds(self) -> dict[str, float]:
        """A copy, at one moment."""
        with self._lock:
            return dict(self._seconds)


def _fields(request: object, context: grpc.ServicerContext) -> dict[str, Any]:
    """What the log says of a call: who calls, for which job, in which training round."""
    fields: dict[str, Any] = {}
    with suppress(IdentityError):  # the guard refuses it, and says why
        fields["peer"] = str(caller(context))
    job, number = getattr(request, "job_id", None), getattr(request, "round", None)
    if isinstance(job, str) and re.fullmatch(NAME, job):
        fields["job"] = job
    if isinstance(number, int):
        fields["round"] = number
    return fields


def _status(context: grpc.ServicerContext) -> str:
    known: Any = context  # the stubs forget `code`
    code = known.code()
    return code.name if isinstance(code, grpc.StatusCode) else "OK"
