"""Requests for certificates: the key is made where it is used, and only its public half travels.

    <name>.<role>.csr         the request (PKCS 10, PEM), signed by the new key: for the authority
    <name>.<role>.next.key    the new key, until the certificate for it is installed

Whoever carries a request could put another one in its place. So the two ends compare the
fingerprint of the public key by other means: on the telephone, from a business card.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from masque.errors import Conflict, IdentityError
from masque.wire.authority import host_name
from masque.wire.certificates import UNREADABLE, key_fingerprint, load_signing_key, private_pem
from masque.wire.identity import SCHEME, Identity, parse_identity
from masque.wire.keyfiles import PRIVATE, PUBLIC, write_files
from masque.wire.tls import next_key

LARGEST = 64 << 10
_SPOKEN = 20
"""Hexadecimal digits of a fingerprint that must agree: five groups, 80 bits."""


@dataclass(frozen=True)
class Request:
    """Who asks, under which hosts, with which key; the signature by that key was verified."""

    identity: Identity
    hosts: tuple[str, ...]
    key: ec.EllipticCurvePublicKey = field(repr=False)
    fingerprint: str


def make_request(
    directory: Path, identity: Identity, hosts: Sequence[str], *, renew: bool = False
) -> tuple[Path, Request]:
    """Make a key in `directory` and write the request for its certificate; returns path, content.

    Asked again before the certificate came, it writes a request for the same key. The key in use
    is not touched. Raises `Conflict` if there is a certificate already and `renew` is false.
    """
    installed = directory / f"{identity.stem}.pem"
    if installed.exists() and not renew:
        raise Conflict(
            f"{installed} exists already.",
            hint="Ask for a new key and certificate with --renew: the old ones stay in use until "
            "the new ones are installed.",
            file=str(installed),
        )
    waiting = next_key(directory / f"{identity.stem}.key")
    if waiting.exists():
        key = load_signing_key(waiting)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        write_files({waiting: (private_pem(key), PRIVATE)})
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(identity.uri),
        x509.DNSName(identity.server_name),
        *(host_name(host) for host in dict.fromkeys(hosts)),
    ]
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, identity.stem[:64])]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{identity.stem}.csr"
    content = csr.public_bytes(serialization.Encoding.PEM)
    write_files({path: (content, PUBLIC)}, replace=True)
    return path, read_request(content, str(path))


def read_request(content: bytes, where: str) -> Request:
    """Read a request that somebody sent. Raises `IdentityError` for whatever is wrong with it."""
    try:
        if len(content) > LARGEST:
            raise ValueError(where)
        csr = x509.load_pem_x509_csr(content)
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key, signed = csr.public_key(), csr.is_signature_valid
    except (*UNREADABLE, x509.ExtensionNotFound):
        raise _bad(where, "is not a request that Masque has made") from None
    if not signed:
        raise _bad(where, "was changed after it was signed: its signature is wrong")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad(where, "has another kind of key than P-256")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or not uris[0].startswith(f"{SCHEME}:"):
        raise _bad(where, "asks for no Masque identity, or for several")
    identity = parse_identity(uris[0])
    if not all(isinstance(n, x509.DNSName | x509.IPAddress | _Uri) for n in names):
        raise _bad(where, "asks for names of another kind than hosts")
    given = [
        str(value) for kind in (x509.DNSName, x509.IPAddress) for value in _values(names, kind)
    ]
    hosts = tuple(host for host in given if host != identity.server_name)
    for host in hosts:
        host_name(host)
    return Request(identity, hosts, key, key_fingerprint(csr))


def agrees(given: str, fingerprint: str) -> bool:
    """Whether what a person typed is this fingerprint, or its first five groups at least."""
    digits = re.sub(r"[\s:-]", "", given).lower()
    whole = fingerprint.replace(" ", "")
    return len(digits) >= _SPOKEN and whole.startswith(digits)


_Uri = x509.UniformResourceIdentifier


def _values(
    names: x509.SubjectAlternativeName, kind: type[x509.DNSName] | type[x509.IPAddress]
) -> list[object]:
    return list(names.get_values_for_type(kind))


def _bad(where: str, what: str) -> IdentityError:
    return IdentityError(
        f"{where} {what}.",
        hint="Ask for a new one, made with `masque pki request`.",
        file=where,
    )
