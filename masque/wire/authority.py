"""The local certificate authority behind `masque pki`: one per project, on one disk.

An authority is a directory with `authority.pem`, which everybody gets, and `authority.key`, which
whoever holds may become any service: keep it away from the machines of the services, or delete it
once all certificates are issued. Keys are P-256, the curve that every TLS library signs with.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from masque.errors import IdentityError
from masque.wire.certificates import (
    certificate_pem,
    load_certificate,
    load_signing_key,
    private_pem,
    public_bytes,
    utc_now,
)
from masque.wire.identity import SCHEME, Identity, Role
from masque.wire.keyfiles import PRIVATE, PUBLIC, write_files

AUTHORITY_FILE, AUTHORITY_KEY_FILE = "authority.pem", "authority.key"
AUTHORITY_LIFETIME = dt.timedelta(days=3650)
LEAF_LIFETIME = dt.timedelta(days=90)
BACKDATED = dt.timedelta(minutes=5)
"""Certificates start this long ago, for machines whose clocks run behind."""

_NEVER = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Authority:
    """A project's authority: its certificate, and the key that issues others."""

    project: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def issue(
        self,
        identity: Identity,
        directory: Path,
        *,
        hosts: Sequence[str] = LOCAL_HOSTS,
        lifetime: dt.timedelta = LEAF_LIFETIME,
        now: dt.datetime | None = None,
        replace: bool = False,
    ) -> Path:
        """Write `<name>.<role>.pem` and `.key` and a copy of `authority.pem` into `directory`.

        `hosts` are the DNS names and IP addresses at which the service is reached by programs that
        know nothing of identities. A certificate ends with its authority at the latest.

        Returns the certificate's path. Raises `Conflict` if a file exists and `replace` is false,
        `IdentityError` for a foreign project or an unusable host.
        """
        if identity.project != self.project:
            raise IdentityError(
                f"The authority of project {self.project!r} cannot certify {identity.uri}.",
                hint="Open the authority of that project.",
                project=identity.project,
            )
        authority_copy = self._copy_for(directory)
        key = ec.generate_private_key(ec.SECP256R1())
        start = (now or utc_now()) - BACKDATED
        issuer, latest = self.certificate.subject, self.certificate.not_valid_after_utc
        builder = _builder(_subject(identity), issuer, key, start, lifetime, latest)
        certificate = _leaf(builder, self, identity, hosts).sign(self.key, hashes.SHA256())
        stem = directory / identity.stem
        files = {
            stem.with_name(f"{stem.name}.pem"): (certificate_pem(certificate), PUBLIC),
            stem.with_name(f"{stem.name}.key"): (private_pem(key), PRIVATE),
        }
        write_files(files, replace=replace)
        write_files(authority_copy)
        return stem.with_name(f"{stem.name}.pem")

    def _copy_for(self, directory: Path) -> dict[Path, tuple[bytes, int]]:
        target, content = directory / AUTHORITY_FILE, certificate_pem(self.certificate)
        if not target.exists():
            return {target: (content, PUBLIC)}
        if target.read_bytes() != content:
            raise IdentityError(
                f"{target} is the certificate of another authority.",
                hint="Keep the certificates of each authority in a directory of their own.",
                file=str(target),
            )
        return {}


def create_authority(
    directory: Path,
    project: str,
    *,
    lifetime: dt.timedelta = AUTHORITY_LIFETIME,
    now: dt.datetime | None = None,
    replace: bool = False,
) -> Authority:
    """Make a new authority in `directory` (mode 0700; the key 0600).

    Raises `Conflict` if one is there and `replace` is false: everything that the old one issued
    becomes worthless with it.
    """
    Identity(project, Role.CLIENT, "check")  # the project's spelling
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{project} authority", project, "authority")
    start = (now or utc_now()) - BACKDATED
    usage = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, key, start, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = {
        directory / AUTHORITY_KEY_FILE: (private_pem(key), PRIVATE),
        directory / AUTHORITY_FILE: (certificate_pem(certificate), PUBLIC),
    }
    write_files(files, replace=replace)
    return Authority(project, certificate, key)


def open_authority(directory: Path) -> Authority:
    """Load the authority that `create_authority` made in `directory`."""
    certificate = load_certificate(directory / AUTHORITY_FILE, "authority's certificate")
    key = load_signing_key(directory / AUTHORITY_KEY_FILE, "authority's private key")
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if public_bytes(certificate) != public_bytes(key) or not names:
        raise IdentityError(
            f"The key and the certificate in {directory} do not belong together.",
            hint="Restore both files of one authority.",
            directory=str(directory),
        )
    return Authority(str(names[0].value), certificate, key)


def _leaf(
    builder: x509.CertificateBuilder,
    authority: Authority,
    identity: Identity,
    hosts: Sequence[str],
) -> x509.CertificateBuilder:
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(identity.uri),
        x509.DNSName(identity.server_name),
        *(_host(host) for host in dict.fromkeys(hosts)),
    ]
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(issuer, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: dt.datetime,
    lifetime: dt.timedelta,
    latest: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    if lifetime <= dt.timedelta(0):
        raise IdentityError("A certificate must be valid for some time.", hint="Ask for 1 day.")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(min(start + BACKDATED + lifetime, latest or _NEVER))
    )


def _subject(identity: Identity) -> x509.Name:
    return _name(identity.name, identity.project, identity.role)


def _name(common: str, project: str, unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, project),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, common[:64]),
        ]
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        if host.endswith(f".{SCHEME}") or not host or "*" in host:
            raise ValueError(host)
        return x509.DNSName(host)
    except ValueError:
        raise IdentityError(
            f"{host!r} cannot be a host of a certificate.",
            hint="Give DNS names or IP addresses, without wildcards; names under "
            f".{SCHEME} are reserved for identities.",
            host=host,
        ) from None


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
