"""Who may call what: every RPC lists the roles it serves, and serves nobody else.

A method that the table does not list is refused to everybody, so that a forgotten line locks a
door and never opens one. What a role may do *as whom* (a party fetches its own corrections only)
is the handler's to check, with `caller`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import grpc

from masque.errors import IdentityError
from masque.wire.callers import Callers
from masque.wire.identity import SCHEME, Identity, Role, parse_identity

Permissions = Mapping[str, Collection[Role]]
"""Full method name, such as `/masque.v1.Dealer/Prepare`, to the roles that may call it."""

REQUIRED_TLS = "TLSv1.3"

AuthContext = Mapping[str, Collection[bytes]]
"""What gRPC knows of a connection's peer: property names to values."""


class Authorise:
    """The guard of a server: TLS 1.3, a certificate of this project, a role that may call.

    With `callers`, the certificate must not be revoked either.
    """

    def __init__(
        self, project: str, permissions: Permissions, callers: Callers | None = None
    ) -> None:
        self._project, self._callers = project, callers
        self._permissions = {method: frozenset(roles) for method, roles in permissions.items()}

    def permit(self, permissions: Permissions) -> None:
        """Add methods that the table does not list yet."""
        assert not self._permissions.keys() & permissions.keys(), "one line a method"
        self._permissions |= {method: frozenset(roles) for method, roles in permissions.items()}

    def __call__(self, method: str, context: grpc.ServicerContext) -> None:
        """Return if the caller may call `method`; otherwise raise an `IdentityError`."""
        found = _auth_context(context)
        who = self.check(method, found)
        if self._callers is not None:
            certificate = next(iter(found.get("x509_pem_cert", ())), b"")
            self._callers.admit(who, certificate, context)

    def check(self, method: str, auth_context: AuthContext) -> Identity:
        """The same on what gRPC says of the connection; returns who calls."""
        who = identify(auth_context)
        if who.project != self._project:
            raise IdentityError(
                f"{who.uri} belongs to the project {who.project!r}, this service to "
                f"{self._project!r}.",
                hint="Use a certificate of this project.",
                caller=who.uri,
            )
        roles = self._permissions.get(method)
        if roles is None:
            raise IdentityError(f"{method} is open to nobody.", caller=who.uri, method=method)
        if who.role not in roles:
            needed = " or ".join(sorted(roles)) or "none"
            raise IdentityError(
                f"{who} may not call {method}: it serves the role {needed}.",
                hint="Call it with a certificate of that role.",
                caller=who.uri,
                method=method,
            )
        return who


def caller(context: grpc.ServicerContext) -> Identity:
    """Who makes this call, by the certificate of the connection."""
    return identify(_auth_context(context))


def identify(auth_context: AuthContext) -> Identity:
    """The identity in a connection's properties; `IdentityError` unless it is TLS 1.3 with one."""
    versions = set(auth_context.get("ssl_tls_version", ()))
    if versions != {REQUIRED_TLS.encode()}:
        found = ", ".join(sorted(version.decode() for version in versions)) or "no TLS"
        raise IdentityError(
            f"Masque speaks {REQUIRED_TLS} only; this connection is {found}.",
            hint="Update the TLS library of the caller.",
            unauthenticated=True,
        )
    uris = [uri.decode() for uri in auth_context.get("peer_uri", ())]
    claims = [uri for uri in uris if uri.startswith(f"{SCHEME}:")]
    if len(claims) != 1:
        raise IdentityError(
            f"The caller's certificate holds {len(claims)} Masque identities, not one.",
            hint="Issue one with `masque pki issue`.",
            unauthenticated=True,
        )
    return parse_identity(claims[0])


def _auth_context(context: grpc.ServicerContext) -> AuthContext:
    properties: Mapping[str, object] = context.auth_context()
    return {key: value for key, value in properties.items() if isinstance(value, list | tuple)}
