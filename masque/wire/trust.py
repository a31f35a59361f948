"""Whom a process believes: the project's authorities, and what they have revoked.

`authority.pem` holds one certificate of an authority, the current one; while the authority rotates
it holds the previous one as well, after it. A new authority carries, as an extension of its own
certificate, the signature of the old key over its public key: so whoever trusts the old one can
tell the new one from anybody else's, without asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from masque.wire.revocation import Revocations

ENDORSEMENT = x509.ObjectIdentifier("2.25.265670067237030918516202555102821219493")
"""The extension with the signature of the authority before."""

_ENDORSED = b"masque authority v1\x00"
Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Trust:
    """The authorities that are believed, the current one first, and all that they revoked."""

    authorities: tuple[x509.Certificate, ...]
    revocations: Revocations = field(default_factory=Revocations, compare=False, repr=False)

    @property
    def pem(self) -> bytes:
        """The authorities' certificates as PEM text."""
        return b"".join(a.public_bytes(serialization.Encoding.PEM) for a in self.authorities)

    def issuer(self, certificate: x509.Certificate) -> x509.Certificate | None:
        """Which of the authorities has issued it; None if none has."""
        for authority in self.authorities:
            try:
                certificate.verify_directly_issued_by(authority)
            except (ValueError, TypeError, InvalidSignature):
                continue
            return authority
        return None

    def accepts(self, bundle: Sequence[x509.Certificate]) -> bool:
        """Whether every authority of another bundle is one of these, or endorsed by one."""
        known = list(self.authorities)
        waiting = [authority for authority in bundle if authority not in known]
        while waiting:
            found = [new for new in waiting if any(endorses(old, new) for old in known)]
            if not found:
                return False
            known += found
            waiting = [authority for authority in waiting if authority not in found]
        return True


def endorsement(old: Key, project: str, new: Key) -> x509.UnrecognizedExtension:
    """The extension with which the old key vouches for the new one."""
    signature = old.sign(_statement(project, new.public_key()), ec.ECDSA(hashes.SHA256()))
    return x509.UnrecognizedExtension(ENDORSEMENT, signature)


def endorses(old: x509.Certificate, new: x509.Certificate) -> bool:
    """Whether the old authority vouches for the new one."""
    key, theirs = old.public_key(), new.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or project_of(old) != project_of(new):
        return False
    if not isinstance(theirs, ec.EllipticCurvePublicKey):
        return False
    try:
        new.verify_directly_issued_by(new)
        value = new.extensions.get_extension_for_oid(ENDORSEMENT).value
        statement = _statement(project_of(old), theirs)
        key.verify(value.public_bytes(), statement, ec.ECDSA(hashes.SHA256()))
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return True


def project_of(authority: x509.Certificate) -> str:
    """The project that an authority certifies for; empty if it does not say."""
    names = authority.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else ""


def _statement(project: str, key: ec.EllipticCurvePublicKey) -> bytes:
    public = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _ENDORSED + project.encode() + b"\x00" + public
