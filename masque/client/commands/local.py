"""`masque local`: all services on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from masque.client import console
from masque.client.commands.options import Json

app = typer.Typer(
    no_args_is_help=True, help="All services as processes of this machine, to try things out."
)
Directory = Annotated[
    Path, typer.Option("--dir", metavar="D", help="Where everything of them lives.")
]


@app.command(epilog="Example: masque local up --dir /tmp/masque --parties 3")
def up(
    directory: Directory,
    parties: Annotated[int, typer.Option(help="How many computing parties.")] = 2,
    port: Annotated[
        int | None, typer.Option(help="First port; without it, free ones are chosen.")
    ] = None,
    json: Json = False,
) -> None:
    """Start a dealer, parties and a coordinator, and write D/profile.yaml."""
    from masque.client import local

    network = local.up(directory, parties, port)
    found = local.status(directory)
    if json:
        console.emit({"profile": str(network.profile), "services": [vars(h) for h in found]})
        return
    console.table(["service", "name", "address"], [(h.role, h.name, h.address) for h in found])
    console.line(f"\nNow: export MASQUE_PROFILE={network.profile}")


@app.command(epilog="Example: masque local down --dir /tmp/masque")
def down(directory: Directory, json: Json = False) -> None:
    """Stop them; data and jobs stay for the next `up`."""
    from masque.client import local

    became = local.down(directory)
    if json:
        console.emit({"services": became})
        return
    for name, what in became.items():
        console.line(f"{name}: {'was not running' if what == 'absent' else what}")


@app.command(epilog="Example: masque local status --dir /tmp/masque")
def status(directory: Directory, json: Json = False) -> None:
    """Ask every service how it is. Exit code 5 unless all of them serve."""
    from masque.client import local

    found = local.status(directory)
    if json:
        console.emit({"services": [vars(health) for health in found]})
    else:
        rows = [(h.role, h.name, h.address, str(h.pid or "-"), h.state, h.problem) for h in found]
        console.table(["service", "name", "address", "pid", "state", ""], rows)
    if any(health.state != "serving" for health in found):
        raise typer.Exit(5)
