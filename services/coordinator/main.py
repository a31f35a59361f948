"""A coordinator as a program."""

from __future__ import annotations

from collections.abc import Sequence

from masque.v1.coordinator_pb2_grpc import add_CoordinatorServicer_to_server
from masque.wire.identity import Role
from masque.wire.running import Program, main, serve_until_stopped
from masque.wire.server import Server
from masque.wire.settings import own_credentials
from services.coordinator.board import MOST_WATCHERS
from services.coordinator.checking import examine
from services.coordinator.service import PERMISSIONS, CoordinatorService
from services.coordinator.settings import CoordinatorSettings


def serve(settings: CoordinatorSettings) -> None:
    """Conduct until SIGTERM or SIGINT."""
    credentials = own_credentials(settings, Role.COORDINATOR)
    service = CoordinatorService(settings, credentials)
    server = Server(
        credentials,
        settings.listen,
        PERMISSIONS,
        [lambda server: add_CoordinatorServicer_to_server(service, server)],
        threads=MOST_WATCHERS + 16,
    )
    server.finishing(service)
    server.on_stop(service.close)
    serve_until_stopped(server, settings, service.start, service.figures)


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return main(Program(Role.COORDINATOR, CoordinatorSettings, serve, examine), arguments)
