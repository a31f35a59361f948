"""`masque pki` on the host that uses a certificate: request, install, status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import Json

if TYPE_CHECKING:
    from masque.wire.identity import Identity


def request(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="dealer, party, coordinator, client")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name in the project.")],
    out: Annotated[
        Path, typer.Option("--out", "--dir", metavar="D", help="Where the service reads its own.")
    ],
    project: Annotated[
        str | None, typer.Option(help="The project; with --renew as before.")
    ] = None,
    host: Annotated[list[str] | None, typer.Option(help="A name or address it is met at.")] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="A new key, beside the one in use until installed.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a key on this host, and a request for its certificate to send to the authority."""
    from masque.wire.requests import make_request

    identity, hosts = _wanted(role, name, out, project, host, renew=renew)
    path, made = make_request(out, identity, hosts, renew=renew)
    if json:
        console.emit(
            {
                "file": str(path),
                "identity": identity.uri,
                "hosts": list(made.hosts),
                "fingerprint": made.fingerprint,
            }
        )
        return
    console.line(f"{path}: {identity.uri}, met at {', '.join(made.hosts) or 'no host'}")
    console.line(f"fingerprint: {made.fingerprint}")
    console.line("Send the file to the authority, and tell it the fingerprint in another way.")


def _wanted(
    role: str,
    name: str,
    directory: Path,
    project: str | None,
    hosts: list[str] | None,
    *,
    renew: bool,
) -> tuple[Identity, list[str]]:
    """Who asks, met where; a renewal goes by the certificate that is there unless told."""
    from masque.errors import InputError
    from masque.wire.certificates import describe, load_certificate
    from masque.wire.identity import Identity, parse_role

    kind = parse_role(role)
    present = directory / Identity("project", kind, name).stem
    path = present.with_name(f"{present.name}.pem")
    if renew and (project is None or hosts is None) and path.exists():
        facts = describe(load_certificate(path))
        project = project or (facts.identity.project if facts.identity else None)
        hosts = list(facts.hosts) if hosts is None else hosts
    if project is None:
        raise InputError(
            "Which project is the certificate for?", hint="Give --project P, as the others do."
        )
    return Identity(project, kind, name), hosts or []


def install(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What approve wrote.")],
    into: Annotated[
        Path, typer.Option("--into", "--dir", metavar="D", help="Where the request was made.")
    ],
    authority_fingerprint: Annotated[
        str | None, typer.Option(help="That of an authority new to this host, as it was told.")
    ] = None,
    json: Json = False,
) -> None:
    """Check what the authority sent, and put it in use: a running service takes it up."""
    from masque.wire import installing

    done = installing.install(
        installing.open_delivery(files),
        into,
        lambda project, shown: confirm(
            f"the authority of project {project}",
            shown,
            authority_fingerprint,
            "--authority-fingerprint",
        ),
    )
    identities = [identity.uri for identity in done.identities]
    if json:
        console.emit(
            {
                "directory": str(into),
                "installed": identities,
                "authority": done.bundle,
                "revocations": done.lists,
            }
        )
        return
    for identity in identities:
        console.line(f"{into}: {identity}")
    for news, what in ((done.bundle, "authority.pem"), (done.lists, "authority.crl")):
        if news:
            console.line(f"{into}: {what}")
    if not (identities or done.bundle or done.lists):
        console.line(f"{into}: all of it was there already, or something newer")


def confirm(whose: str, shown: str, given: str | None, option: str) -> None:
    """Let a person compare a fingerprint, unless an option has told it. Raises IdentityError."""
    from masque.errors import IdentityError
    from masque.wire.requests import agrees

    if given is None:
        if not sys.stdin.isatty():
            raise IdentityError(
                f"Somebody must confirm the fingerprint of {whose}: {shown}.",
                hint=f"Get it in another way than the file, and give it with {option}.",
                fingerprint=shown,
            )
        console.note(f"Fingerprint of {whose}:\n  {shown}")
        console.note("Have it read to you in another way than the file came. Type what you hear,")
        given = str(typer.prompt("five groups at least", err=True))
    if not agrees(given, shown):
        raise IdentityError(
            f"That is not the fingerprint of {whose}, which is {shown}.",
            hint="Compare again. If it stays, somebody has exchanged the file on the way.",
            fingerprint=shown,
        )


def status(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where a service reads its own.")
    ] = None,
    authority: Annotated[
        Path | None, typer.Option("--authority", metavar="D", help="All that it has issued.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what is installed on a host, or what an authority has issued, and for how long."""
    from masque.client import certificates
    from masque.errors import InputError

    if (directory is None) == (authority is None):
        raise InputError("Name one of the two: DIR, or --authority D.")
    if directory is not None:
        found = certificates.of_host(directory)
    else:
        assert authority is not None
        found = certificates.of_authority(authority)
    if json:
        console.emit(found)
        return
    for row in found["authorities"]:
        _line(row, "authority")
    for row in found["certificates"]:
        _line(row, row["state"])
    console.line(f"revocation list: number {found['list']}, {found['revoked']} revoked")


def _line(row: dict[str, Any], state: str) -> None:
    left = f"{row['days_left']} days left" if "days_left" in row else ""
    parts = (row["identity"], state, left, row.get("serial", ""), row.get("fingerprint", ""))
    console.line("  ".join(part for part in parts if part))
