"""The relay of `benchmarks.wire`: what stands for the network between its hosts, and makes them.

python -m benchmarks.relay DELAY RATE BUFFER NAME...      started by `wire`, for nobody else
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass

NETWORK = ipaddress.IPv4Network("10.99.0.0/24")
MTU = 1500
_ROOM = 1 << 17
NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_TUN, _BARE, _OFFLOAD_HEADER = 0x0001, 0x1000, 0x4000  # IFF_TUN, IFF_NO_PI, IFF_VNET_HDR
_SET_DEVICE, _SET_OFFLOAD = 0x400454CA, 0x400454D0  # TUNSETIFF, TUNSETOFFLOAD
_OFFLOADS = 0x1 | 0x2 | 0x8  # checksums; segmentation of TCP over IPv4; the same with ECN
_SET_FLAGS, _SET_ADDRESS, _SET_MASK, _SET_MTU, _SET_QUEUE = 0x8914, 0x8916, 0x891C, 0x8922, 0x8943
_UP = 0x1 | 0x40  # IFF_UP, IFF_RUNNING
_DEVICE = b"wan0"
HEADER = struct.Struct("=BBHHHH")  # struct virtio_net_hdr
_QUEUE = 10_000
"""Packets that wait for the relay; far more than its buffers let through."""


@dataclass(frozen=True)
class Link:
    """A host's link: seconds to the other host, bits a second, bytes that wait before it drops."""

    delay: float
    rate: float
    buffer: int = 4 << 20

    def seconds(self, size: int) -> float:
        """How long `size` bytes take to pass."""
        return 8 * size / self.rate


class Wire:
    """What the links do to packets; pure, the clock is the caller's.

    A packet passes its sender's link, then the way, then the receiver's link. Both links take one
    packet after another; on a free one the second passes while it arrives, so that its size counts
    once. The order between two hosts is kept.
    """

    def __init__(self, hosts: int, link: Link) -> None:
        self._link = link
        self._up_free = [0.0] * hosts
        self._down_free = [0.0] * hosts
        self._on_way: list[deque[tuple[float, int, int, bytes]]] = [deque() for _ in range(hosts)]
        self._arriving: list[deque[tuple[float, bytes]]] = [deque() for _ in range(hosts)]
        self.dropped = 0
        """Packets that found a full buffer."""

    def put(self, now: float, source: int, destination: int, packet: bytes, size: int) -> None:
        """A host sends a packet that is `size` bytes on the wire."""
        start = max(now, self._up_free[source])
        if self._full(start - now):
            self.dropped += 1
            return
        end = self._up_free[source] = start + self._link.seconds(size)
        self._on_way[source].append((end + self._link.delay, destination, size, packet))

    def __len__(self) -> int:
        return len(self._arriving)

    def due(self) -> float | None:
        """When `take` next has something to do; None if nothing is on its way."""
        first = [queue[0][0] for queue in self._on_way if queue]
        return min([*first, *(queue[0][0] for queue in self._arriving if queue)], default=None)

    def take(self, now: float) -> list[tuple[int, bytes]]:
        """What has arrived by now: receivers and packets."""
        reached: list[tuple[float, int, int, bytes]] = []
        for queue in self._on_way:
            while queue and queue[0][0] <= now:
                reached.append(queue.popleft())
        for at, destination, size, packet in sorted(reached, key=lambda found: found[0]):
            free = self._down_free[destination]
            if self._full(free - at):
                self.dropped += 1
                continue
            end = self._down_free[destination] = max(at, free + self._link.seconds(size))
            self._arriving[destination].append((end, packet))
        found = []
        for destination, arriving in enumerate(self._arriving):
            while arriving and arriving[0][0] <= now:
                found.append((destination, arriving.popleft()[1]))
        return found

    def _full(self, behind: float) -> bool:
        return behind > self._link.seconds(self._link.buffer)


def address_of(index: int) -> str:
    """The address of host number `index`."""
    return str(NETWORK[index + 1])


def check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main() -> None:
    """Make the namespaces, say so in a line of JSON, relay until standard input ends."""
    parser = argparse.ArgumentParser(description="The relay of benchmarks.wire.")
    for name, kind in (("delay", float), ("rate", float), ("buffer", int)):
        parser.add_argument(name, type=kind)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    try:
        made = [_make_host(index) for index in range(len(options.names))]
    except OSError as error:
        print(json.dumps({"problem": f"namespaces cannot be made: {error}"}), flush=True)
        return
    with contextlib.suppress(OSError):  # it stands for hardware, which nobody keeps waiting
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    print(json.dumps({"namespaces": [namespace for namespace, _ in made]}), flush=True)
    _relay([device for _, device in made], Link(options.delay, options.rate, options.buffer))


def _relay(devices: list[int], link: Link) -> None:
    passing = Wire(len(devices), link)
    ending = sys.stdin.fileno()
    while True:
        due = passing.due()
        wait = None if due is None else max(0.0, due - time.monotonic())
        readable, _, _ = select.select([*devices, ending], [], [], wait)
        if ending in readable:
            return
        for device in readable:
            _read(device, devices.index(device), passing)
        for destination, packet in passing.take(time.monotonic()):
            with contextlib.suppress(OSError):  # the host is going, or refuses this packet
                os.write(devices[destination], packet)


def _read(device: int, source: int, passing: Wire) -> None:
    """Put on the way what a host has sent, but not so much that others wait for it."""
    for _ in range(32):
        try:
            packet = os.read(device, _ROOM)
        except BlockingIOError:
            return
        destination = _destination(packet)
        if destination is not None and destination < len(passing):
            passing.put(time.monotonic(), source, destination, packet, wire_size(packet))


def _destination(packet: bytes) -> int | None:
    """The number of the host that a packet is for; None for what is not of this network."""
    address = packet[HEADER.size :][16:20]
    if len(address) < 4 or packet[HEADER.size] >> 4 != 4:
        return None
    number = int.from_bytes(address, "big") - int(NETWORK[1])
    return number if number >= 0 else None


def wire_size(packet: bytes) -> int:
    """Bytes that a packet, with the kernel's header before it, has once it is cut to the MTU."""
    _, kind, headers, segment, _, _ = HEADER.unpack_from(packet)
    size = len(packet) - HEADER.size
    if not kind or not segment:
        return size
    pieces: int = -(-(size - headers) // segment)
    return size + (pieces - 1) * int(headers)


def _make_host(index: int) -> tuple[int, int]:
    """A namespace with its address: file descriptors of the namespace and of its TUN device."""
    check(ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK))
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = _TUN | _BARE | _OFFLOAD_HEADER
    fcntl.ioctl(device, _SET_DEVICE, struct.pack("16sH22x", _DEVICE, flags))
    fcntl.ioctl(device, _SET_OFFLOAD, _OFFLOADS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def configure(request: int, name: bytes, value: bytes) -> None:
            fcntl.ioctl(control, request, struct.pack("16s24s", name, value))

        def address(text: str) -> bytes:
            return struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(text))

        configure(_SET_ADDRESS, _DEVICE, address(address_of(index)))
        configure(_SET_MASK, _DEVICE, address(str(NETWORK.netmask)))
        configure(_SET_MTU, _DEVICE, struct.pack("i", MTU))
        configure(_SET_QUEUE, _DEVICE, struct.pack("i", _QUEUE))
        configure(_SET_FLAGS, _DEVICE, struct.pack("H", _UP))
        configure(_SET_FLAGS, b"lo", struct.pack("H", _UP))
    return namespace, device


if __name__ == "__main__":
    main()
