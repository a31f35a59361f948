"""Numbers of a service for Prometheus: read when asked for, over plain HTTP on a port of their own.

The services count anyway; a `Source` says what at the moment of a scrape, so that nothing is added
to the work itself. Labels are names of services, roles, methods, states and status codes: never a
job, a data set or a value. `prometheus_client` is imported only where `metrics` is configured.

Bytes and rounds of a party tell when a job stopped early: its port is not for the dealer's eyes.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

import structlog

from masque.errors import Conflict, InputError
from masque.version import __version__
from masque.wire.calls import Calls
from masque.wire.server import Server, join_address, split_address
from masque.wire.tls import Credentials

PATH = "/metrics"
MOST_SCRAPES = 4
"""Requests that are answered at a time; one more is hung up on."""

PATIENCE = 5.0
"""Seconds that a client may be silent."""

_log = structlog.get_logger("masque.wire")


@dataclass(frozen=True)
class Metric:
    """A metric at one moment: its numbers by the values of its labels, in their order."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()
    samples: Mapping[tuple[str, ...], float] = field(default_factory=dict)


def counter(name: str, help: str, value: float) -> Metric:
    """A counter without labels, which only grows until the service is restarted."""
    return Metric(name, "counter", help, samples={(): value})


def gauge(name: str, help: str, value: float) -> Metric:
    """A gauge without labels, which goes up and down."""
    return Metric(name, "gauge", help, samples={(): value})


def by(label: str, numbers: Mapping[str, float]) -> dict[str, Any]:
    """`labels` and `samples` of a metric with one label."""
    return {"labels": (label,), "samples": {(key,): value for key, value in numbers.items()}}


def jobs(running: Mapping[str, float], ended: Mapping[str, float]) -> Iterator[Metric]:
    """What every service says of its jobs: how many run by state, and have ended by outcome."""
    yield Metric(
        "masque_jobs_running",
        "gauge",
        "Jobs that have not ended, by state.",
        **by("state", running),
    )
    yield Metric(
        "masque_jobs_ended_total",
        "counter",
        "Attempts of jobs that have ended, by outcome.",
        **by("outcome", ended),
    )


Source = Callable[[], Iterable[Metric]]
"""What a service has to tell, read at every scrape from any thread."""


class ServiceMetrics:
    """What every service tells: who it is, its certificate, its calls."""

    def __init__(self, server: Server) -> None:
        self._identity = server.identity
        self._credentials: Credentials = server.credentials
        self._calls: Calls = server.calls

    def __call__(self) -> Iterator[Metric]:
        """See `Source`."""
        self._credentials = self._credentials.renewed()
        who = self._identity
        yield Metric(
            "masque_service_info",
            "gauge",
            "Always 1; says which service this is, and its version.",
            ("role", "name", "project", "version"),
            {(who.role.value, who.name, who.project, __version__): 1},
        )
        yield gauge(
            "masque_certificate_expiry_timestamp_seconds",
            "When this service's certificate expires, in seconds since 1970.",
            self._credentials.certificate.not_valid_after_utc.timestamp(),
        )
        yield Metric(
            "masque_rpcs_total",
            "counter",
            "Calls that have ended, by method and gRPC status.",
            ("method", "code"),
            self._calls.counts(),
        )
        yield Metric(
            "masque_rpc_seconds_total",
            "counter",
            "Seconds that these calls took; streams last as long as their work.",
            **by("method", self._calls.seconds()),
        )


class _Collector:
    """`prometheus_client`'s way of asking a source."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def describe(self) -> list[Any]:
        """Nothing is known before it is asked; `collect` must not run at registration."""
        return []

    def collect(self) -> Iterator[Any]:
        """The metrics as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        for metric in self._source():
            family = kinds[metric.kind](metric.name, metric.help, labels=metric.labels)
            for values, number in metric.samples.items():
                family.add_metric(values, number)
            yield family


def renderer(sources: Sequence[Source]) -> Callable[[], bytes]:
    """What makes the text of a scrape: of `sources`, and of this process."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for source in sources:
        registry.register(_Collector(source))
    return lambda: generate_latest(registry)


class MetricsServer:
    """`GET /metrics` at `address`, and nothing else; use it in a `with` statement.

    Construction binds the port: Conflict if another program has it, InputError if it cannot be had.
    """

    def __init__(self, listen: str, render: Callable[[], bytes]) -> None:
        host, port = split_address(listen)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._server = _HttpServer(found[0][0], found[0][4], render)
        except OSError as error:
            raise _binding_error(listen, error) from None
        self.address = join_address(host, self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True
        ).start()
        _log.info("metrics", address=self.address)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def offered(listen: str | None, sources: Sequence[Source]) -> Iterator[str | None]:
    """Offer metrics at `listen` while the block runs: where, in the end; None: not at all."""
    if listen is None:
        yield None
        return
    with MetricsServer(listen, renderer(sources)) as server:
        yield server.address


class _HttpServer(ThreadingHTTPServer):
    block_on_close = False
    request_queue_size = 16

    def __init__(self, family: int, address: Any, render: Callable[[], bytes]) -> None:
        self.address_family = family
        self.render = render
        self._places = threading.BoundedSemaphore(MOST_SCRAPES)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """As a plain TCP server does: the base class asks the name service for its own name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, if there is a place for one."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread's work; the place is free afterwards."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that break off are no news."""
        _log.debug("scrape broken off", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection (HTTP/1.0), without a body."""

    server: _HttpServer
    timeout = PATIENCE

    def do_GET(self) -> None:
        """The numbers, at their path."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(404, explain=f"Masque's metrics are at {PATH}.")
            return
        try:
            text = self.server.render()
        except Exception as error:
            _log.error("incident", method=PATH, exc_info=error)
            self.send_error(500, explain="The log has the reason.")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def version_string(self) -> str:
        """What the Server header says: no version of anything."""
        return "masque"

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news either."""


def _binding_error(listen: str, error: OSError) -> Conflict | InputError:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"The port of metrics.listen, {listen}, is in use by another program.",
            hint="Choose another port, one for each service of this machine.",
            address=listen,
        )
    return InputError(
        f"Metrics cannot be offered at {listen}: {error.strerror or error}.",
        hint="Set metrics.listen to an address of this machine and a port above 1023.",
        address=listen,
    )
