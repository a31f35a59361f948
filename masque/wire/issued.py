"""What an authority has issued: `issued.jsonl`, one line a certificate, only ever added to.

By it the authority knows who has a certificate already, and what to revoke when told a name.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509

from masque.errors import IdentityError
from masque.wire.certificates import certificate_identity, public_bytes
from masque.wire.identity import parse_identity

FILE = "issued.jsonl"


@dataclass(frozen=True)
class Issued:
    """One certificate: serial number, key identifier of its issuer, and SHA-256 of its own key in
    hexadecimal; times in ISO, UTC.
    """

    serial: str
    identity: str
    issuer: str
    key: str
    not_before: str
    not_after: str

    @property
    def stem(self) -> str:
        """`<name>.<role>`."""
        return parse_identity(self.identity).stem

    def ends(self) -> dt.datetime:
        """When it expires."""
        return dt.datetime.fromisoformat(self.not_after)


def describe(certificate: x509.Certificate) -> Issued:
    """The line of a certificate."""
    return Issued(
        serial=f"{certificate.serial_number:x}",
        identity=certificate_identity(certificate).uri,
        issuer=issuer_of(certificate),
        key=hashlib.sha256(public_bytes(certificate)).hexdigest(),
        not_before=certificate.not_valid_before_utc.isoformat(),
        not_after=certificate.not_valid_after_utc.isoformat(),
    )


def issuer_of(certificate: x509.Certificate) -> str:
    """The identifier of the key that signed a certificate, which every one of ours names."""
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    return (found.value.key_identifier or b"").hex()


def record(directory: Path, certificate: x509.Certificate) -> None:
    """Add a line; returns once it is on disk."""
    line = json.dumps(asdict(describe(certificate))) + "\n"
    path = directory / FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise IdentityError(
            f"Cannot note in {path} what was issued: {error.strerror}.",
            hint="Mend the permissions of the authority's directory or free some space.",
            file=str(path),
        ) from error


def read(directory: Path) -> list[Issued]:
    """Everything issued so far, oldest first. Raises `IdentityError` for a damaged line."""
    path = directory / FILE
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            found.append(Issued(**json.loads(line)))
            found[-1].stem, found[-1].ends()
        except (ValueError, TypeError, AttributeError, RecursionError, IdentityError):
            raise IdentityError(
                f"{path}, line {number}, cannot be read.",
                hint="Restore the file: it says what the authority has issued.",
                file=str(path),
                line=number,
            ) from None
    return found


def live(directory: Path, revoked: frozenset[int]) -> list[Issued]:
    """What is neither expired nor revoked."""
    now = dt.datetime.now(dt.UTC)
    return [
        one for one in read(directory) if one.ends() > now and int(one.serial, 16) not in revoked
    ]
