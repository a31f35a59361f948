"""Channels that talk to no service whose certificate was revoked.

gRPC shows a caller nothing of the certificate that answered. So before the first call a connection
is made by hand (`masque.wire.preflight`), its certificate is verified and held against the
revocation lists, and the channel is then opened so that this certificate and no other can answer.
When it is revoked later, the channel is closed and with it every call that is under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from cryptography import x509

from masque.errors import IdentityError, MasqueError, Unavailable
from masque.wire.certificates import revoked
from masque.wire.failures import translate
from masque.wire.identity import Identity
from masque.wire.preflight import check, check_connection
from masque.wire.revocation import Serials
from masque.wire.tls import MAX_REPLY, Credentials, Option, channel_options
from masque.wire.tracing import traced

PATIENCE = 10.0
"""Seconds that each step of looking may take."""

OnRevoked = Callable[[IdentityError], object]

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]

if TYPE_CHECKING:
    Opened = tuple[x509.Certificate, grpc.Channel]


class PinnedChannel(grpc.Channel):
    """See the module's text. The first call raises what speaks against the service.

    `on_revoked` hears, in a thread of its own, that the certificate was revoked in the midst of it.
    """

    def __init__(
        self,
        address: str,
        expected: Identity,
        credentials: Credentials,
        options: Sequence[Option],
        on_revoked: OnRevoked | None = None,
    ) -> None:
        self._address, self._expected, self._credentials = address, expected, credentials
        self._options, self._on_revoked = options, on_revoked
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        self._former: list[Opened] = []
        self._closed = threading.Event()
        self._leave = credentials.trust.revocations.subscribe(self._look_up)

    def channel(self) -> grpc.Channel:
        """The channel that only the certificate now seen can answer. Raises like `preflight`."""
        with self._lock:
            if self._closed.is_set():
                raise self._gone()  # gRPC itself may crash
            if self._opened is None:
                own = self._credentials.renewed()
                seen = check_connection(self._address, self._expected, own, patience=PATIENCE)
                secured = own.for_channel(only=seen)
                inner = grpc.secure_channel(self._address, secured, options=self._options)
                self._opened = seen, inner
                if self._closed.is_set():
                    inner.close()
                    raise self._gone()
            seen, inner = self._opened
        if seen.serial_number in self._credentials.trust.revocations:
            raise self._refusal(seen)
        return inner

    def forget(self) -> None:
        """The connection was lost: look again before the next call, at what may be renewed."""
        with self._lock:
            if self._opened is not None:
                self._former.append(self._opened)
                self._opened = None

    def close(self) -> None:
        """Close it, with everything that is under way."""
        self._leave()
        self._closed.set()
        for _, inner in self._all():
            inner.close()

    def _all(self) -> list[Opened]:
        opened = self._opened
        return [*self._former, *([opened] if opened is not None else [])]

    def _look_up(self, serials: Serials) -> None:
        found = [one for one in self._all() if one[0].serial_number in serials]
        if not found:
            return
        error = self._refusal(found[-1][0])

        def end() -> None:
            if self._on_revoked is not None:
                self._on_revoked(error)
            for _, inner in found:
                inner.close()

        threading.Thread(target=end, name="revoked", daemon=True).start()

    def _gone(self) -> Unavailable:
        who = str(self._expected)
        text = f"The connection to {who} was closed on our side."
        return Unavailable(text, service=who, address=self._address)

    def call(self, kind: str, made: _Arguments, how: str, given: _Arguments) -> Any:
        """Call a method of the channel, in one of the ways that methods have. Raises as above."""
        method = getattr(self.channel(), kind)(*made[0], **made[1])
        try:
            return getattr(method, how)(*given[0], **given[1])
        except ValueError:
            if self._closed.is_set():
                raise self._gone() from None
            raise

    def _refusal(self, seen: x509.Certificate) -> IdentityError:
        who = str(self._expected)
        error = revoked(f"The certificate of {who}", seen)
        error.where |= {"service": who, "address": self._address}
        return error

    # -- what a channel is -----------------------------------------------------------------------

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:
        """See `grpc.Channel`."""
        return _Call(self, "unary_unary", (arguments, named))

    def unary_stream(self, *arguments: Any, **named: Any) -> Any:
        """See `grpc.Channel`."""
        return _Call(self, "unary_stream", (arguments, named))

    def stream_unary(self, *arguments: Any, **named: Any) -> Any:
        """See `grpc.Channel`."""
        return _Call(self, "stream_unary", (arguments, named))

    def stream_stream(self, *arguments: Any, **named: Any) -> Any:
        """See `grpc.Channel`."""
        return _Call(self, "stream_stream", (arguments, named))

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        """See `grpc.Channel`."""
        self.channel().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        """See `grpc.Channel`."""
        self.channel().unsubscribe(callback)

    def __enter__(self) -> PinnedChannel:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close()


class _Call:
    """A method of a channel that is opened when the method is first called."""

    def __init__(self, pinned: PinnedChannel, kind: str, made: _Arguments) -> None:
        self._pinned, self._kind, self._made = pinned, kind, made

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._pinned.call(self._kind, self._made, "__call__", (arguments, named))

    def with_call(self, *arguments: Any, **named: Any) -> Any:
        return self._pinned.call(self._kind, self._made, "with_call", (arguments, named))

    def future(self, *arguments: Any, **named: Any) -> Any:
        return self._pinned.call(self._kind, self._made, "future", (arguments, named))


class Pinned:
    """A pinned channel and, in `channel`, what calls go through."""

    def __init__(
        self,
        address: str,
        expected: Identity,
        credentials: Credentials,
        options: Sequence[Option] | None = None,
        on_revoked: OnRevoked | None = None,
    ) -> None:
        chosen = channel_options(expected, max_reply=MAX_REPLY) if options is None else options
        self._pinned = PinnedChannel(address, expected, credentials, chosen, on_revoked)
        self.channel = traced(self._pinned)
        self.forget, self.close = self._pinned.forget, self._pinned.close
        self._place = address, expected, credentials

    def meaning(self, error: grpc.RpcError) -> MasqueError:
        """What a failed call means; one that the service has cut off, with another look.

        A service that ends the calls of a revoked certificate cannot say so in the call itself.
        """
        address, expected, credentials = self._place
        found = translate(error, service=expected, address=address)
        if found.where.get("details") is None or error.code() is not grpc.StatusCode.CANCELLED:
            return found
        try:
            check(address, expected, credentials.renewed(), patience=PATIENCE)
        except IdentityError as refused:
            return refused
        except MasqueError:
            return found
        return found
