"""`masque pki`: certificates of the project, and recipients' keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import Json

app = typer.Typer(no_args_is_help=True, help="Certificates of services and people.")
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite what is there.")]


@app.command(epilog="Example: masque pki init --dir authority --project demo")
def init(
    directory: Annotated[Path, typer.Option("--dir", metavar="D")],
    project: Annotated[str, typer.Option(help="The project it certifies for.")],
    replace: Replace = False,
    json: Json = False,
) -> None:
    """Make the authority of a project. Keep its key away from the services."""
    from masque.wire.authority import create_authority
    from masque.wire.certificates import describe

    authority = create_authority(directory, project, replace=replace)
    facts = _facts(describe(authority.certificate))
    if json:
        console.emit({"directory": str(directory), **facts})
        return
    console.line(f"{directory}: authority of {project}, valid to {facts['not_after'][:10]}")


@app.command(epilog="Example: masque pki issue party hospital-a --authority authority --out a")
def issue(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="dealer, party, coordinator, client")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    authority: Annotated[Path, typer.Option("--authority", metavar="D")],
    out: Annotated[Path, typer.Option("--out", metavar="D", help="Where the files go.")],
    host: Annotated[list[str] | None, typer.Option(help="A name or address it is met at.")] = None,
    days: Annotated[int, typer.Option(help="How long it is valid.", min=1, max=3650)] = 90,
    replace: Replace = False,
    json: Json = False,
) -> None:
    """Issue the certificate of a service or a person."""
    import datetime as dt

    from masque.wire.authority import LOCAL_HOSTS, open_authority
    from masque.wire.certificates import describe, load_certificate
    from masque.wire.identity import Identity, parse_role

    opened = open_authority(authority)
    identity = Identity(opened.project, parse_role(role), name)
    path = opened.issue(
        identity,
        out,
        hosts=host or LOCAL_HOSTS,
        lifetime=dt.timedelta(days=days),
        replace=replace,
    )
    facts = _facts(describe(load_certificate(path)))
    if json:
        console.emit({"file": str(path), **facts})
        return
    console.line(f"{path}: {identity.uri}, valid to {facts['not_after'][:10]}")


@app.command(epilog="Example: masque pki inspect certificates/hospital-a.party.pem")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A certificate in PEM.")],
    json: Json = False,
) -> None:
    """Show what a certificate says. Nothing is verified."""
    from masque.wire.certificates import describe, load_certificate

    facts = _facts(describe(load_certificate(file)))
    if json:
        console.emit(facts)
        return
    for key, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        console.line(f"{key.replace('_', ' ')}: {shown}")


@app.command(epilog="Example: masque pki recipient --certificates certificates --out recipients")
def recipient(
    certificates: Annotated[
        Path, typer.Option("--certificates", metavar="D", help="Where your certificate is.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="D", help="Where the key pair goes.")],
    replace: Replace = False,
    json: Json = False,
) -> None:
    """Make the key pair that results are sealed to; give the .pub file to every party."""
    from masque.wire.recipients import create_recipient
    from masque.wire.tls import find_credentials

    made = create_recipient(out, find_credentials(certificates), replace=replace)
    name = made.recipient.identity.name
    public = out / f"{name}.recipient.pub"
    if json:
        console.emit({"name": name, "public": str(public), "identity": made.recipient.identity.uri})
        return
    console.line(f"{public}: give it to every party; the .key beside it to nobody")


def _facts(facts: Any) -> dict[str, Any]:
    left = facts.remaining()
    return {
        "identity": facts.identity.uri if facts.identity else "(authority)",
        "subject": facts.subject,
        "issuer": facts.issuer,
        "hosts": list(facts.hosts),
        "not_before": facts.not_before.isoformat(),
        "not_after": facts.not_after.isoformat(),
        "days_left": left.days,
        "fingerprint": facts.fingerprint,
        "serial": facts.serial,
    }
