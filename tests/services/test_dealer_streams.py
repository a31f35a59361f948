"""As many streams of material as a job can have leave a dealer free for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from masque.v1 import dealer_pb2
from masque.v1.dealer_pb2_grpc import DealerStub, add_DealerServicer_to_server
from masque.wire.authority import Authority, create_authority
from masque.wire.identity import Identity, Role
from masque.wire.server import Server
from masque.wire.tls import Credentials, find_credentials, open_channel
from services.dealer.dealing import Pace
from services.dealer.service import PERMISSIONS, DealerService, threads
from tests.services.handmade import compile_handmade
from tests.waiting import until

PARTIES = 40
CALL = 60.0


def credentials(authority: Authority, role: Role, name: str, folder: Path) -> Credentials:
    authority.issue(Identity("demo", role, name), folder / name)
    return find_credentials(folder / name)


@contextmanager
def dealer(own: Credentials) -> Iterator[tuple[DealerService, str]]:
    """For one job at a time, as its program starts it."""
    service = DealerService(own, compile=compile_handmade, pace=Pace(), jobs=1)

    def register(server: grpc.Server) -> None:
        add_DealerServicer_to_server(service, server)

    with Server(own, "127.0.0.1:0", PERMISSIONS, [register], threads=threads(1)) as server:
        server.on_stop(service.close)
        server.ready()
        yield service, server.address


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "authority", "demo")


def test_streams_that_wait_do_not_keep_the_dealer_from_answering(
    authority: Authority, tmp_path: Path
) -> None:
    own = credentials(authority, Role.DEALER, "dealer", tmp_path)
    expected = Identity("demo", Role.DEALER, "dealer")
    coordinator = credentials(authority, Role.COORDINATOR, "coordinator", tmp_path)
    channels: list[grpc.Channel] = []
    with dealer(own) as (service, address):
        calls: list[Any] = []
        for number in range(PARTIES):
            party = credentials(authority, Role.PARTY, f"party-{number}", tmp_path)
            channels.append(open_channel(address, expected, party))
            request = dealer_pb2.CorrelationsRequest(job_id="job-1", attempt=1)
            stub: Any = DealerStub(channels[-1])
            calls.append(stub.Correlations(request, timeout=CALL))
        until(lambda: service._early.total() == PARTIES, "all streams wait")
        with open_channel(address, expected, coordinator) as channel:
            asked = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=10
            )
            assert asked.status == health_pb2.HealthCheckResponse.SERVING
            abort = dealer_pb2.AbortDealingRequest(job_id="job-1", attempt=1)
            DealerStub(channel).Abort(abort, timeout=10)
        for call in calls:
            call.cancel()
        until(lambda: not service._early.total(), "nobody waits any more")
    for channel in channels:
        channel.close()
