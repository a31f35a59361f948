"""Free ports of this machine, for services that are started soon and keep theirs."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from pathlib import Path

from masque.errors import Conflict, InputError
from masque.wire.server import trouble_with_port

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _USUAL = 10_000, 32_768


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Different ports that nobody listens at.

    Not of those that the system gives to outgoing connections: one of these may be taken before
    the service begins. Raises OSError if there are not as many.
    """
    found: list[int] = []
    sockets: list[socket.socket] = []
    candidates = list(range(_LOWEST, _first_of_outgoing()))
    random.shuffle(candidates)
    try:
        for port in candidates:
            if len(found) == count:
                break
            probe = socket.socket()
            sockets.append(probe)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen()  # binding alone does not notice a listener on the same address
            except OSError:
                continue
            found.append(port)
    finally:
        for probe in sockets:
            probe.close()
    if len(found) < count:
        raise OSError(f"there are no {count} free ports")
    return found


def ports_from(base: int, count: int) -> list[int]:
    """`count` ports beginning with `base`. Raises InputError if there are none."""
    if not 1024 <= base <= 65535 - count:
        raise InputError(f"{base} cannot be the first port.", hint="Choose 1024 to 65000.")
    return list(range(base, base + count))


def check_free(ports: Sequence[int], whose: Sequence[str], cure: str) -> None:
    """Raises Conflict for the first port of 127.0.0.1 that is in use, and says whose it should be.

    `cure`: what to do instead of stopping the program that has it.
    """
    for port, service in zip(ports, whose, strict=True):
        if trouble_with_port("127.0.0.1", port) is not None:
            raise Conflict(
                f"Port {port}, meant for {service}, is in use by another program.",
                hint=f"Stop that program (find it with `ss -ltnp 'sport = :{port}'`), or {cure}",
                port=port,
            )


def _first_of_outgoing() -> int:
    try:
        first = int(_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return _USUAL
    return first if first > _LOWEST + 1000 else _USUAL
