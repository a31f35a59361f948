"""The calls that a server is answering, by the certificate that makes them.

A certificate that is revoked may not call any more, and what it has called already ends.
"""

from __future__ import annotations

import functools
import threading

import grpc
import structlog
from cryptography import x509

from masque.errors import IdentityError
from masque.wire.certificates import revoked
from masque.wire.identity import Identity, Role
from masque.wire.revocation import Revocations, Serials

_log = structlog.get_logger("masque.wire")


class Callers:
    """Every call under way; ends those of certificates that `revocations` comes to hold."""

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self._lock = threading.Lock()
        self._active: dict[grpc.ServicerContext, tuple[int, Identity]] = {}
        self.ended = 0
        """Calls that were ended so far."""
        self.leave = revocations.subscribe(self._end)

    def admit(self, who: Identity, certificate: bytes, context: grpc.ServicerContext) -> None:
        """Note a call until it ends. Raises `IdentityError` if its certificate is revoked."""
        serial = _serial(certificate)
        with self._lock:
            self._active[context] = serial, who
        if not context.add_callback(lambda: self._forget(context)):
            self._forget(context)
        if serial in self._revocations:
            error = revoked(f"The certificate of {who}")
            error.where["party" if who.role is Role.PARTY else "service"] = who.name
            raise error

    def _forget(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._active.pop(context, None)

    def _end(self, serials: Serials) -> None:
        with self._lock:
            found = [(c, who) for c, (serial, who) in self._active.items() if serial in serials]
            self.ended += len(found)
        for context, who in found:
            _log.warning("call ended: the certificate of its caller was revoked", caller=who.uri)
            context.cancel()  # type: ignore[no-untyped-call]


@functools.lru_cache(maxsize=1024)
def _serial(certificate: bytes) -> int:
    try:
        return x509.load_pem_x509_certificate(certificate).serial_number
    except ValueError:
        raise IdentityError(
            "The caller's certificate cannot be read.", unauthenticated=True
        ) from None
