"""Who somebody is: a project, a role in it and a name, written as a URI.

    masque://<project>/<role>/<name>          for example masque://demo/party/hospital-a

The URI stands in every certificate as a subject alternative name and is what services authorise
by. A certificate also carries the DNS name `<name>.<role>.<project>.masque`: gRPC compares only
DNS names with the server it meant to reach, so that a channel opened with that name makes "is this
the very service I wanted?" part of the TLS handshake (see `masque.wire.tls`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from masque.errors import IdentityError

SCHEME = "masque"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""What projects and names look like: one DNS label."""

_NAME_RULE = "Use 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit."


class Role(StrEnum):
    """What an identity may do; each RPC lists the roles it serves."""

    DEALER = "dealer"
    PARTY = "party"
    COORDINATOR = "coordinator"
    CLIENT = "client"


ROLES = frozenset(Role)
"""All roles: what an RPC that serves everybody with a certificate lists."""


@dataclass(frozen=True, order=True)
class Identity:
    """A name with its role in a project.

    Raises `IdentityError` if a part of it is not written as the rules above want.
    """

    project: str
    role: Role
    name: str

    def __post_init__(self) -> None:
        for part, text in (("project", self.project), ("name", self.name)):
            if not NAME.fullmatch(text):
                raise IdentityError(f"{text!r} cannot be a {part}.", hint=_NAME_RULE, field=part)
        object.__setattr__(self, "role", parse_role(self.role))

    @property
    def uri(self) -> str:
        """`masque://<project>/<role>/<name>`, as certificates hold it."""
        return f"{SCHEME}://{self.project}/{self.role}/{self.name}"

    @property
    def server_name(self) -> str:
        """`<name>.<role>.<project>.masque`: the DNS name that the TLS handshake compares."""
        return f"{self.name}.{self.role}.{self.project}.{SCHEME}"

    @property
    def stem(self) -> str:
        """`<name>.<role>`: what the files of this identity are called, before their suffix."""
        return f"{self.name}.{self.role}"

    def __str__(self) -> str:
        return f"{self.role} {self.name!r}"


def parse_role(text: str) -> Role:
    """The role called `text`; `IdentityError` names the ones there are."""
    try:
        return Role(text)
    except ValueError:
        raise IdentityError(
            f"{text!r} is not a role.", hint=f"Roles are {', '.join(Role)}.", field="role"
        ) from None


def parse_identity(uri: str) -> Identity:
    """Read `masque://<project>/<role>/<name>`, nothing more and nothing less."""
    parts = uri.split("/")
    if len(parts) != 5 or parts[0] != f"{SCHEME}:" or parts[1]:
        raise IdentityError(
            f"{uri!r} is not an identity.",
            hint=f"Identities are written {SCHEME}://project/role/name.",
        )
    return Identity(parts[2], parse_role(parts[3]), parts[4])
