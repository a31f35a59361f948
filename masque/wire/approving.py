"""What the authority does with a request: hold it against what it has issued, and certify it."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path

from masque.errors import Conflict, IdentityError
from masque.wire import issued
from masque.wire.authority import LEAF_LIFETIME, Authority, check_bundle
from masque.wire.certificates import certificate_pem, spki
from masque.wire.keyfiles import PUBLIC, write_files
from masque.wire.requests import Request


def check(authority: Authority, request: Request, *, renew: bool = False) -> None:
    """May this be approved at all? Before anybody is asked to compare fingerprints.

    Raises `IdentityError` for another project or a revoked key, and `Conflict` if the identity has
    a certificate with another key already and `renew` is false: two services would be one.
    """
    if request.identity.project != authority.project:
        raise IdentityError(
            f"The authority of project {authority.project!r} cannot certify "
            f"{request.identity.uri}.",
            hint="Send the request to the authority of that project.",
            project=request.identity.project,
        )
    key = hashlib.sha256(spki(request.key)).hexdigest()
    revoked = authority.trust.revocations.serials
    before = [one for one in issued.read(authority.directory) if one.key == key]
    if any(int(one.serial, 16) in revoked for one in before):
        raise IdentityError(
            f"A certificate of {request.identity} for this key was revoked.",
            hint="It asks again with a new key: `masque pki request --renew`.",
            identity=request.identity.uri,
        )
    others = [
        one
        for one in issued.live(authority.directory, revoked)
        if one.identity == request.identity.uri and one.key != key
    ]
    if others and not renew:
        raise Conflict(
            f"{request.identity} has a certificate already, of another key, until "
            f"{others[-1].not_after[:10]}.",
            hint="Approve with --renew if it renews its key. If it lost the key, revoke the old "
            "certificate with `masque pki revoke` first.",
            identity=request.identity.uri,
            serial=others[-1].serial,
        )


def approve(
    authority: Authority,
    request: Request,
    out: Path,
    *,
    lifetime: dt.timedelta = LEAF_LIFETIME,
    renew: bool = False,
) -> Path:
    """Certify a request whose fingerprint was compared; returns the path of the certificate.

    `authority.pem` and `authority.crl` are written beside it: all of it is public.
    """
    check(authority, request, renew=renew)
    check_bundle(out, authority.trust)
    certificate = authority.certify(
        request.identity, request.key, hosts=request.hosts, lifetime=lifetime
    )
    path = out / f"{request.identity.stem}.pem"
    write_files({path: (certificate_pem(certificate), PUBLIC)}, replace=True)
    authority.hand_out(out)
    return path
