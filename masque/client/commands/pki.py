"""`masque pki`: certificates of the project, and recipients' keys.

What a host does that uses a certificate is in `pki_host`, what an authority does in
`pki_authority`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from masque.client import console
from masque.client.commands import pki_authority, pki_host
from masque.client.commands.options import Json

app = typer.Typer(no_args_is_help=True, help="Certificates of services and people.")
app.command(
    epilog="Example: masque pki request party hospital-a --project demo --host a.example.org "
    "--out certificates"
)(pki_host.request)
app.command(
    epilog="Example: masque pki approve hospital-a.party.csr --authority authority --out reply"
)(pki_authority.approve)
app.command(
    epilog="Example: masque pki install hospital-a.party.pem authority.pem authority.crl "
    "--into certificates"
)(pki_host.install)
app.command(epilog="Example: masque pki status certificates")(pki_host.status)
app.command(
    epilog="Example: masque pki revoke hospital-a.party --authority authority "
    "--profile profile.yaml"
)(pki_authority.revoke)
app.command(epilog="Example: masque pki rotate --authority authority")(pki_authority.rotate)
app.command(epilog="Example: masque pki retire --authority authority")(pki_authority.retire)
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite what is there.")]


@app.command(epilog="Example: masque pki init --dir authority --project demo")
def init(
    directory: Annotated[Path, typer.Option("--dir", metavar="D", help="Where it goes.")],
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
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name in the project.")],
    authority: pki_authority.Authority,
    out: Annotated[Path, typer.Option("--out", metavar="D", help="Where the files go.")],
    host: Annotated[list[str] | None, typer.Option(help="A name or address it is met at.")] = None,
    days: Annotated[int, typer.Option(help="How long it is valid.", min=1, max=3650)] = 90,
    replace: Replace = False,
    json: Json = False,
) -> None:
    """Make a key and its certificate on this machine, for services that run on it."""
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
    renew: Annotated[
        bool, typer.Option("--renew", help="Keep the key; a renewed certificate vouches for it.")
    ] = False,
    json: Json = False,
) -> None:
    """Make the key pair that results are sealed to; give the .pub file to every party."""
    from masque.wire.recipients import create_recipient, renew_recipient
    from masque.wire.tls import find_credentials

    own = find_credentials(certificates)
    if renew:
        made = renew_recipient(out, own)
    else:
        made = create_recipient(out, own, replace=replace).recipient
    name = made.identity.name
    public = out / f"{name}.recipient.pub"
    if json:
        console.emit({"name": name, "public": str(public), "identity": made.identity.uri})
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
        "key_fingerprint": facts.key_fingerprint,
        "serial": facts.serial,
    }
