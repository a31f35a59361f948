"""`masque provision`: a kit for every organisation of a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import Json

if TYPE_CHECKING:
    from masque.client.provisioning import Provisioned


def provision(
    project: Annotated[
        Path, typer.Argument(metavar="PROJECT.YAML", help="Who runs what; see docs/deployment.md.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="D", help="Where the kits go.")],
    authority: Annotated[
        Path,
        typer.Option("--authority", metavar="D", help="The project's authority, or authority.pem."),
    ] = Path("authority"),
    image: Annotated[str, typer.Option(help="What the containers run.")] = "masque",
    json: Json = False,
) -> None:
    """Write each organisation a kit for its host. Private keys are made there, never here."""
    from masque.client import provisioning
    from masque.client.project import load

    made = provisioning.provision(load(project), authority, out, image)
    for text in made.warnings:
        console.warn(text)
    console.emit(_record(made)) if json else _show(made)


def _record(made: Provisioned) -> dict[str, Any]:
    return {
        "project": made.project,
        "authority": made.authority,
        "kits": [
            {
                "organisation": kit.organisation,
                "directory": str(kit.directory),
                "archive": str(kit.archive),
                "new": kit.fresh,
                "changed": list(kit.changed),
                "to_do": list(kit.to_do),
            }
            for kit in made.kits
        ],
        "warnings": list(made.warnings),
        "share_anew": made.share_anew,
        "gone": list(made.gone),
    }


def _show(made: Provisioned) -> None:
    for kit in made.kits:
        state = "new" if kit.fresh else "changed" if kit.changed else "as before"
        console.line(f"{kit.archive}: {state}")
        for text in kit.to_do:
            console.line(f"  {text}")
    for name in made.gone:
        console.line(f"{name} takes part no more: revoke its certificates, and remove its kit")
    if made.share_anew:
        console.line(
            "\nThe parties are others than before, and data is split among parties: when all have\n"
            "taken over their kits, owners share their data anew (masque share ... --replace)."
        )
    console.line(f"\nAuthority of {made.project}, to be compared by telephone: {made.authority}")
