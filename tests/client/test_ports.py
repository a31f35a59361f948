"""Ports for services that are started soon."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from masque.client.ports import check_free, free_ports, ports_from
from masque.errors import Conflict, InputError


def test_ports_are_free_and_not_of_those_that_the_system_gives_away() -> None:
    outgoing = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    found = free_ports(50)
    assert len(set(found)) == 50
    for port in found:
        assert not int(outgoing[0]) <= port <= int(outgoing[1])
        with socket.create_server(("127.0.0.1", port)) as taken:
            assert taken.getsockname()[1] == port
            assert port not in free_ports(5)


def test_the_first_port_that_is_in_use_is_told_with_whose_it_should_be() -> None:
    ports = free_ports(2)
    check_free(ports, ["a", "b"], "choose others.")
    with (
        socket.create_server(("127.0.0.1", ports[1])),
        pytest.raises(Conflict, match=f"Port {ports[1]}, meant for b, is in use") as told,
    ):
        check_free(ports, ["a", "b"], "choose others.")
    assert told.value.hint.endswith("or choose others.")


def test_ports_that_follow_one_another() -> None:
    assert ports_from(7000, 3) == [7000, 7001, 7002]
    for base in (0, 1023, 65_534, -1):
        with pytest.raises(InputError, match=f"{base} cannot be the first port"):
            ports_from(base, 2)
