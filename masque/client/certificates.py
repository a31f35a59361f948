"""What `masque pki status` and `masque pki revoke` find out: on a host, at an authority, afar."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from masque.client.services import Peer, Services
from masque.errors import MasqueError
from masque.wire import issued
from masque.wire.authority import AUTHORITY_FILE, open_authority
from masque.wire.certificates import (
    describe,
    key_fingerprint,
    load_authorities,
    load_certificate,
    utc_now,
    verify,
)
from masque.wire.publishing import publish
from masque.wire.requests import read_request
from masque.wire.revocation import LISTS_FILE, Revocations
from masque.wire.tls import next_key
from masque.wire.trust import Trust


def of_host(directory: Path) -> dict[str, Any]:
    """The authorities, certificates and waiting requests in a service's directory."""
    trust = Trust(load_authorities(directory / AUTHORITY_FILE), Revocations(directory / LISTS_FILE))
    trust.revocations.read(trust.authorities)
    rows: list[dict[str, Any]] = []
    for path in sorted(directory.glob("*.*.pem")):
        certificate = load_certificate(path)
        facts = describe(certificate)
        try:
            verify(certificate, trust)
            state = "good"
        except MasqueError as error:
            state = error.message
        assert facts.identity is not None, "describe raises for others"
        rows.append(
            {
                "identity": facts.identity.uri,
                "state": state,
                "days_left": facts.remaining().days,
                "serial": facts.serial,
                "fingerprint": facts.key_fingerprint,
            }
        )
    for path in sorted(directory.glob("*.csr")):
        if not next_key(path.with_suffix(".key")).exists():
            continue
        request = read_request(path.read_bytes(), str(path))
        row = {"identity": request.identity.uri, "fingerprint": request.fingerprint}
        rows.append(row | {"state": "requested"})
    return _report(trust, rows)


def of_authority(directory: Path) -> dict[str, Any]:
    """What an authority has issued: good, revoked or expired."""
    trust = open_authority(directory).trust
    rows = []
    for one in issued.read(directory):
        left = one.ends() - utc_now()
        state = "expired" if left.total_seconds() < 0 else "good"
        if int(one.serial, 16) in trust.revocations:
            state = "revoked"
        row = {"identity": one.identity, "state": state, "days_left": left.days}
        rows.append(row | {"serial": one.serial})
    return _report(trust, rows)


def _report(trust: Trust, rows: list[dict[str, Any]]) -> dict[str, Any]:
    authorities = [
        {
            "identity": authority.subject.rfc4514_string(),
            "days_left": (authority.not_valid_after_utc - utc_now()).days,
            "fingerprint": key_fingerprint(authority),
        }
        for authority in trust.authorities
    ]
    return {
        "authorities": authorities,
        "certificates": rows,
        "list": trust.revocations.number(trust.authorities[0]),
        "revoked": len(trust.revocations.serials),
    }


def tell_everybody(services: Services, lists: bytes) -> list[dict[str, Any]]:
    """Bring revocation lists to every service of a profile, all at once; who took them, who not."""
    everybody = services.everybody
    with ThreadPoolExecutor(len(everybody)) as threads:
        return list(threads.map(lambda peer: _tell(peer, lists), everybody))


def _tell(peer: Peer, lists: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {"service": peer.identity.stem, "address": peer.address}
    try:
        reply = publish(peer.address, peer.identity, peer.credentials, lists)
    except MasqueError as error:
        return row | {"told": False, "error": str(error)}
    return row | {"told": True, "number": reply.number, "ended": reply.ended, "kept": reply.kept}
