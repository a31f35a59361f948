"""A party's ledger, signed and verified: who wrote it, and whether anything in it was changed.

Verifying needs the file and the authority's certificate alone. A line is believed if the
certificate that the ledger names for it is a party's, was issued by the authority, and signed it.
Whether a certificate was valid is judged at the time that the line itself tells.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from masque.errors import IdentityError, InputError
from masque.jobs import chain
from masque.jobs.chain import Chain, Head, Line, broken
from masque.wire.certificates import read_der, verify
from masque.wire.identity import Identity, Role
from masque.wire.keyfiles import read_file
from masque.wire.recipients import sign, verify_signature
from masque.wire.tls import Credentials
from masque.wire.trust import Trust


@dataclass(frozen=True)
class CertificateSigner:
    """`masque.jobs.ledger.Signer`: the certificate of `credentials` and its key."""

    credentials: Credentials

    @property
    def certificate(self) -> bytes:
        """In DER."""
        return self.credentials.certificate.public_bytes(serialization.Encoding.DER)

    def sign(self, statement: bytes) -> bytes:
        """ECDSA with SHA-256."""
        return sign(self.credentials, statement)


def signer_of(credentials: Credentials) -> Callable[[], CertificateSigner]:
    """Who signs now: with the certificate that was renewed last."""
    return lambda: CertificateSigner(credentials.renewed())


@dataclass(frozen=True)
class VerifiedLedger:
    """What is believed of a ledger; `notes` are for people, and no reason to doubt it."""

    party: Identity
    chain: Chain
    notes: tuple[str, ...]

    @property
    def head(self) -> Head:
        """The last line's name: note it, and no later copy can hide what was there."""
        assert self.chain.head is not None, "a verified ledger has lines"
        return self.chain.head

    def counts(self) -> dict[str, int]:
        """How many lines of each kind it has."""
        return dict(Counter(line.kind for line in self.chain.lines))


def parse_head(text: str) -> Head:
    """A head as it is shown, `number:hash`. Raises InputError."""
    number, _, digest = text.partition(":")
    if not re.fullmatch("[0-9]{1,18}", number) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise InputError(
            f"{text[:80]!r} is no head of a ledger.",
            hint="Give it as `masque ledger verify` has shown it: a number, a colon, 64 digits.",
        )
    return Head(int(number), digest)


def load_ledger(path: Path) -> Chain:
    """The lines of a ledger whose chain is whole. Raises InputError, NotFound, IdentityError."""
    found = chain.read_chain(read_file(path, "ledger"), str(path))
    if not found.lines:
        raise InputError(
            f"{path} holds no line of a ledger.",
            hint="Ledgers of earlier versions were not signed: there is nothing to verify in them.",
            file=str(path),
        )
    return found


def verify_ledger(path: Path, trust: Trust, *, noted: Head | None = None) -> VerifiedLedger:
    """Believe the ledger at `path`, or raise an InputError that names the first bad line.

    `noted` is a head that somebody has kept: the ledger must still have that line.
    """
    found = load_ledger(path)
    where = str(path)
    notes: list[str] = []
    party = _verify_lines(found, trust, where, notes)
    if noted is not None:
        check_head(found, noted, where)
    if found.torn:
        notes.append(
            f"after line {found.lines[-1].at} stand {len(found.torn)} bytes that are no whole "
            "line: it is being written, or a crash has torn it; the party notes that when it starts"
        )
    return VerifiedLedger(party, found, tuple(notes))


def check_head(found: Chain, noted: Head, where: str) -> None:
    """InputError unless the ledger has this line."""
    lines = found.lines
    if noted.number >= len(lines):
        raise broken(
            where,
            lines[-1].at + 1,
            f"the ledger ends before line number {noted.number}, which it had: lines were removed",
        )
    line = lines[noted.number]
    if line.head != noted:
        raise broken(where, line.at, f"line number {noted.number} is another than was noted")


def decoded(text: object) -> bytes:
    """Bytes from base64. Raises IdentityError."""
    try:
        return base64.b64decode(str(text), validate=True)
    except (ValueError, binascii.Error):
        raise IdentityError(
            "A certificate or signature cannot be read.", hint="Get a whole copy of the file."
        ) from None


def moment(seconds: object) -> dt.datetime:
    """Seconds since 1970 as UTC. Raises InputError."""
    try:
        return dt.datetime.fromtimestamp(float(str(seconds)), dt.UTC)
    except (ValueError, OverflowError, OSError):
        raise InputError(f"{str(seconds)[:40]!r} is no time.") from None


def _verify_lines(found: Chain, trust: Trust, where: str, notes: list[str]) -> Identity:
    certificate: x509.Certificate | None = None
    party: Identity | None = None
    last = 0.0
    for line in found.lines:
        try:
            if line.kind in (chain.BEGAN, chain.CERTIFICATE):
                certificate = read_der(decoded(line.entry.get("certificate")))
                at = moment(line.entry["time"])
                identity = verify(certificate, trust, role=Role.PARTY, at=at)
                if identity != (party or identity):
                    raise IdentityError(f"It is signed by {identity}, and those before by {party}.")
                party = identity
            assert certificate is not None, "the first line has one"
            signature = decoded(line.signature)
            verify_signature(certificate, signature, chain.statement(line.hash), "The line")
        except (IdentityError, InputError) as error:
            raise broken(where, line.at, error.message.rstrip(".")) from None
        notes += _oddities(line, certificate, last)
        last = line.entry["time"]
    assert party is not None, "the first line has a certificate"
    return party


def _oddities(line: Line, certificate: x509.Certificate, last: float) -> Iterator[str]:
    time = line.entry["time"]
    if moment(time) > certificate.not_valid_after_utc:
        yield f"line {line.at} was signed after the party's certificate had expired"
    if time < last:
        yield f"line {line.at} is dated before the one above it: a clock was set back"
    for part in line.entry.get("before", ()) if line.kind == chain.BEGAN else ():
        yield f"an earlier ledger was moved aside to {part['file']}, SHA-256 {part['sha256']}"
    if line.kind == chain.REPAIRED:
        yield f"before line {line.at} stand {line.entry['bytes']} bytes that a crash has torn"
