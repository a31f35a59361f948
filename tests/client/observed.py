"""A local network whose services offer metrics and export spans, and the collector of these."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from prometheus_client.parser import text_string_to_metric_families

from masque.client import local_files, processes
from masque.client.local_files import Network
from masque.client.ports import free_ports
from tests.client.networks import Running
from tests.waiting import PATIENCE


@dataclass(frozen=True)
class Seen:
    """A span as it arrived."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    server: bool
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Collector:
    """An OTLP/HTTP collector on a port of the loopback interface."""

    address: str = ""
    spans: list[Seen] = field(default_factory=list)

    def of(self, trace: str) -> list[Seen]:
        return [span for span in self.spans if span.trace == trace]

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(
                a.value.string_value
                for a in resource.resource.attributes
                if a.key == "service.name"
            )
            self.spans += [
                Seen(
                    service,
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind == span.SPAN_KIND_SERVER,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    {
                        a.key: getattr(a.value, str(a.value.WhichOneof("value")))
                        for a in span.attributes
                    },
                )
                for scope in resource.scope_spans
                for span in scope.spans
            ]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        collector.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Series:
    """What a service tells: text of the scrape, kind and help by name, samples."""

    text: str
    kinds: dict[str, str]
    helps: dict[str, str]
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def __getitem__(self, key: str | tuple[str, dict[str, str]]) -> float:
        name, labels = (key, {}) if isinstance(key, str) else key
        return self.samples[name, frozenset(labels.items())]

    def total(self, name: str) -> float:
        return sum(value for (found, _), value in self.samples.items() if found == name)


def scrape(address: str) -> Series:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    kinds, helps, samples = {}, {}, {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kinds[name], helps[name] = family.type, family.documentation
        for sample in family.samples:
            samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return Series(text, kinds, helps, samples)


@dataclass
class Observed(Running):
    """A network that is observed."""

    collector: Collector = field(default_factory=Collector)

    def scrape(self, name: str) -> Series:
        return scrape(json.loads(self.place(name).ready.read_text())["metrics"])

    def log(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.place(name).log.read_text().splitlines()]


@contextmanager
def observed(directory: Path) -> Iterator[Observed]:
    network = Network(directory / "network", 2)
    ports = free_ports(len(network.places))
    local_files.write(network, [f"127.0.0.1:{port}" for port in ports])
    (directory / "files").mkdir()
    with collecting() as collector:
        for place in network.places:
            settings = yaml.safe_load(place.config.read_text())
            settings["metrics"] = {"listen": "127.0.0.1:0"}
            settings["telemetry"] = {"otlp": collector.address}
            place.config.write_text(yaml.safe_dump(settings))
        try:
            started = [processes.start(place, bound_to_us=True) for place in network.places]
            processes.wait_until_ready(network.places, started)
            made = Observed(network, directory / "files", collector=collector)
            with made.services:
                made.share_small()
                yield made
        finally:
            processes.stop(network.places)
