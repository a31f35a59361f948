"""Who this party is, where everybody else is, and its call to the dealer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from masque.errors import MasqueError
from masque.jobs.bound import BoundJob
from masque.mpc.program import Program
from masque.v1.dealer_pb2 import CorrelationsRequest, Material
from masque.v1.dealer_pb2_grpc import DealerStub
from masque.wire.failures import translate
from masque.wire.identity import Identity, Role
from masque.wire.pinned import Pinned
from masque.wire.tls import Credentials
from services.party.stock import Listener


@dataclass(frozen=True)
class Surroundings:
    """Who this party is, and where everybody else is: addresses by name."""

    credentials: Credentials
    peers: dict[str, str]
    dealer: str
    dealer_address: str
    coordinator: str

    @property
    def name(self) -> str:
        """This party."""
        return self.credentials.identity.name

    def identity(self, role: Role, name: str) -> Identity:
        """Somebody else of this project."""
        return Identity(self.credentials.identity.project, role, name)


class DealerStream:
    """`services.party.stock.Source`: this party's `Correlations` call, for so many seconds."""

    def __init__(
        self,
        around: Surroundings,
        job: BoundJob,
        program: Program,
        failed: Listener,
        seconds: float,
    ) -> None:
        self._dealer = around.identity(Role.DEALER, around.dealer)
        self._address = around.dealer_address
        self._channel = Pinned(
            self._address,
            self._dealer,
            around.credentials,
            on_revoked=lambda error: failed(self._named(error)),
        )
        request = CorrelationsRequest(
            job_id=job.job_id,
            attempt=job.attempt,
            job_digest=job.digest(),
            program_digest=program.digest,
        )
        stub: Any = DealerStub(self._channel.channel)
        self._call = stub.Correlations(request, timeout=seconds)
        self._cancelled = False

    def _named(self, error: MasqueError) -> MasqueError:
        if error.where.get("service") == str(self._dealer):
            error.where["service"] = self._dealer.name
        return error

    def messages(self) -> Iterator[Material]:
        """The stream, its errors named after the dealer unless it names somebody itself."""
        try:
            yield from self._call
        except grpc.RpcError as error:
            ours = self._cancelled
            meant = translate(error, service=self._dealer) if ours else self._channel.meaning(error)
            raise self._named(meant) from error
        except MasqueError as error:
            raise self._named(error) from None
        finally:
            self._channel.close()

    def cancel(self) -> None:
        """End it; the dealer will tell the others that this party has left."""
        self._cancelled = True
        self._call.cancel()
