"""A folder with everything that a service's file names, for each role: to be spoilt by tests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from masque.wire.authority import Authority, create_authority
from masque.wire.identity import Identity, Role
from masque.wire.recipients import create_recipient
from masque.wire.tls import find_credentials
from services.coordinator import main as coordinator
from services.dealer import main as dealer
from services.party import main as party

ROLES = ("dealer", "party", "coordinator")
RUN = {"dealer": dealer.run, "party": party.run, "coordinator": coordinator.run}
NAMES = {"dealer": "dealer", "party": "party-a", "coordinator": "coordinator"}

_PEER = {"name": "dealer", "address": "127.0.0.1:7000"}
_OWN: dict[str, dict[str, Any]] = {
    "dealer": {"coordinator": "coordinator"},
    "party": {
        "peers": {"party-b": "127.0.0.1:7002"},
        "dealer": _PEER,
        "coordinator": "coordinator",
        "data": "data",
        "recipients": "recipients",
        "policy": "policy.yaml",
        "key_file": "store.key",
    },
    "coordinator": {
        "dealer": _PEER,
        "parties": [
            {"name": "party-a", "address": "127.0.0.1:7001"},
            {"name": "party-b", "address": "127.0.0.1:7002"},
        ],
        "store": "state/jobs.sqlite",
    },
}


@dataclass
class Folder:
    """`write` makes the file with some values changed, or removed where they are None."""

    root: Path
    role: str
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.authority = create_authority(self.root / "authority", "demo")
        self.certify()
        if self.role == "party":
            analyst = Identity("demo", Role.CLIENT, "analyst")
            self.authority.issue(analyst, self.root / "analyst")
            create_recipient(self.root / "recipients", find_credentials(self.root / "analyst"))
            (self.root / "policy.yaml").write_text("outputs: [sealed]\n")

    @property
    def identity(self) -> Identity:
        """Whose folder it is."""
        return Identity("demo", Role(self.role), NAMES[self.role])

    @property
    def certificate(self) -> Path:
        return self.root / "certificates" / f"{self.identity.stem}.pem"

    @property
    def key(self) -> Path:
        return self.certificate.with_suffix(".key")

    def certify(self, authority: Authority | None = None, **more: Any) -> None:
        """Certificates anew, maybe of another authority, or at another time."""
        shutil.rmtree(self.certificate.parent, ignore_errors=True)
        (authority or self.authority).issue(self.identity, self.certificate.parent, **more)

    def write(self, **changes: Any) -> Path:
        values = {
            "name": NAMES[self.role],
            "project": "demo",
            "listen": "127.0.0.1:0",
            "tls": {"directory": "certificates"},
            **_OWN[self.role],
        }
        changed = {key: value for key, value in (values | changes).items() if value is not None}
        path = self.root / f"{self.role}.yaml"
        path.write_text(yaml.safe_dump(changed))
        return path

    def start(self, **changes: Any) -> int:
        """The service in this process, which must not come up; its exit code."""
        return RUN[self.role](["--config", str(self.write(**changes))])
