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
    if role == "party":
        app.command("rotate-key", epilog="Example: masque party rotate-key party.yaml")(rotate_key)
    app.callback()(lambda: None)  # a group, although it has one command
    return app


def _check(role: str) -> Callable[..., None]:
    def check_config(config: Config, json: Json = False) -> None:
        """Say everything that is wrong with a service's file, without starting the service.

        Exit code 3 if there is anything. Certificates, keys, directories and whatever else the
        file names are looked at on this machine, as the user who runs this command.
        """
        _run(role, "check-config", config, json=json)

    return check_config


def rotate_key(config: Config, json: Json = False) -> None:
    """Encrypt everything that a party keeps with a new key, which takes the place of the old one.

    The party must not be running. If this is broken off, run it again: it goes on where it was.
    """
    _run("party", "rotate-key", config, json=json)


def _run(role: str, command: str, config: Path, *, json: bool) -> None:
    from masque.client.processes import environment

    words = [sys.executable, "-m", f"services.{role}", command, "--config", str(config)]
    done = subprocess.run([*words, *(["--json"] if json else [])], env=environment(), check=False)
    raise typer.Exit(done.returncode)


groups = {role: _group(role) for role in ROLES}
