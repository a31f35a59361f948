"""The main program of every service: read the file, serve, say in one line what went wrong.

    python -m services.party --config party.yaml
    python -m services.party check-config --config party.yaml

Exit codes are those of `masque.errors`; 0 after SIGTERM or SIGINT. When the service answers, it
writes its `ready_file`: JSON with name, role, project, address and pid, gone again at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import structlog

from masque.errors import MasqueError
from masque.version import __version__
from masque.wire import logs, memory, metrics, telemetry
from masque.wire.checking import Examine, report
from masque.wire.host import Host, offer_host
from masque.wire.identity import Role
from masque.wire.server import Server
from masque.wire.settings import ServiceSettings, Settings, load_settings

_log = structlog.get_logger("masque.service")


Chore = Callable[[Settings], Mapping[str, Any]]
"""Something else that can be done with a service's file; it returns what it has done."""


@dataclass(frozen=True)
class Program(Generic[Settings]):
    """A service as a program: `serve` runs it, `examine` looks at what its file alone names."""

    role: Role
    kind: type[Settings]
    serve: Callable[[Settings], None]
    examine: Examine[Settings] = lambda settings: ()
    chores: Mapping[str, Chore[Settings]] = field(default_factory=dict)


def main(program: Program[Settings], arguments: Sequence[str] | None = None) -> int:
    """Run a service, check its file, or do a chore; returns the exit code."""
    role = program.role
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{role}", description=f"A {role} of Masque."
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["serve", "check-config", *program.chores],
        default="serve",
        help="run it (what happens without), say what is wrong with its file, or a chore",
    )
    parser.add_argument("--config", required=True, type=Path, help="its YAML file")
    parser.add_argument("--json", action="store_true", help="one JSON object; not of serve")
    parser.add_argument("--version", action="version", version=__version__)
    chosen = parser.parse_args(arguments)
    if chosen.command == "check-config":
        return report(program.kind, role, chosen.config, program.examine, as_json=chosen.json)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # shares and seeds would be in the file
    memory.keep_freed()
    try:
        settings = load_settings(program.kind, chosen.config)
        if chosen.command in program.chores:
            _tell(program.chores[chosen.command](settings), as_json=chosen.json)
            return 0
        logs.configure(settings.name, level=settings.log_level)
        program.serve(settings)
    except MasqueError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _tell(done: Mapping[str, Any], *, as_json: bool) -> None:
    """What a chore has done."""
    if as_json:
        print(json.dumps(done, indent=2))
        return
    for key, value in done.items():
        text = ", ".join(value) or "none" if isinstance(value, list) else value
        print(f"{key.replace('_', ' ')}: {text}")


def serve_until_stopped(
    server: Server,
    settings: ServiceSettings,
    prepare: Callable[[], None] | None = None,
    numbers: metrics.Source | None = None,
) -> None:
    """Answer calls until SIGTERM, SIGINT or `request_stop`, also those that every service answers.

    `prepare` runs after the port is ours and before health says SERVING: what takes time or may
    fail, such as loading compiled kernels. `numbers` is what this service alone has to tell.
    """
    offer_host(server, Host(server, settings.volume))
    spans = settings.telemetry.otlp if settings.telemetry else None
    scrapes = settings.metrics.listen if settings.metrics else None
    sources = (metrics.ServiceMetrics(server), numbers or (lambda: ()))
    with (
        telemetry.exporting(server.identity, spans),
        metrics.offered(scrapes, sources) as scraped,
        server,
    ):
        if prepare is not None:
            prepare()
        server.ready()
        ready = settings.ready_file
        write_ready(server, ready, scraped)
        if ready is not None:
            server.on_stop(lambda: ready.unlink(missing_ok=True))
        _log.info("serving", address=server.address, version=__version__)
        server.wait(settings.stop_seconds)


def write_ready(server: Server, path: Path | None, metrics: str | None = None) -> None:
    """Tell whoever started this service where it answers; a reader sees all of it or nothing."""
    if path is None:
        return
    identity = server.identity
    record = {
        "name": identity.name,
        "role": identity.role.value,
        "project": identity.project,
        "address": server.address,
        "pid": os.getpid(),
        **({"metrics": metrics} if metrics else {}),
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(record) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise MasqueError(
            f"The ready file {path} cannot be written: {error.strerror}.",
            hint="Mend the permissions of its directory, or remove ready_file.",
            file=str(path),
        ) from None


def load_kernels() -> None:
    """Load the compiled kernels now, so that no job waits for them. For `serve_until_stopped`."""
    from masque.mpc.warm import warm

    seconds = sum(spent for _, spent in warm())
    _log.debug("kernels loaded", seconds=round(seconds, 3))
