"""Putting what the authority sent where a service reads it, after checking all of it.

The order matters to a service that reads meanwhile: first whom to believe, then the certificate,
then its key under the final name. While key and certificate differ, the service finds the key
under its other name, or goes on with the pair that it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from cryptography import x509

from masque.errors import IdentityError, Refused
from masque.wire.authority import AUTHORITY_FILE
from masque.wire.certificates import (
    certificate_pem,
    describe,
    is_authority,
    key_fingerprint,
    load_authorities,
    load_certificate,
    load_signing_key,
    public_bytes,
    verify,
)
from masque.wire.identity import Identity
from masque.wire.keyfiles import PUBLIC, read_file, write_files
from masque.wire.revocation import LISTS_FILE, Revocations, read_lists
from masque.wire.tls import next_key
from masque.wire.trust import Trust, project_of

Confirm = Callable[[str, str], None]
"""Asked about an authority that nobody vouches for (its project, its fingerprint); raises: no."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\s*", re.S)


@dataclass
class Delivery:
    """What the files hold, taken apart; nothing is believed yet."""

    certificates: list[x509.Certificate] = field(default_factory=list)
    bundle: tuple[x509.Certificate, ...] = ()
    lists: bytes = b""


@dataclass(frozen=True)
class Installed:
    """What was done: identities with a new certificate, and whether the others were news."""

    identities: tuple[Identity, ...]
    bundle: bool
    lists: bool


def open_delivery(files: Sequence[Path]) -> Delivery:
    """Sort the contents of files. Raises `IdentityError` for what is none of the three kinds."""
    found = Delivery()
    for path in files:
        content = read_file(path, "certificate")
        blocks = list(_BLOCK.finditer(content))
        if not blocks:
            raise _strange(path)
        bundle = b""
        for block in blocks:
            kind, text = block[1], block[0]
            if b"PRIVATE" in kind:
                raise IdentityError(
                    f"{path} holds a private key. Somebody else may have it now: do not use it.",
                    hint="Make a key here with `masque pki request`; it never leaves this host.",
                    file=str(path),
                )
            if kind == b"X509 CRL":
                found.lists += text
            elif kind != b"CERTIFICATE":
                raise _strange(path)
            elif _of_authority(text, path):
                bundle += text
            else:
                found.certificates.append(load_certificate(text))
        if bundle:
            found.bundle = load_authorities(bundle)
    return found


def install(delivery: Delivery, directory: Path, confirm: Confirm) -> Installed:
    """Check everything, then put it into `directory`.

    Raises `IdentityError` if the certificate is not for a key in `directory`, not of the authority,
    expired, not valid yet or revoked, or if a bundle or list is not the authority's.
    """
    bundle, news = _bundle(delivery, directory, confirm)
    path = directory / LISTS_FILE
    revocations, retired = Revocations(path), news and _foreign(path, bundle)
    if not retired:
        revocations.read(bundle)
    known = revocations.number(bundle[0])
    trust = Trust(bundle, Revocations())
    if delivery.lists:
        trust.revocations.take(delivery.lists, bundle)
    moves = [_placed(certificate, directory, trust) for certificate in delivery.certificates]
    for certificate in delivery.certificates:
        verify(certificate, Trust(bundle, revocations))
    if news:
        _check_present(directory, trust, {identity for identity, _ in moves})
        write_files({directory / AUTHORITY_FILE: (trust.pem, PUBLIC)}, replace=True)
        if retired:
            path.unlink()
    if delivery.lists:
        _merge(revocations, delivery.lists, bundle)
    for (identity, waiting), certificate in zip(moves, delivery.certificates, strict=True):
        place = directory / f"{identity.stem}.pem"
        write_files({place: (certificate_pem(certificate), PUBLIC)}, replace=True)
        if waiting is not None:
            waiting.replace(place.with_suffix(".key"))
    return Installed(
        tuple(identity for identity, _ in moves), news, revocations.number(bundle[0]) != known
    )


def _bundle(
    delivery: Delivery, directory: Path, confirm: Confirm
) -> tuple[tuple[x509.Certificate, ...], bool]:
    """Whom to believe from now on, and whether that is new here."""
    path = directory / AUTHORITY_FILE
    there = load_authorities(path) if path.exists() else ()
    given = delivery.bundle
    if not given:
        if not there:
            raise IdentityError(
                f"There is no authority's certificate in {directory} yet, nor in what was given.",
                hint="Install authority.pem together with the certificate.",
            )
        return there, False
    if given == there or (given[0] not in there[:1] and set(given) <= set(there)):
        return there, False  # the same, or a bundle of before the rotation
    if not there or not Trust(there).accepts(given):
        confirm(project_of(given[0]), key_fingerprint(given[0]))
        if not _vouched(given):
            raise IdentityError(
                "The authorities in what was given do not vouch for one another.",
                hint="Ask the authority for its authority.pem.",
            )
    return given, True


def _vouched(bundle: tuple[x509.Certificate, ...]) -> bool:
    """Whether each authority of a bundle is endorsed by the one after it, its predecessor."""
    return all(Trust((old,)).accepts((new,)) for new, old in pairwise(bundle))


def _placed(
    certificate: x509.Certificate, directory: Path, trust: Trust
) -> tuple[Identity, Path | None]:
    """Whose certificate this is, and its key's file if that waits under its other name."""
    identity = verify(certificate, trust)
    key = directory / f"{identity.stem}.key"
    for path in (next_key(key), key):
        if path.exists() and public_bytes(load_signing_key(path)) == public_bytes(certificate):
            return identity, path if path != key else None
    raise IdentityError(
        f"The certificate of {identity} is for another key than those in {directory}.",
        hint="Install it on the host, and into the directory, where `masque pki request` was run.",
        identity=identity.uri,
        fingerprint=key_fingerprint(certificate),
    )


def _check_present(directory: Path, trust: Trust, renewed: set[Identity]) -> None:
    """A new bundle must not make what is installed worthless."""
    for path in sorted(directory.glob("*.*.pem")):
        certificate = load_certificate(path)
        facts = describe(certificate)
        if facts.identity in renewed or trust.issuer(certificate) is not None:
            continue
        raise IdentityError(
            f"{path} was issued by an authority that is no longer believed with this bundle.",
            hint="Install the new certificate first, or together with it.",
            file=str(path),
        )


def _foreign(path: Path, bundle: Sequence[x509.Certificate]) -> bool:
    """Whether the list here is of authorities that are believed no more."""
    if not path.exists():
        return False
    try:
        read_lists(read_file(path, "revocation list"), bundle, str(path))
    except IdentityError as error:
        return bool(error.where.get("foreign"))
    return False


def _merge(revocations: Revocations, lists: bytes, bundle: Sequence[x509.Certificate]) -> None:
    try:
        kept = revocations.take(lists, bundle)
    except Refused:
        return  # what is here is newer, and stays
    if not kept:
        raise IdentityError(
            "The revocation list could not be written.", hint="Mend the directory's permissions."
        )


def _of_authority(text: bytes, path: Path) -> bool:
    certificate = load_certificate(text, f"certificate in {path}")
    return is_authority(certificate)


def _strange(path: Path) -> IdentityError:
    return IdentityError(
        f"{path} holds something else than certificates and revocation lists in PEM.",
        hint="Install the files that `masque pki approve` wrote.",
        file=str(path),
    )
