"""The client's profile: who I am, whom I trust, and where the services are.

    project: demo
    name: analyst
    tls: {directory: certificates}
    coordinator: {name: coordinator, address: 127.0.0.1:7000}
    dealer: {name: dealer, address: 127.0.0.1:7001}
    parties:
      - {name: party-a, address: 127.0.0.1:7002}
      - {name: party-b, address: 127.0.0.1:7003}
    recipients: recipients

Paths are relative to the file. `recipients` is the directory of `<name>.recipient.pub` files, and
of the `.recipient.key` files of those whose results this client may open.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from masque.errors import NotFound
from masque.jobs import document
from masque.jobs.complaints import Complaint, refusal, validated
from masque.jobs.section import Section, listed
from masque.wire.identity import Identity, Role
from masque.wire.settings import DnsName, PathField, PeerSettings, TlsSettings
from masque.wire.tls import Credentials, find_credentials, load_credentials

VARIABLE = "MASQUE_PROFILE"
"""The environment variable that names the profile when no option does."""


class Profile(Section):
    """See the module docstring. Parties are in order: party i holds share i.

    `dealer` is only asked how it is; a client sends it nothing.
    """

    project: DnsName = Field(examples=["demo"])
    name: DnsName = Field(examples=["analyst"])
    tls: TlsSettings = Field(examples=["{directory: certificates}"])
    coordinator: PeerSettings = Field(examples=["{name: coordinator, address: 127.0.0.1:7000}"])
    dealer: PeerSettings | None = None
    parties: Annotated[
        tuple[PeerSettings, ...], BeforeValidator(listed), Field(min_length=2, max_length=64)
    ] = Field(examples=["[{name: party-a, address: 127.0.0.1:7002}, ...]"])
    recipients: PathField = Field(examples=["recipients"])

    @property
    def identity(self) -> Identity:
        """Who this client is."""
        return Identity(self.project, Role.CLIENT, self.name)

    def credentials(self) -> Credentials:
        """The client's certificate. Raises IdentityError or NotFound, naming the file."""
        if self.tls.directory is not None:
            return find_credentials(
                self.tls.directory, self.identity.stem, revoked=self.tls.revoked
            )
        assert self.tls.certificate and self.tls.key and self.tls.authority, "checked by load"
        return load_credentials(
            self.tls.certificate, self.tls.key, self.tls.authority, revoked=self.tls.revoked
        )


def find(path: str | Path | None = None) -> Path:
    """The profile to use: `path`, or what MASQUE_PROFILE names. Raises NotFound."""
    chosen = path or os.environ.get(VARIABLE)
    if not chosen:
        raise NotFound(
            "No profile is named.",
            hint=f"Give --profile FILE or set {VARIABLE}; `masque local up` writes one.",
        )
    return Path(chosen)


def load(path: str | Path | None = None) -> Profile:
    """Read a profile. Raises NotFound or SpecError naming file, line and field."""
    source = find(path)
    if not source.exists():
        raise NotFound(
            f"There is no profile at {source}.",
            hint="Give --profile FILE; `masque local up` writes one.",
            file=str(source),
        )
    parsed = document.read(source)
    profile, complaints = validated(Profile, parsed)
    if profile is not None:
        complaints = list(_complaints(profile))
    if profile is None or complaints:
        raise refusal(parsed, complaints)
    return _anchored(profile, source.resolve().parent)


def _complaints(profile: Profile) -> list[Complaint]:
    found = []
    names = [party.name for party in profile.parties]
    for index, name in enumerate(names):
        if name in names[:index]:
            found.append(Complaint(("parties", index), f"lists {name!r} twice", "Remove one."))
    tls = profile.tls
    files = (tls.certificate, tls.key, tls.authority)
    if (tls.directory is None) == (not all(files)):
        cure = "Give a directory, or all three of certificate, key and authority."
        found.append(Complaint(("tls",), "names no directory and not all files", cure))
    return found


def _anchored(profile: Profile, base: Path) -> Profile:
    tls = profile.tls
    moved = {
        name: base / path.expanduser()
        for name in ("directory", "certificate", "key", "authority", "revoked")
        if (path := getattr(tls, name)) is not None
    }
    return profile.model_copy(
        update={
            "tls": tls.model_copy(update=moved),
            "recipients": base / profile.recipients.expanduser(),
        }
    )
