"""A dealer as a program."""

from __future__ import annotations

from collections.abc import Sequence

from masque.v1.dealer_pb2_grpc import add_DealerServicer_to_server
from masque.wire.identity import Role
from masque.wire.running import Program, load_kernels, main, serve_until_stopped
from masque.wire.server import Server
from masque.wire.settings import own_credentials
from services.dealer.dealing import Pace
from services.dealer.service import PERMISSIONS, Compile, DealerService, compile_job, threads
from services.dealer.settings import DealerSettings


def serve(settings: DealerSettings, compile: Compile = compile_job) -> None:
    """Deal until SIGTERM or SIGINT."""
    limits = settings.limits
    credentials = own_credentials(settings, Role.DEALER)
    service = DealerService(
        credentials,
        coordinator=settings.coordinator,
        compile=compile,
        pace=Pace(budget=limits.queue_bytes, patience=limits.lease_seconds),
        jobs=limits.jobs,
    )
    server = Server(
        credentials,
        settings.listen,
        PERMISSIONS,
        [lambda server: add_DealerServicer_to_server(service, server)],
        threads=threads(limits.jobs),
    )
    server.finishing(service)
    server.on_stop(service.close)
    serve_until_stopped(server, settings, load_kernels, service.figures)


def run(arguments: Sequence[str] | None = None, compile: Compile = compile_job) -> int:
    """The command line; returns the exit code."""
    program = Program(Role.DEALER, DealerSettings, lambda settings: serve(settings, compile))
    return main(program, arguments)
