"""`masque pki` on the authority's machine: approve, revoke, rotate, retire."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import Json, ProfilePath
from masque.client.commands.pki_host import confirm

Authority = Annotated[
    Path, typer.Option("--authority", metavar="D", help="The authority's directory.")
]


def approve(
    requests: Annotated[list[Path], typer.Argument(metavar="CSR...", help="Requests.")],
    authority: Authority,
    out: Annotated[Path, typer.Option("--out", metavar="D", help="What is to be sent back.")],
    fingerprint: Annotated[
        list[str] | None, typer.Option(help="As it was told, one for each request.")
    ] = None,
    days: Annotated[int, typer.Option(help="How long it is valid.", min=1, max=3650)] = 90,
    renew: Annotated[
        bool, typer.Option("--renew", "--replace", help="The identity may change its key.")
    ] = False,
    json: Json = False,
) -> None:
    """Certify requests whose fingerprints were compared with those who made them."""
    import datetime as dt

    from masque.errors import InputError
    from masque.wire import approving
    from masque.wire.authority import open_authority
    from masque.wire.certificates import describe, load_certificate
    from masque.wire.keyfiles import read_file
    from masque.wire.requests import read_request

    if fingerprint and len(fingerprint) != len(requests):
        raise InputError("Give one --fingerprint for each request, in their order, or none.")
    opened = open_authority(authority)
    read = [read_request(read_file(path, "request"), str(path)) for path in requests]
    for one in read:
        approving.check(opened, one, renew=renew)
    rows = []
    for index, one in enumerate(read):
        if not json:
            console.note(f"{one.identity.uri} asks, met at {', '.join(one.hosts) or 'no host'}")
        told = fingerprint[index] if fingerprint else None
        confirm(f"the request of {one.identity}", one.fingerprint, told, "--fingerprint")
        lifetime = dt.timedelta(days=days)
        path = approving.approve(opened, one, out, lifetime=lifetime, renew=renew)
        facts = describe(load_certificate(path))
        rows.append(
            {
                "file": str(path),
                "identity": one.identity.uri,
                "hosts": list(one.hosts),
                "serial": facts.serial,
                "not_after": facts.not_after.isoformat(),
                "authority_fingerprint": authority_fingerprint(opened),
            }
        )
    if json:
        console.emit({"approved": rows})
        return
    for row in rows:
        console.line(f"{row['file']}: {row['identity']}, valid to {row['not_after'][:10]}")
    console.line(f"Send back {out}: all of it is public. Tell in another way the authority's own")
    console.line(f"fingerprint: {authority_fingerprint(opened)}")


def authority_fingerprint(authority: Any) -> str:
    """What hosts compare when they first meet this authority."""
    from masque.wire.certificates import key_fingerprint

    return key_fingerprint(authority.certificate)


def revoke(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="WHAT...", help="NAME.ROLE, serial numbers or certificate files."),
    ] = None,
    authority: Annotated[
        Path | None, typer.Option("--authority", metavar="D", help="The authority's directory.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, in the words of RFC 5280.")] = "unspecified",
    profile: ProfilePath = None,
    lists: Annotated[
        Path | None, typer.Option("--lists", metavar="FILE", help="Only tell: an authority.crl.")
    ] = None,
    json: Json = False,
) -> None:
    """Revoke certificates, and tell every service of a profile at once.

    Without WHAT, the present list is told again: to services that could not be reached before.
    """
    from masque.errors import Unavailable

    content, rows = _revoked(what or [], authority, reason, lists)
    told = _tell(profile, content) if profile is not None else []
    if json:
        console.emit({"revoked": rows, "services": told})
    else:
        for row in rows:
            console.line(f"{row['serial']}: {row['identity']} is revoked")
        for row in told:
            console.line(_answer(row))
        if profile is None and authority is not None:
            console.line(f"Bring {authority / 'authority.crl'} to every service, or use --profile.")
    missed = [row["service"] for row in told if not row["told"]]
    if missed:
        raise Unavailable(
            f"{', '.join(missed)} could not be told and would still accept what is revoked.",
            hint="Repeat the command without names, or install authority.crl there.",
            service=missed[0],
        )


def _revoked(
    what: list[str], authority: Path | None, reason: str, lists: Path | None
) -> tuple[bytes, list[dict[str, str]]]:
    """The lists to tell, and what was added to them now."""
    from masque.errors import InputError
    from masque.wire import withdrawing
    from masque.wire.authority import open_authority
    from masque.wire.keyfiles import read_file

    if lists is not None and not what and authority is None:
        return read_file(lists, "revocation list"), []
    if authority is None or lists is not None:
        raise InputError("Give --authority D, or --lists FILE without names.")
    if reason not in withdrawing.REASONS:
        raise InputError(
            f"{reason!r} is no reason.", hint=f"One of {', '.join(withdrawing.REASONS)}."
        )
    opened = open_authority(authority)
    found = {one.serial: one for each in what for one in withdrawing.find(opened, each)}
    if what:
        content = withdrawing.revoke(opened, list(found.values()), reason=reason)
    else:
        content = read_file(authority / "authority.crl", "revocation list")
    return content, [{"identity": one.identity, "serial": one.serial} for one in found.values()]


def _tell(profile: Path, content: bytes) -> list[dict[str, Any]]:
    from masque.client import certificates
    from masque.client.profile import load
    from masque.client.services import Services
    from masque.errors import Refused

    with Services(load(profile)) as services:
        told = certificates.tell_everybody(services, content)
        trust = services.credentials.renewed().trust
        try:
            trust.revocations.take(content, trust.authorities)
        except Refused as error:
            console.warn(str(error))
    return told


def _answer(row: dict[str, Any]) -> str:
    if not row["told"]:
        return f"{row['service']}: NOT TOLD. {row['error']}"
    kept = "" if row["kept"] else "; not kept on its disk: tell it again after a restart"
    return f"{row['service']}: list {row['number']} is in force, {row['ended']} calls ended{kept}"


def rotate(authority: Authority, json: Json = False) -> None:
    """Make a new authority's key, for which the old one vouches. Both are believed until retire."""
    from masque.wire import withdrawing
    from masque.wire.authority import open_authority

    after = withdrawing.rotate(open_authority(authority))
    if json:
        console.emit(_rotation(authority, after))
        return
    console.line(f"{authority}: fingerprint of the new authority: {authority_fingerprint(after)}")
    console.line("Next: install authority.pem and authority.crl on every host; approve everybody's")
    console.line("requests again and install the certificates; then masque pki retire.")


def retire(
    authority: Authority,
    force: Annotated[
        bool, typer.Option("--force", help="Also if somebody has no new certificate yet.")
    ] = False,
    json: Json = False,
) -> None:
    """Believe the previous authority no more, and destroy its key."""
    from masque.wire import withdrawing
    from masque.wire.authority import open_authority

    after = withdrawing.retire(open_authority(authority), force=force)
    if json:
        console.emit(_rotation(authority, after))
        return
    console.line(f"{authority}: the previous authority is retired.")
    console.line("Next: install authority.pem and authority.crl on every host.")


def _rotation(directory: Path, after: Any) -> dict[str, Any]:
    return {
        "directory": str(directory),
        "fingerprint": authority_fingerprint(after),
        "authorities": len(after.signers),
    }
