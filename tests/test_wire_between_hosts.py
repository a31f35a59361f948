"""The network between hosts, for benchmarks and tests: it delays, keeps order, delivers, goes."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import relay, wan, wire
from benchmarks.relay import Link, Wire
from benchmarks.wire import NoWire, Wired

SLOW = Link(delay=1.0, rate=8000.0, buffer=3000)  # a thousand bytes a second


def arrivals(passing: Wire) -> list[tuple[float, int, bytes]]:
    """When everything on its way arrives, where, and what."""
    found = []
    while (due := passing.due()) is not None:
        found += [(due, destination, packet) for destination, packet in passing.take(due)]
    return found


def test_a_packet_takes_its_size_and_the_delay() -> None:
    passing = Wire(2, SLOW)
    passing.put(10.0, 0, 1, b"a", 500)
    assert passing.take(11.49) == []
    assert passing.take(11.5) == [(1, b"a")]
    assert passing.due() is None


def test_packets_queue_for_the_link_and_keep_their_order() -> None:
    passing = Wire(2, SLOW)
    for packet in (b"a", b"b", b"c"):
        passing.put(0.0, 0, 1, packet, 1000)
    assert arrivals(passing) == [(2.0, 1, b"a"), (3.0, 1, b"b"), (4.0, 1, b"c")]


def test_what_one_sends_to_several_shares_its_link() -> None:
    passing = Wire(3, SLOW)
    passing.put(0.0, 0, 1, b"a", 1000)
    passing.put(0.0, 0, 2, b"b", 1000)
    assert arrivals(passing) == [(2.0, 1, b"a"), (3.0, 2, b"b")]


def test_what_several_send_to_one_shares_its_link() -> None:
    passing = Wire(3, SLOW)
    passing.put(0.0, 0, 2, b"a", 1000)
    passing.put(0.5, 1, 2, b"b", 1000)
    assert arrivals(passing) == [(2.0, 2, b"a"), (3.0, 2, b"b")]


def test_a_backlog_at_one_sender_delays_nobody_else() -> None:
    passing = Wire(3, SLOW)
    for _ in range(3):
        passing.put(0.0, 0, 2, b"a", 1000)
    passing.put(0.0, 1, 2, b"b", 10)
    at, destination, packet = arrivals(passing)[0]
    assert (destination, packet) == (2, b"b") and at == pytest.approx(1.01)


def test_directions_do_not_share() -> None:
    passing = Wire(2, SLOW)
    passing.put(0.0, 0, 1, b"a", 1000)
    passing.put(0.0, 1, 0, b"b", 1000)
    assert [at for at, _, _ in arrivals(passing)] == [2.0, 2.0]


def test_a_full_buffer_drops() -> None:
    passing = Wire(2, SLOW)
    for _ in range(6):
        passing.put(0.0, 0, 1, b"a", 1000)
    assert len(arrivals(passing)) == 4 and passing.dropped == 2


def test_a_burst_counts_as_the_packets_that_it_is_cut_into() -> None:
    kind, headers, segment = 1, 52, 1448
    burst = relay.HEADER.pack(0, kind, headers, segment, 0, 0) + bytes(headers + 3 * segment + 1)
    assert relay.wire_size(burst) == 4 * headers + 3 * segment + 1
    single = relay.HEADER.pack(0, 0, 0, 0, 0, 0) + bytes(700)
    assert relay.wire_size(single) == 700


@pytest.fixture(scope="module")
def hosts() -> Iterator[Wired]:
    """Three hosts with a quick link; skipped, and said, where the machine cannot."""
    try:
        with wire.wire(["a", "b", "c"], Link(delay=0.010, rate=80e6)) as made:
            yield made
    except NoWire as reason:
        pytest.skip(f"the network between hosts is NOT TESTED: {reason}")


def datagrams(hosts: Wired, name: str, port: int = 0) -> socket.socket:
    """A socket at a host."""
    found = hosts[name].inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    found.bind((hosts[name].address, port))
    found.settimeout(5.0)
    return found


def test_hosts_see_nothing_but_each_other(hosts: Wired) -> None:
    assert len({host.address for host in hosts.hosts.values()}) == 3
    command = [*hosts["a"].entering, "cat", "/proc/self/net/dev"]
    seen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    devices = {line.split(":")[0].strip() for line in seen.splitlines() if ":" in line}
    assert {"lo", "wan0"} <= devices and not any(name.startswith("eth") for name in devices)


def test_there_and_back_takes_twice_the_delay(hosts: Wired) -> None:
    times = wan.echoes(hosts["a"], hosts["b"], 10)
    assert min(times) >= 0.020
    assert statistics.median(times) < 0.080  # a busy machine adds some


def test_packets_reach_whom_they_are_for_in_order(hosts: Wired) -> None:
    with (
        datagrams(hosts, "a") as sender,
        datagrams(hosts, "b", 4000) as second,
        datagrams(hosts, "c", 4000) as third,
    ):
        for number in range(200):
            receiver = second if number % 3 else third
            sender.sendto(bytes([number]), receiver.getsockname())
        at_second = [second.recv(8)[0] for number in range(200) if number % 3]
        at_third = [third.recv(8)[0] for number in range(200) if number % 3 == 0]
    assert at_second == [number for number in range(200) if number % 3]
    assert at_third == [number for number in range(200) if number % 3 == 0]


def test_no_connection_is_quicker_than_the_link(hosts: Wired) -> None:
    rate = wan.throughput(hosts["a"], hosts["b"], 4 << 20)
    assert 10e6 < rate <= 80e6


def test_everything_goes_with_the_block() -> None:
    try:
        with wire.wire(["a"]) as made:
            assert Path(made["a"].namespace).exists()
            relay = made.relay
    except NoWire as reason:
        pytest.skip(f"NOT TESTED: {reason}")
    assert not Path(f"/proc/{relay}").exists()


def test_the_relay_ends_with_whoever_started_it() -> None:
    program = (
        "import os, sys\n"
        "from benchmarks.wire import wire\n"
        "with wire(['a']) as made:\n"
        "    print(made.relay, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    try:
        wire.check_machine()
    except NoWire as reason:
        pytest.skip(f"NOT TESTED: {reason}")
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        relay = int(child.stdout.readline())
        assert Path(f"/proc/{relay}").exists()
        os.kill(child.pid, 9)
    end = time.monotonic() + 10
    while running(relay) and time.monotonic() < end:
        time.sleep(0.05)
    assert not running(relay)


def running(pid: int) -> bool:
    """Whether a process is there and has not ended: whoever inherits it may collect it late."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
