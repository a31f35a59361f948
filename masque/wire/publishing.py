"""The service `Trust`, which every server offers: what the authority revoked is told to it here."""

from __future__ import annotations

import grpc
import structlog

from masque.v1 import trust_pb2 as messages
from masque.v1.trust_pb2_grpc import TrustServicer, TrustStub
from masque.wire.authorise import Permissions
from masque.wire.callers import Callers
from masque.wire.failures import translating
from masque.wire.identity import ROLES, Identity
from masque.wire.tls import Credentials, open_channel

PERMISSIONS: Permissions = {"/masque.v1.Trust/Publish": ROLES}
PATIENCE = 10.0
"""Seconds that a service may take to answer."""

_log = structlog.get_logger("masque.wire")


class TrustService(TrustServicer):
    """Takes up lists for the process whose `credentials` and `callers` these are."""

    def __init__(self, credentials: Credentials, callers: Callers) -> None:
        self._credentials, self._callers = credentials, callers

    def Publish(
        self, request: messages.PublishRequest, context: grpc.ServicerContext
    ) -> messages.PublishReply:
        """Believe the lists for their signatures; ends running calls of what they revoke."""
        trust = self._credentials.renewed().trust
        before = self._callers.ended
        kept = trust.revocations.take(request.lists, trust.authorities)
        _log.info("revocation list taken", revoked=len(trust.revocations.serials), kept=kept)
        return messages.PublishReply(
            number=trust.revocations.number(trust.authorities[0]),
            revoked=len(trust.revocations.serials),
            ended=self._callers.ended - before,
            kept=kept,
        )


def publish(
    address: str, service: Identity, credentials: Credentials, lists: bytes
) -> messages.PublishReply:
    """Tell a service. Raises what `Revocations.take` says there, `Unavailable`, `IdentityError`.

    The service itself may be one whose certificate is revoked: it hears the same as all others.
    """
    with open_channel(address, service, credentials) as channel, translating(service, address):
        stub = TrustStub(channel)
        reply: messages.PublishReply = stub.Publish(
            messages.PublishRequest(lists=lists), timeout=PATIENCE
        )
        return reply
