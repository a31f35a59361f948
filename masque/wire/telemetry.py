"""Spans for OpenTelemetry, where a service's file asks for them: calls answered, jobs, rounds.

The exporter is the extra `otel`; it is imported only here, and only if `telemetry` is configured.
Spans hold what the log holds: names of methods and services, job, attempt and round. Exceptions are
named by their class alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from masque.errors import InputError
from masque.version import __version__
from masque.wire import tracing
from masque.wire.identity import Identity
from masque.wire.tracing import Attribute, Span, Trace, Tracer

if TYPE_CHECKING:
    from opentelemetry import trace as otel
    from opentelemetry.sdk.trace import TracerProvider

SEND = 3.0
"""Seconds that the collector may take to answer."""

LAST = 0.8
"""Seconds that the last spans may take at the end: the service has less than two to be gone."""

MISSING = "asks for OpenTelemetry, which is not installed"
CURE = "Install it with `pip install 'masque[otel]'`, or remove telemetry."

_log = structlog.get_logger("masque.wire")


def installed() -> bool:
    """Whether the extra `otel` is there."""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def exporting(identity: Identity, endpoint: str | None) -> Iterator[None]:
    """Export the spans of the block to the OTLP/HTTP collector at `endpoint`; None: export nothing.

    Raises InputError if what it takes is not installed. A collector that does not answer costs
    spans and a line in the log, nothing else.
    """
    if endpoint is None:
        yield
        return
    tracer, finish = _make(identity, endpoint)
    tracing.install(tracer)
    _log.info("exporting spans", endpoint=endpoint)
    try:
        yield
    finally:
        tracing.install(None)
        last = threading.Thread(target=finish, name="telemetry-end", daemon=True)
        last.start()
        last.join(LAST)


def _make(identity: Identity, endpoint: str) -> tuple[Tracer, Callable[[], None]]:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise InputError(f"telemetry {MISSING}.", hint=CURE, field="telemetry") from None
    resource = Resource.create(
        {
            "service.name": identity.name,
            "service.namespace": identity.project,
            "service.version": __version__,
            "masque.role": identity.role.value,
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return _tracer(provider), provider.shutdown


def _tracer(provider: TracerProvider) -> Tracer:
    from opentelemetry import trace as otel

    real = provider.get_tracer("masque", __version__)

    def begin(
        name: str, parent: Trace | None, answers: bool, attributes: Mapping[str, Attribute]
    ) -> Span:
        context = otel.set_span_in_context(otel.NonRecordingSpan(_remote(parent)))
        kind = otel.SpanKind.SERVER if answers else otel.SpanKind.INTERNAL
        named = {f"masque.{key}": value for key, value in attributes.items()}
        return _Span(real.start_span(name, context, kind, named, record_exception=False))

    return begin


def _remote(parent: Trace | None) -> otel.SpanContext:
    from opentelemetry import trace as otel

    if parent is None:
        return otel.INVALID_SPAN_CONTEXT
    flags = otel.TraceFlags(int(parent.flags, 16))
    return otel.SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, flags)


class _Span:
    """A span of OpenTelemetry as one of ours."""

    def __init__(self, span: otel.Span) -> None:
        self._span = span
        found = span.get_span_context()
        flags = f"{int(found.trace_flags):02x}"
        self.trace = Trace(f"{found.trace_id:032x}", f"{found.span_id:016x}", flags)

    def end(self, failure: str = "") -> None:
        """See `Span`."""
        from opentelemetry.trace import Status, StatusCode

        if failure:
            self._span.set_status(Status(StatusCode.ERROR, failure))
        self._span.end()
