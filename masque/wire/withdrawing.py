"""What an authority takes back: certificates by revoking them, its own key by rotating.

Rotation, so that no running job stops: `rotate`, give everybody the bundle; issue everybody's
certificates anew; `retire`, give everybody the bundle again. In between both are believed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from masque.errors import Conflict, NotFound
from masque.wire import issued
from masque.wire.authority import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    PREVIOUS_KEY_FILE,
    Authority,
    new_signer,
    open_authority,
)
from masque.wire.certificates import certificate_pem, load_certificate, private_pem, utc_now
from masque.wire.issued import Issued
from masque.wire.keyfiles import PRIVATE, PUBLIC, read_file, write_files
from masque.wire.revocation import BLOCK, LISTS_FILE

REASONS = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
}
"""Why a certificate is revoked, in the words of RFC 5280."""


def revoke(
    authority: Authority,
    certificates: Sequence[Issued],
    *,
    reason: str = "unspecified",
    now: dt.datetime | None = None,
) -> bytes:
    """Put certificates on the lists and write `authority.crl`; returns its content."""
    moment = now or utc_now()
    entries = _entries(authority)
    for one in certificates:
        serial = int(one.serial, 16)
        entries.setdefault(serial, _entry(serial, moment, reason))
    return _publish(authority, list(entries.values()), moment)


def find(authority: Authority, what: str) -> list[Issued]:
    """The certificates meant by `<name>.<role>` (all that are live), a serial number or a file.

    Raises `NotFound` if this authority has issued nothing of the kind.
    """
    everything = issued.read(authority.directory)
    path = Path(what)
    if path.suffix == ".pem" or path.is_file():
        serial = f"{load_certificate(path).serial_number:x}"
        found = [one for one in everything if one.serial == serial]
    else:
        serials = authority.trust.revocations.serials
        live = issued.live(authority.directory, serials)
        found = [one for one in live if one.stem == what]
        found = found or [one for one in everything if one.serial == what.lower()]
    if not found:
        raise NotFound(
            f"This authority has issued no live certificate {what!r}.",
            hint="Name it as <name>.<role>, by its serial number or its file: see "
            "`masque pki status --authority D`.",
            certificate=what,
        )
    return found


def rotate(authority: Authority, *, now: dt.datetime | None = None) -> Authority:
    """Make a new key, for which the old one vouches; both are believed until `retire`."""
    if authority.previous is not None:
        raise Conflict(
            f"The authority in {authority.directory} is being rotated already.",
            hint="End it with `masque pki retire` once all certificates are issued anew.",
        )
    generation = _generation(authority.certificate) + 1
    certificate, key = new_signer(authority.project, generation, now=now, endorsed_by=authority.key)
    bundle = certificate_pem(certificate) + certificate_pem(authority.certificate)
    home = authority.directory
    # The old key first under its new name: an interruption never loses it.
    write_files({home / PREVIOUS_KEY_FILE: (private_pem(authority.key), PRIVATE)}, replace=True)
    files = {
        home / AUTHORITY_KEY_FILE: (private_pem(key), PRIVATE),
        home / AUTHORITY_FILE: (bundle, PUBLIC),
    }
    write_files(files, replace=True)
    after = open_authority(home)
    _publish(after, list(_entries(after).values()), now or utc_now())
    return after


def retire(
    authority: Authority, *, force: bool = False, now: dt.datetime | None = None
) -> Authority:
    """Believe the previous authority no more, and destroy its key.

    Raises `NotFound` if there is none, and `Conflict` if somebody has no certificate of the new
    one yet, unless `force`.
    """
    if authority.previous is None:
        raise NotFound(
            f"The authority in {authority.directory} is not being rotated.",
            hint="Begin with `masque pki rotate`.",
        )
    behind = _behind(authority)
    if behind and not force:
        raise Conflict(
            f"{', '.join(behind)} would be refused: all of their certificates are of the previous "
            "authority.",
            hint="Issue new ones first (`masque pki approve`), install them, or use --force.",
        )
    home = authority.directory
    write_files(
        {home / AUTHORITY_FILE: (certificate_pem(authority.certificate), PUBLIC)}, replace=True
    )
    (home / PREVIOUS_KEY_FILE).unlink(missing_ok=True)
    after = open_authority(home)
    _publish(after, list(_entries(after).values()), now or utc_now())
    return after


def _behind(authority: Authority) -> list[str]:
    """Whose live certificates are all of the previous authority."""
    key = authority.key.public_key()
    current = x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()
    live = issued.live(authority.directory, authority.trust.revocations.serials)
    fresh = {one.stem for one in live if one.issuer == current}
    return sorted({one.stem for one in live} - fresh)


def _generation(certificate: x509.Certificate) -> int:
    units = certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
    number = str(units[0].value).rpartition(" ")[2] if units else ""
    return int(number) if number.isdecimal() else 1


def _lists(authority: Authority) -> list[x509.CertificateRevocationList]:
    path = authority.directory / LISTS_FILE
    if not path.exists():
        return []
    authority.trust  # noqa: B018 - raises if the file is damaged or forged
    blocks = BLOCK.findall(read_file(path, "revocation list"))
    return [x509.load_pem_x509_crl(block) for block in blocks]


def _entries(authority: Authority) -> dict[int, x509.RevokedCertificate]:
    return {entry.serial_number: entry for crl in _lists(authority) for entry in crl}


def _entry(serial: int, moment: dt.datetime, reason: str) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment)
    if reason != "unspecified":
        builder = builder.add_extension(x509.CRLReason(REASONS[reason]), critical=False)
    return builder.build()


def _publish(
    authority: Authority, entries: Collection[x509.RevokedCertificate], moment: dt.datetime
) -> bytes:
    """Sign the lists under the next number, one by every key, and write them."""
    numbers = [
        crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        for crl in _lists(authority)
    ]
    content = b""
    for certificate, key in authority.signers:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(certificate.subject)
            .last_update(moment)
            .next_update(max(certificate.not_valid_after_utc, moment + dt.timedelta(days=1)))
            .add_extension(x509.CRLNumber(max(numbers, default=0) + 1), critical=False)
            .add_extension(identifier, critical=False)
        )
        for entry in entries:
            builder = builder.add_revoked_certificate(entry)
        content += builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    write_files({authority.directory / LISTS_FILE: (content, PUBLIC)}, replace=True)
    return content
