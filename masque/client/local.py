"""All services on this machine, below one directory: for trying out, demos and tests.

    authority/                  of this network only
    dealer/ party-1/ ... coordinator/    configuration, certificates, data of each service
    client/                     certificates and recipients of the analyst
    profile.yaml                for `masque --profile`
    logs/ run/                  what services say; process ids and addresses

On one machine whoever owns it can read everything: separate hosts, run by separate people, are
what makes the guarantees hold (see SECURITY.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from masque.client import local_files, processes
from masque.client.local_files import ANALYST, PROJECT, RECORD, Network
from masque.client.ports import check_free, free_ports, ports_from
from masque.client.processes import Place
from masque.client.profile import Profile, load
from masque.errors import Conflict, InputError, MasqueError, NotFound
from masque.wire import preflight
from masque.wire.identity import Identity, Role

MOST_PARTIES = 16


@dataclass(frozen=True)
class Health:
    """A service as found: state is serving, not serving, stopped, or unreachable with `problem`."""

    role: str
    name: str
    address: str
    pid: int | None
    state: str
    problem: str = ""


def up(
    home: str | Path,
    parties: int = 2,
    port: int | None = None,
    *,
    bound_to_us: bool = False,
    meanwhile: Callable[[], object] | None = None,
) -> Network:
    """Start everything and wait until it serves; data of an earlier time is kept.

    `port`: the dealer's; parties and coordinator follow. Without it, free ones are chosen.
    `bound_to_us`: the services end with this process. `meanwhile` runs while they start. Raises
    Conflict if it is up already or a port is in use, InputError for a number of parties.
    """
    if not 2 <= parties <= MOST_PARTIES:
        raise InputError(f"{parties} parties cannot compute.", hint=f"Choose 2 to {MOST_PARTIES}.")
    network = Network(Path(home).resolve(), parties)
    _check_before(network)
    ports = _ports(network, port)
    local_files.write(network, [f"127.0.0.1:{port}" for port in ports])
    started = []
    try:
        for place in network.places:
            started.append(processes.start(place, bound_to_us=bound_to_us))
        if meanwhile is not None:
            meanwhile()
        processes.wait_until_ready(network.places, started)
        _check_health(network)
    except BaseException:
        processes.stop(network.places)
        raise
    return network


def down(home: str | Path) -> dict[str, str]:
    """Stop everything; returns what became of each service. Raises NotFound."""
    return processes.stop(find(home).places)


def find(home: str | Path) -> Network:
    """The network in a directory. Raises NotFound if there is none."""
    directory = Path(home).resolve()
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        return Network(directory, int(record["parties"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise NotFound(
            f"There is no local network in {home}.",
            hint="`masque local up --dir D` makes one.",
            directory=str(home),
        ) from None


def status(home: str | Path) -> list[Health]:
    """Every service as it is now, asked over mutual TLS."""
    network = find(home)
    profile = load(network.profile)
    return [_health(place, profile) for place in network.places]


def _health(place: Place, profile: Profile) -> Health:
    address = _addresses(profile)[place.name]
    pid = processes.pid_of(place)
    if pid is None:
        said = processes.last_error(place)
        return Health(place.role, place.name, address, None, "stopped", said)
    who = Identity(profile.project, Role(place.role), place.name)
    try:
        serving = preflight.check(address, who, profile.credentials())
    except MasqueError as error:
        return Health(place.role, place.name, address, pid, "unreachable", error.message)
    return Health(place.role, place.name, address, pid, "serving" if serving else "not serving")


def _addresses(profile: Profile) -> dict[str, str]:
    peers = [profile.coordinator, *profile.parties, *([profile.dealer] if profile.dealer else [])]
    return {peer.name: peer.address for peer in peers}


def _check_before(network: Network) -> None:
    try:
        known = find(network.home)
    except NotFound:
        return
    if known.running:
        names = ", ".join(place.name for place in known.running)
        raise Conflict(
            f"The local network in {network.home} is up already ({names}).",
            hint=f"Stop it first: masque local down --dir {network.home}",
            directory=str(network.home),
        )
    if known.parties != network.parties:
        raise Conflict(
            f"The local network in {network.home} has {known.parties} parties, not"
            f" {network.parties}.",
            hint="Use another directory, or remove it if its data is not needed any more.",
            directory=str(network.home),
        )


def _check_health(network: Network) -> None:
    for health in status(network.home):
        if health.state != "serving":
            raise MasqueError(
                f"{health.role.capitalize()} {health.name!r} is {health.state}."
                f" {health.problem}".rstrip(),
                hint=f"See {network.home / 'logs' / health.name}.log.",
                service=health.name,
            )


def _ports(network: Network, base: int | None) -> list[int]:
    """A port a service, in the order of `places`. Raises Conflict naming one that is in use."""
    count = len(network.places)
    if base is None:
        return free_ports(count)
    ports = ports_from(base, count)
    whose = [f"{place.role} {place.name!r}" for place in network.places]
    check_free(ports, whose, "choose another --port.")
    return ports


__all__ = ["ANALYST", "PROJECT", "Health", "Network", "down", "find", "status", "up"]
