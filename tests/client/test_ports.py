"""Ports for services that are started soon."""

from __future__ import annotations

import socket
from pathlib import Path

from masque.client.ports import free_ports


def test_ports_are_free_and_not_of_those_that_the_system_gives_away() -> None:
    outgoing = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    found = free_ports(50)
    assert len(set(found)) == 50
    for port in found:
        assert not int(outgoing[0]) <= port <= int(outgoing[1])
        with socket.create_server(("127.0.0.1", port)) as taken:
            assert taken.getsockname()[1] == port
            assert port not in free_ports(5)
