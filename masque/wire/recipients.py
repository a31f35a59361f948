"""Recipients: whom results are sealed to, and why a party may believe that key.

A recipient makes an X25519 key pair. The private half stays in `<name>.recipient.key` (0600). The
public half, `<name>.recipient.pub`, is one line of text that travels in job specs:

    masque-recipient-v1 <identity uri> <key> <certificate> <signature>      (the last three base64)

The recipient's certificate signs identity and key, so that nobody who relays the line, the
coordinator least of all, can put a key of its own under the recipient's name.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from masque.errors import IdentityError
from masque.wire.certificates import read_der, verify
from masque.wire.identity import Identity
from masque.wire.keyfiles import PRIVATE, PUBLIC, read_file, read_private_file, write_files
from masque.wire.tls import Credentials
from masque.wire.trust import Trust

KIND = "masque-recipient-v1"
_SIGNED = b"masque recipient v1\x00"


@dataclass(frozen=True)
class Recipient:
    """The public half: who, the key to seal to, and the line of text that proves it."""

    identity: Identity
    key: X25519PublicKey = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True)
class RecipientKey:
    """The private half, which opens what was sealed to `recipient`."""

    recipient: Recipient
    key: X25519PrivateKey = field(repr=False)


def create_recipient(
    directory: Path,
    credentials: Credentials,
    *,
    replace: bool = False,
    private: bytes | None = None,
) -> RecipientKey:
    """Make a key pair for the holder of `credentials` and write both files to `directory`.

    `private` is the 32 bytes of the private key, from the operating system if None. Raises
    `Conflict` if the files exist and `replace` is false: what was sealed to the old key opens with
    the old key only.
    """
    key = X25519PrivateKey.from_private_bytes(private or os.urandom(32))
    recipient = _attest(credentials, key.public_key())
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    private_path, public_path = _paths(directory, credentials.identity.name)
    files = {
        private_path: (content, PRIVATE),
        public_path: (f"{recipient.text}\n".encode(), PUBLIC),
    }
    write_files(files, replace=replace)
    return RecipientKey(recipient, key)


def renew_recipient(directory: Path, credentials: Credentials) -> Recipient:
    """Let the holder's present certificate vouch for the key pair that is there.

    What was sealed to it opens as before. The new `.recipient.pub` goes to every party.
    """
    private_path, public_path = _paths(directory, credentials.identity.name)
    recipient = _attest(credentials, _private_key(private_path).public_key())
    content = f"{recipient.text}\n".encode()
    write_files({public_path: (content, PUBLIC)}, replace=True)
    return recipient


def load_recipient(directory: Path, name: str, trust: Trust) -> Recipient:
    """Read and verify `<name>.recipient.pub`."""
    path = _paths(directory, name)[1]
    text = read_file(path, "recipient's public key").decode("ascii", "replace")
    return parse_recipient(text, trust)


def load_recipient_key(
    directory: Path, name: str, trust: Trust, *, at: dt.datetime | None = None
) -> RecipientKey:
    """Read both files of a recipient; `at` is the moment at which its certificate must be valid."""
    private_path, public_path = _paths(directory, name)
    key = _private_key(private_path)
    text = read_file(public_path, "recipient's public key").decode("ascii", "replace")
    recipient = parse_recipient(text, trust, at=at)
    if key.public_key().public_bytes_raw() != recipient.key.public_bytes_raw():
        raise _no_pair(private_path)
    return RecipientKey(recipient, key)


def parse_recipient(text: str, trust: Trust, *, at: dt.datetime | None = None) -> Recipient:
    """Read a recipient's line and believe it, or raise an `IdentityError` that says why not."""
    parts = text.split()
    if len(parts) != 5 or parts[0] != KIND:
        raise IdentityError(
            f"This is not the public key of a recipient: {text[:40]!r}.",
            hint="Give the content of a .recipient.pub file, one line.",
        )
    try:
        raw, certificate_bytes, signature = (
            base64.b64decode(part, validate=True) for part in parts[2:]
        )
        key = X25519PublicKey.from_public_bytes(raw)
    except (ValueError, binascii.Error):
        raise IdentityError(
            f"The public key of the recipient {parts[1]!r} is damaged.",
            hint="Copy the .recipient.pub file again.",
        ) from None
    certificate = read_der(certificate_bytes)
    identity = verify(certificate, trust, at=at)
    verify_signature(certificate, signature, _statement(identity, raw), f"The key of {identity}")
    if identity.uri != parts[1]:
        raise IdentityError(
            f"The recipient's key names {parts[1]!r} but was signed by {identity.uri}.",
            hint="Ask the recipient for its .recipient.pub file.",
        )
    return Recipient(identity, key, " ".join(parts))


def _private_key(path: Path) -> X25519PrivateKey:
    try:
        content = read_private_file(path, "recipient's private key")
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, X25519PrivateKey):
        raise _no_pair(path)
    return key


def _no_pair(path: Path) -> IdentityError:
    return IdentityError(
        f"{path} is not the private key of {path.with_suffix('.pub')}.",
        hint="Restore both files of one pair.",
        file=str(path),
    )


def sign(credentials: Credentials, statement: bytes) -> bytes:
    """ECDSA with SHA-256 by the certificate's key."""
    return credentials.key.sign(statement, ec.ECDSA(hashes.SHA256()))


def verify_signature(
    certificate: x509.Certificate, signature: bytes, statement: bytes, what: str
) -> None:
    """`IdentityError` unless the certificate's key signed exactly this statement."""
    key = certificate.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, statement, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise IdentityError(
            f"{what} does not carry a true signature of its sender: it was changed or forged.",
            hint="Fetch it again from the one who made it.",
        ) from None


def _attest(credentials: Credentials, key: X25519PublicKey) -> Recipient:
    raw = key.public_bytes_raw()
    identity = credentials.identity
    certificate = credentials.certificate.public_bytes(serialization.Encoding.DER)
    signature = sign(credentials, _statement(identity, raw))
    encoded = (base64.b64encode(part).decode() for part in (raw, certificate, signature))
    return Recipient(identity, key, " ".join((KIND, identity.uri, *encoded)))


def _statement(identity: Identity, raw: bytes) -> bytes:
    return _SIGNED + identity.uri.encode() + b"\x00" + raw


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}.recipient.key", directory / f"{name}.recipient.pub"
