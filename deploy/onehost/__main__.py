"""`python -m deploy.onehost up|down|logs|ps`: what the targets of the Makefile call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.onehost import engine, running
from deploy.onehost.host import Host, find
from masque.client import console
from masque.errors import MasqueError

BASE = Path("local")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    chosen, more = _parser().parse_known_args(arguments)
    if more and chosen.command != "logs":
        _parser().error(f"unrecognised arguments: {' '.join(more)}")
    try:
        engine.check()
        return int(COMMANDS[chosen.command](chosen, more) or 0)
    except MasqueError as error:
        return console.fail(error, as_json=getattr(chosen, "json", False))
    except KeyboardInterrupt:
        return console.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.onehost", allow_abbrev=False)
    parser.add_argument("--name", default="masque", help="of the deployment")
    parser.add_argument("--base", type=Path, default=BASE, help="where its files are kept")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", allow_abbrev=False)
    up.add_argument("--image", default="masque")
    up.add_argument("--parties", type=int, default=None)
    up.add_argument("--port", type=int, default=None)
    up.add_argument("--json", action="store_true")
    down = commands.add_parser("down", allow_abbrev=False)
    down.add_argument("--wipe", action="store_true", help="remove all data and keys as well")
    ps = commands.add_parser("ps", allow_abbrev=False)
    ps.add_argument("--json", action="store_true")
    commands.add_parser("logs", add_help=False, allow_abbrev=False)
    return parser


def _up(chosen: argparse.Namespace, more: list[str]) -> int:
    host = running.up(chosen.name, chosen.base, chosen.image, chosen.parties, chosen.port, _say)
    if chosen.json:
        console.emit({"profile": str(host.profile), "services": _rows(host)})
        return 0
    _table(host)
    console.line(f"\nNow: export MASQUE_PROFILE={host.profile}")
    return 0


def _down(chosen: argparse.Namespace, more: list[str]) -> int:
    host = running.down(chosen.name, chosen.base, wipe=chosen.wipe)
    gone = "and everything it had is removed" if chosen.wipe else f"its data stays ({host.home})"
    console.note(f"{host.name} is stopped; {gone}")
    return 0


def _ps(chosen: argparse.Namespace, more: list[str]) -> int:
    host = find(chosen.name, chosen.base)
    if chosen.json:
        console.emit({"profile": str(host.profile), "services": _rows(host)})
    else:
        _table(host)
    return 0 if all(row["state"] == "running, healthy" for row in _rows(host)) else 5


def _logs(chosen: argparse.Namespace, more: list[str]) -> int:
    host = find(chosen.name, chosen.base)
    engine.composing(host, "logs", *(more or ["--tail", "50"]), shown=True)
    return 0


COMMANDS = {"up": _up, "down": _down, "ps": _ps, "logs": _logs}


def _rows(host: Host) -> list[dict[str, str]]:
    return [
        {
            "role": service.role,
            "name": service.name,
            "container": host.container(service),
            "address": host.address(service),
            "state": state.shown if state else "absent",
        }
        for service, state in engine.states(host).items()
    ]


def _table(host: Host) -> None:
    rows = [tuple(row.values()) for row in _rows(host)]
    console.table(["service", "name", "container", "address", "state"], rows)


def _say(text: str) -> None:
    console.note(f"== {text}")


if __name__ == "__main__":
    sys.exit(main())
