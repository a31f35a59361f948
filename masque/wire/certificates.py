"""Certificates: what one says about its holder, and whether to believe it.

The house has one authority (two while it rotates) and no intermediates, so verification is short:
signed by its key, valid at the moment asked about, not revoked, made for connections and not for
signing other certificates, and exactly one Masque identity among its names.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from masque.errors import IdentityError
from masque.wire.identity import SCHEME, Identity, Role, parse_identity
from masque.wire.keyfiles import read_file, read_private_file
from masque.wire.trust import Trust, project_of

UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What reading a damaged certificate can raise."""

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True)
class CertificateFacts:
    """What a person wants to know of a certificate. Times are UTC; `identity` None: authority."""

    identity: Identity | None
    authority: bool
    subject: str
    issuer: str
    hosts: tuple[str, ...]
    not_before: dt.datetime
    not_after: dt.datetime
    fingerprint: str
    key_fingerprint: str
    serial: str

    def remaining(self, now: dt.datetime | None = None) -> dt.timedelta:
        """How long the certificate stays valid; negative when it has expired."""
        return self.not_after - (now or utc_now())


def utc_now() -> dt.datetime:
    """The present moment with its time zone."""
    return dt.datetime.now(dt.UTC)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate in hexadecimal, as `openssl x509 -fingerprint` shows it."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def describe(certificate: x509.Certificate) -> CertificateFacts:
    """The facts of a certificate, believed or not: nothing is verified here."""
    authority = is_authority(certificate)
    return CertificateFacts(
        identity=None if authority else certificate_identity(certificate),
        authority=authority,
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        hosts=_hosts(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=fingerprint(certificate),
        key_fingerprint=key_fingerprint(certificate),
        serial=f"{certificate.serial_number:x}",
    )


def certificate_identity(certificate: x509.Certificate) -> Identity:
    """The one identity that a certificate claims; `IdentityError` if none or several."""
    uris = _uris(certificate)
    if len(uris) != 1:
        raise IdentityError(
            f"The certificate of {certificate.subject.rfc4514_string()} holds {len(uris)} Masque "
            "identities, not one.",
            hint="Issue one with `masque pki issue`.",
        )
    return parse_identity(uris[0])


def verify(
    certificate: x509.Certificate,
    trust: Trust,
    *,
    role: Role | None = None,
    name: str | None = None,
    at: dt.datetime | None = None,
) -> Identity:
    """Believe `certificate`, or raise an `IdentityError` that says why not.

    `role` and `name` are what the holder must be, if given; `at` (UTC) is the moment at which the
    certificate must be valid, by default now.
    """
    identity = certificate_identity(certificate)
    whose = f"The certificate of {identity}"
    authority = _verify_issuer(certificate, trust, whose)
    _verify_period(certificate, whose, at or utc_now())
    _verify_end(authority, "The certificate of the authority", at or utc_now())
    _verify_purpose(certificate, whose)
    if certificate.serial_number in trust.revocations:
        raise revoked(whose, certificate)
    if role is not None and identity.role != role:
        raise IdentityError(
            f"{whose} is for the role {identity.role}, but the role {role} is needed here.",
            hint=f"Use or issue a certificate with the role {role}.",
            role=identity.role.value,
        )
    if name is not None and identity.name != name:
        raise IdentityError(
            f"{whose} does not belong to {name!r}.",
            hint="Check which certificate is used, and which service answers at the address.",
            name=identity.name,
        )
    return identity


def revoked(whose: str, certificate: x509.Certificate | None = None) -> IdentityError:
    """The error for a certificate that the authority has revoked."""
    return IdentityError(
        f"{whose} was revoked by the authority.",
        hint="Ask for a new one with `masque pki request --renew`, if its holder is still trusted.",
        revoked=True,
        serial=f"{certificate.serial_number:x}" if certificate is not None else None,
    )


def _verify_issuer(certificate: x509.Certificate, trust: Trust, whose: str) -> x509.Certificate:
    try:
        issuer = trust.issuer(certificate)
    except UNREADABLE:
        issuer = None
    if issuer is None:
        authority = trust.authorities[0]
        raise IdentityError(
            f"{whose} was not issued by this authority "
            f"({authority.subject.rfc4514_string()}, {fingerprint(authority)[:16]}).",
            hint="Both sides need certificates of one authority: compare authority.pem.",
            fingerprint=fingerprint(certificate)[:16],
        )
    return issuer


def _verify_period(certificate: x509.Certificate, whose: str, at: dt.datetime) -> None:
    _verify_end(certificate, whose, at)
    start = certificate.not_valid_before_utc
    if at < start:
        raise IdentityError(
            f"{whose} is not valid before {start:%Y-%m-%d %H:%M} UTC.",
            hint="Check the clock of this machine.",
            valid_from=start.isoformat(),
        )


def _verify_end(certificate: x509.Certificate, whose: str, at: dt.datetime) -> None:
    end = certificate.not_valid_after_utc
    if at > end:
        raise IdentityError(
            f"{whose} expired at {end:%Y-%m-%d %H:%M} UTC.",
            hint="Renew it with `masque pki request --renew`; running services take it up.",
            expired=end.isoformat(),
        )


def _verify_purpose(certificate: x509.Certificate, whose: str) -> None:
    needed = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    if is_authority(certificate) or usage is None or not needed <= set(usage):
        raise IdentityError(
            f"{whose} is not made for connections between services.",
            hint="Issue one with `masque pki issue`.",
        )


def load_certificate(source: Path | bytes, what: str = "certificate") -> x509.Certificate:
    """Read one certificate from a PEM file or PEM text."""
    content = read_file(source, what) if isinstance(source, Path) else source
    where = str(source) if isinstance(source, Path) else None
    try:
        return _whole(x509.load_pem_x509_certificate(content))
    except UNREADABLE:
        raise IdentityError(
            f"The {what}{f' at {where}' if where else ''} is not a PEM certificate.",
            hint="Issue it again with `masque pki`.",
            file=where,
        ) from None


def load_authorities(source: Path | bytes) -> tuple[x509.Certificate, ...]:
    """Read `authority.pem`: one authority, or two or more of one project while it rotates.

    Raises `IdentityError` if one of them is no authority, or of another project than the first.
    """
    content = read_file(source, "authority's certificate") if isinstance(source, Path) else source
    where = str(source) if isinstance(source, Path) else "what was given"
    try:
        found = tuple(x509.load_pem_x509_certificates(content))
        sound = all(map(is_authority, found)) and len(set(map(project_of, found))) == 1
    except UNREADABLE:
        found, sound = (), False
    if not found:
        load_certificate(source, "authority's certificate")  # for its error
    if not sound:
        raise IdentityError(
            f"{where} holds something else than the certificates of one project's authority.",
            hint="Ask the authority for its authority.pem.",
            file=where,
        )
    return found


def load_signing_key(path: Path, what: str = "private key") -> ec.EllipticCurvePrivateKey:
    """Read a P-256 private key from a PEM file that only its owner can read."""
    try:
        key = serialization.load_pem_private_key(read_private_file(path, what), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(
            f"The {what} at {path} is not an elliptic-curve private key in PEM.",
            hint="Issue it again with `masque pki`.",
            file=str(path),
        )
    return key


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key as PEM text (PKCS 8, no password): for files with mode 0600 only."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_bytes(
    key: x509.Certificate | x509.CertificateSigningRequest | ec.EllipticCurvePrivateKey,
) -> bytes:
    """The public key of any of them, for comparing them."""
    return spki(key.public_key())


def spki(key: CertificatePublicKeyTypes) -> bytes:
    """A public key in DER."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_fingerprint(thing: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """What people compare: 160 bits of the public key's SHA-256, ten groups of four digits."""
    digits = hashlib.sha256(public_bytes(thing)).hexdigest()[:40]
    return " ".join(digits[start : start + 4] for start in range(0, 40, 4))


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it is made for issuing others."""
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return ()
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    hosts = (*names.get_values_for_type(x509.DNSName), *addresses)
    return tuple(host for host in hosts if not host.endswith(f".{SCHEME}"))


def read_der(content: bytes) -> x509.Certificate:
    """A certificate from untrusted DER bytes, every part of it readable; `IdentityError` if not."""
    try:
        return _whole(x509.load_der_x509_certificate(content))
    except UNREADABLE:
        raise IdentityError(
            "What was sent as a certificate cannot be read.",
            hint="Ask the sender for it again.",
        ) from None


def _whole(certificate: x509.Certificate) -> x509.Certificate:
    """The same, now that every part was read: they are parsed when first asked for."""
    _ = certificate.extensions, certificate.subject, certificate.issuer
    certificate.public_key()
    return certificate


def _uris(certificate: x509.Certificate) -> list[str]:
    names = _extension(certificate, x509.SubjectAlternativeName)
    uris = [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)
    return [uri for uri in uris if uri.startswith(f"{SCHEME}:")]
