"""Ask a service on this machine whether it serves: `python -m masque.wire.probe ROLE CONFIG`.

For whoever watches over a service and has no certificate of its own: a container engine, systemd.
It reads the service's own file, calls `grpc.health.v1` with the service's own certificate, and
ends with 0 if the answer is SERVING, otherwise with a line that says why not and 5 (not serving or
not reached) or the code of another error of `masque.errors`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import masque.wire  # noqa: F401 - before grpc, whose settings it chooses
from masque.errors import InputError, MasqueError, Unavailable
from masque.wire.identity import Role, parse_role
from masque.wire.preflight import check
from masque.wire.server import join_address, reachable_here
from masque.wire.settings import ServiceSettings, load_part, own_credentials

PATIENCE = 4.0
"""Seconds that each step may take."""


def probe(role: Role, config: Path, *, patience: float = PATIENCE) -> None:
    """Return if the service of this file serves. Raises `Unavailable`, or what else is wrong."""
    settings = load_part(ServiceSettings, config)
    host, port = reachable_here(settings.listen)
    if port == 0:
        raise InputError(
            f"{config} lets the system choose the port.",
            hint="Give listen a port of its own for the probe to know.",
            file=str(config),
        )
    credentials = own_credentials(settings, role)
    address = join_address(host, port)
    if not check(address, credentials.identity, credentials, patience=patience):
        name = f"{settings.name!r} is not serving."
        raise Unavailable(f"{role.capitalize()} {name}", address=address)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m masque.wire.probe", description="Health.")
    parser.add_argument("role", metavar="ROLE", help="dealer, party or coordinator")
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the service's YAML file")
    chosen = parser.parse_args(arguments)
    try:
        probe(parse_role(chosen.role), chosen.config)
    except MasqueError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
