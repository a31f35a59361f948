"""Start a deployment, stop it, look at it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.onehost import composing, engine, files
from deploy.onehost.engine import State
from deploy.onehost.host import Host, Service, find, plan
from masque.client.ports import check_free
from masque.errors import Conflict, Unavailable

STARTING = 300.0
"""Seconds until all services must be healthy: kernels are compiled on another kind of processor."""

_PAUSE = 0.5
_MANY = 3
"""Restarts after which a service is not waited for any longer."""


def up(
    name: str,
    base: Path,
    image: str,
    parties: int | None,
    port: int | None,
    say: Callable[[str], None],
) -> Host:
    """Start everything that does not run yet, and wait until it is healthy.

    Raises Unavailable with the words of the service that failed, Conflict for a port in use.
    """
    host = plan(name, base, parties, port)
    _check_volumes(host)
    if not any(state and state.status == "running" for state in engine.states(host).values()):
        _check_ports(host)
    fresh = not (host.home / "authority").exists()
    say("making certificates" if fresh else "looking after certificates")
    files.write(host)
    composing.write(host, image)
    engine.composing(host, "up", "--no-start", "--no-build", "--remove-orphans")
    say("copying configurations into volumes")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda service: engine.fill(host, service, image), host.services))
    say("starting the services")
    engine.composing(host, "up", "-d", "--no-build")
    wait(host)
    return host


def wait(host: Host, patience: float = STARTING) -> None:
    """Until the engine finds every service healthy. Raises Unavailable."""
    end = time.monotonic() + patience
    while True:
        states = engine.states(host)
        waiting = {service: state for service, state in states.items() if not _healthy(state)}
        if not waiting:
            return
        for service, state in waiting.items():
            if state is None or state.status in ("exited", "dead") or state.restarts >= _MANY:
                raise _failed(host, service, "does not stay up")
        if time.monotonic() > end:
            raise _failed(host, next(iter(waiting)), f"is not healthy after {patience:.0f} s")
        time.sleep(_PAUSE)


def down(name: str, base: Path, *, wipe: bool) -> Host:
    """Stop and remove containers and networks; with `wipe`, volumes and files as well."""
    host = find(name, base)
    engine.composing(host, "down", "--remove-orphans", *(["--volumes"] if wipe else []))
    if wipe:
        shutil.rmtree(host.home)
    return host


def _healthy(state: State | None) -> bool:
    return state is not None and state.status == "running" and state.health == "healthy"


def _failed(host: Host, service: Service, what: str) -> Unavailable:
    said = engine.last_words(host.container(service))
    return Unavailable(
        f"{service.role.capitalize()} {service.name!r} {what}{': ' + said if said else '.'}",
        hint=f"See `docker logs {host.container(service)}`; `make down` stops the rest.",
        service=service.name,
    )


def _check_volumes(host: Host) -> None:
    """Data of a deployment whose keys are gone cannot be read: say so before anything starts."""
    if (host.home / "host.json").exists():
        return
    left = engine.volumes([host.volume(service, "state") for service in host.services])
    if left:
        raise Conflict(
            f"The engine has volumes of an earlier deployment {host.name!r}, and its keys are not"
            f" in {host.home}.",
            hint=f"Put its directory back, choose another NAME, or remove the volumes with all"
            f" data: docker volume rm {' '.join(left)}",
        )


def _check_ports(host: Host) -> None:
    whose = [f"{service.role} {service.name!r}" for service in host.services]
    check_free(host.ports, whose, "name another first port: PORT=7100 make up")
