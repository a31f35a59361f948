"""A computing party as a program."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import grpc
import structlog

from masque.data.checkpoints import Checkpoints
from masque.data.kept import KeptModels
from masque.data.quota import Quota
from masque.data.store import Store
from masque.jobs import policy as policies
from masque.jobs.policy import Policy
from masque.v1.party_pb2_grpc import add_PartyServicer_to_server
from masque.wire.hub import Hub
from masque.wire.identity import Role
from masque.wire.running import Program, load_kernels, main, serve_until_stopped
from masque.wire.server import Server
from masque.wire.settings import own_credentials
from masque.wire.streams import METHOD
from services.party.approvals import Approvals
from services.party.around import Surroundings
from services.party.checking import examine
from services.party.deliveries import Deliveries
from services.party.figures import Figures
from services.party.jobs import Jobs, Memory
from services.party.keeping import note_deletions, open_ledger, rotate_key
from services.party.preparing import Compile, compile_job
from services.party.results import Results
from services.party.service import PERMISSIONS, PartyService
from services.party.settings import PartySettings
from services.party.tending import Tending
from services.party.workshop import PartyWorkshop

_log = structlog.get_logger("masque.party")


def serve(settings: PartySettings, compile: Compile = compile_job) -> None:
    """Compute until SIGTERM or SIGINT."""
    credentials = own_credentials(settings, Role.PARTY)
    policy = policies.load(settings.policy) if settings.policy else Policy()
    limits = settings.limits
    with Store(
        settings.data,
        key_file=settings.key_file,
        key_command=settings.key_command,
        quota=Quota(limits.store_bytes, limits.owner_bytes),
    ) as store:
        ledger = open_ledger(settings, credentials)
        note_deletions(store, ledger)
        kept = KeptModels(settings.data / "kept", store.key)
        results = Results(credentials, settings.data, ledger, kept)
        memory = Memory(settings.data / "jobs")
        deliveries = Deliveries(settings.data / "results")
        checkpoints = Checkpoints(settings.data / "checkpoints", store.key)
        approvals = Approvals(settings.data / "approvals", ledger, settings.name)
        hub = Hub(settings.name, patience=limits.lease_seconds)
        around = Surroundings(
            credentials,
            {name: address for name, address in settings.peers.items() if name != settings.name},
            settings.dealer.name,
            settings.dealer.address,
            settings.coordinator,
        )
        workshop = PartyWorkshop(
            around,
            store,
            policy,
            settings.recipients,
            memory,
            ledger,
            results,
            deliveries,
            checkpoints,
            approvals,
            hub,
            limits,
            compile,
        )
        jobs = Jobs(memory, workshop, checkpoints, deliveries, limits.jobs)
        service = PartyService(credentials, store, jobs, results, workshop, approvals)

        def register(server: grpc.Server) -> None:
            add_PartyServicer_to_server(service, server)
            mount_exchange(hub, server)

        server = Server(
            credentials, settings.listen, PERMISSIONS, [register], threads=limits.jobs * 4 + 32
        )
        server.finishing(service)
        server.on_stop(service.close)
        server.on_stop(hub.close)
        tending = Tending(jobs, checkpoints, approvals, store, limits)
        threading.Thread(target=tending.run, name="tending", daemon=True).start()
        if store.damaged:
            _log.warning("damaged data sets", datasets=list(store.damaged))
        numbers = Figures(
            around.dealer,
            tuple(around.peers),
            workshop.totals,
            jobs,
            store,
            service.uploads_running,
        )
        serve_until_stopped(server, settings, load_kernels, numbers)


def mount_exchange(hub: Hub, server: grpc.Server) -> None:
    """Put the hub's handler in the place of the generated one, which parses and copies frames."""

    class Details(grpc.HandlerCallDetails):
        method = METHOD
        invocation_metadata = ()

    handler = hub.handler.service(Details())
    assert handler is not None, "the hub serves this method"
    service, name = METHOD.strip("/").split("/")
    server.add_registered_method_handlers(service, {name: handler})  # type: ignore[attr-defined]


def run(arguments: Sequence[str] | None = None, compile: Compile = compile_job) -> int:
    """The command line; returns the exit code."""
    program = Program(
        Role.PARTY,
        PartySettings,
        lambda settings: serve(settings, compile),
        examine,
        {"rotate-key": rotate_key},
    )
    return main(program, arguments)
