"""`masque dealer`, `masque party`, `masque coordinator`: for the people who run a service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from masque.client.commands.options import Json

Config = Annotated[Path, typer.Argument(metavar="FILE", help="The service's YAML file.")]
ROLES = ("dealer", "party", "coordinator")


def _group(role: str) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, help=f"For the people who run a {role}.")
    epilog = f"Example: masque {role} check-config {role}.yaml"
    app.command("check-config", epilog=epilog)(_check(role))
    app.callback()(lambda: None)  # a group, although it has one command
    return app


def _check(role: str) -> Callable[..., None]:
    def check_config(config: Config, json: Json = False) -> None:
        """Say everything that is wrong with a service's file, without starting the service.

        Exit code 3 if there is anything. Certificates, keys, directories and whatever else the
        file names are looked at on this machine, as the user who runs this command.
        """
        from masque.client.processes import environment

        command = [sys.executable, "-m", f"services.{role}", "check-config", "--config"]
        more = ["--json"] if json else []
        done = subprocess.run([*command, str(config), *more], env=environment(), check=False)
        raise typer.Exit(done.returncode)

    return check_config


groups = {role: _group(role) for role in ROLES}
