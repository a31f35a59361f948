"""The local certificate authority behind `masque pki`: one per project, on one disk.

An authority is a directory, which whoever holds may become any service: keep it away from the
machines of the services. Keys are P-256, the curve that every TLS library signs with.

    authority.pem       its certificate; while it rotates, the previous one after it: for everybody
    authority.crl       what it has revoked, one list of each certificate: for everybody
    authority.key       the private key, and `previous.key` while it rotates: for nobody
    issued.jsonl        every certificate that it has issued
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
from masque.wire import issued
from masque.wire.certificates import (
    certificate_pem,
    load_authorities,
    load_signing_key,
    private_pem,
    public_bytes,
    utc_now,
)
from masque.wire.identity import SCHEME, Identity, Role
from masque.wire.keyfiles import PRIVATE, PUBLIC, write_files
from masque.wire.revocation import LISTS_FILE, Revocations
from masque.wire.trust import Trust, endorsement, project_of

AUTHORITY_FILE, AUTHORITY_KEY_FILE = "authority.pem", "authority.key"
PREVIOUS_KEY_FILE = "previous.key"
AUTHORITY_LIFETIME = dt.timedelta(days=3650)
LEAF_LIFETIME = dt.timedelta(days=90)
BACKDATED = dt.timedelta(minutes=5)
"""Certificates start this long ago, for machines whose clocks run behind."""

_NEVER = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


Signer = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


@dataclass(frozen=True)
class Authority:
    """A project's authority: its certificate, and the key that issues others.

    `previous` is what it rotates away from: believed, and able to revoke, until it is retired.
    """

    project: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    directory: Path
    previous: Signer | None = field(default=None, repr=False)

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Certificate and key, the current pair first."""
        own = (self.certificate, self.key)
        return (own,) if self.previous is None else (own, self.previous)

    @property
    def trust(self) -> Trust:
        """Whom everybody who has this authority's files believes."""
        found = Trust(
            tuple(certificate for certificate, _ in self.signers),
            Revocations(self.directory / LISTS_FILE),
        )
        found.revocations.read(found.authorities)
        return found

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
        """Make a key here, certify it, and write `<name>.<role>.pem` and `.key` into `directory`.

        For services of this very machine: elsewhere the key is made where it is used
        (`masque.wire.requests`). The authority's public files are written beside them.

        Returns the certificate's path. Raises `Conflict` if a file exists and `replace` is false,
        `IdentityError` for a foreign project or an unusable host.
        """
        path = directory / f"{identity.stem}.pem"
        check_bundle(directory, self.trust)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(
            identity, key.public_key(), hosts=hosts, lifetime=lifetime, now=now, log=False
        )
        files = {
            path: (certificate_pem(certificate), PUBLIC),
            path.with_suffix(".key"): (private_pem(key), PRIVATE),
        }
        write_files(files, replace=replace)
        issued.record(self.directory, certificate)
        self.hand_out(directory)
        return path

    def certify(
        self,
        identity: Identity,
        public: ec.EllipticCurvePublicKey,
        *,
        hosts: Sequence[str],
        lifetime: dt.timedelta = LEAF_LIFETIME,
        now: dt.datetime | None = None,
        log: bool = True,
    ) -> x509.Certificate:
        """A certificate of `identity` for the holder of this key, noted in `issued.jsonl`.

        `hosts` are the DNS names and IP addresses at which the service is reached by programs that
        know nothing of identities. A certificate ends with its authority at the latest.
        """
        if identity.project != self.project:
            raise IdentityError(
                f"The authority of project {self.project!r} cannot certify {identity.uri}.",
                hint="Open the authority of that project.",
                project=identity.project,
            )
        start = (now or utc_now()) - BACKDATED
        issuer, latest = self.certificate.subject, self.certificate.not_valid_after_utc
        builder = _builder(_subject(identity), issuer, public, start, lifetime, latest)
        certificate = _leaf(builder, self, identity, hosts).sign(self.key, hashes.SHA256())
        if log:
            issued.record(self.directory, certificate)
        return certificate

    def hand_out(self, directory: Path) -> None:
        """Write what everybody gets, `authority.pem` and `authority.crl`, into `directory`."""
        check_bundle(directory, self.trust)
        files = {directory / AUTHORITY_FILE: (self.trust.pem, PUBLIC)}
        lists = self.directory / LISTS_FILE
        if lists.exists():
            files[directory / LISTS_FILE] = (lists.read_bytes(), PUBLIC)
        write_files(files, replace=True)


def check_bundle(directory: Path, trust: Trust) -> None:
    """`IdentityError` if `directory` has another authority's certificate, not related to these."""
    target = directory / AUTHORITY_FILE
    if not target.exists():
        return
    there = load_authorities(target)
    if not set(there) & set(trust.authorities) and not Trust(there).accepts(trust.authorities):
        raise IdentityError(
            f"{target} is the certificate of another authority.",
            hint="Keep the certificates of each authority in a directory of their own.",
            file=str(target),
        )


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
    certificate, key = new_signer(project, 1, lifetime=lifetime, now=now)
    files = {
        directory / AUTHORITY_KEY_FILE: (private_pem(key), PRIVATE),
        directory / AUTHORITY_FILE: (certificate_pem(certificate), PUBLIC),
    }
    write_files(files, replace=replace)
    if replace:
        for name in (LISTS_FILE, PREVIOUS_KEY_FILE, issued.FILE):
            (directory / name).unlink(missing_ok=True)
    return Authority(project, certificate, key, directory)


def new_signer(
    project: str,
    generation: int,
    *,
    lifetime: dt.timedelta = AUTHORITY_LIFETIME,
    now: dt.datetime | None = None,
    endorsed_by: ec.EllipticCurvePrivateKey | None = None,
) -> Signer:
    """A new key and its own certificate; the key before it vouches for it, if there is one."""
    key = ec.generate_private_key(ec.SECP256R1())
    unit = "authority" if generation == 1 else f"authority {generation}"
    subject = _name(f"{project} authority", project, unit)
    start = (now or utc_now()) - BACKDATED
    usage = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(subject, subject, key.public_key(), start, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(usage, critical=False)
    )
    if endorsed_by is not None:
        builder = builder.add_extension(endorsement(endorsed_by, project, key), critical=False)
    return builder.sign(key, hashes.SHA256()), key


def open_authority(directory: Path) -> Authority:
    """Load the authority that `create_authority` made in `directory`."""
    found = load_authorities(directory / AUTHORITY_FILE)
    key = load_signing_key(directory / AUTHORITY_KEY_FILE, "authority's private key")
    previous = None
    if len(found) > 1:
        before = load_signing_key(directory / PREVIOUS_KEY_FILE, "previous authority's private key")
        previous = found[1], before
    project = project_of(found[0])
    pairs = [(found[0], key), *([previous] if previous else [])]
    if not project or any(public_bytes(c) != public_bytes(k) for c, k in pairs):
        raise IdentityError(
            f"The key and the certificate in {directory} do not belong together.",
            hint="Restore both files of one authority.",
            directory=str(directory),
        )
    return Authority(project, found[0], key, directory, previous)


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
        *(host_name(host) for host in dict.fromkeys(hosts)),
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
    key: ec.EllipticCurvePublicKey,
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
        .public_key(key)
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


def host_name(host: str) -> x509.GeneralName:
    """A host as certificates write it; `IdentityError` if they may not."""
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
