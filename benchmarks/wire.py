"""Hosts far from each other, on one machine: network namespaces with a long, narrow link between.

    with wire(["dealer", "party-1", "party-2"], WAN) as hosts:
        subprocess.Popen([*hosts["dealer"].entering, "program", ...])
        listener = hosts["party-1"].inside(lambda: socket.create_server((address, 0)))

Every host is a namespace of its own with one address. A relay process (`relay.py`) has a TUN device
in each, reads what a host sends, holds it for as long as its link would, and writes it to the host
that it is for. Each host has a link of its own to the middle, of equal rate both ways: what one
host sends to several shares its link, and so does what several send to one. The kernel's netem
would do for much of that, but many kernels lack it; this is the same everywhere.

TCP behaves as on a real network: packets are those of an MTU of 1500 bytes, and a burst of them
passes in one piece (generic segmentation offload), so that the relay has little to do. Beyond its
buffer a link drops packets. Congestion control is what the machine uses anyway.

Nothing outlives the block, nor this process however it ends: the namespaces have no names and go
with the last process in them, and the relay ends when its standard input does. Linux, root.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks import relay
from benchmarks.relay import NEW_NETWORK, Link, address_of, check

Result = TypeVar("Result")

WAN = Link(delay=0.020, rate=350e6)
"""Round trips of 40 ms, 350 Mb/s each way."""


class NoWire(Exception):
    """This machine cannot do it; the text says what is missing."""


@dataclass(frozen=True)
class Host:
    """A namespace: its name here, its address, and a path that stands for it while it exists."""

    name: str
    address: str
    namespace: str

    @property
    def entering(self) -> tuple[str, ...]:
        """The beginning of a command line that runs a program in there, as the same process."""
        return ("nsenter", f"--net={self.namespace}")

    def enter(self) -> None:
        """Move this thread, and those that it starts from now on, in there."""
        with open(self.namespace, "rb") as file:
            check(ctypes.CDLL(None, use_errno=True).setns(file.fileno(), NEW_NETWORK))

    def inside(self, make: Callable[[], Result]) -> Result:
        """What `make` returns in there. A socket belongs for good to where it was made."""
        found: list[Result] = []

        def run() -> None:
            self.enter()
            found.append(make())

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return found[0]


@dataclass(frozen=True)
class Wired:
    """Hosts by name, and the process id of their relay."""

    hosts: dict[str, Host]
    relay: int

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    @property
    def congestion_control(self) -> str:
        """What TCP uses in there."""
        path = Path("/proc/sys/net/ipv4/tcp_congestion_control")
        return next(iter(self.hosts.values())).inside(path.read_text).strip()


@contextmanager
def wire(names: Sequence[str], link: Link = WAN) -> Iterator[Wired]:
    """Make the hosts, and a link for each. Raises NoWire where this cannot be done."""
    check_machine()
    measures = [str(link.delay), str(link.rate), str(link.buffer)]
    process = subprocess.Popen(
        [sys.executable, "-m", relay.__name__, *measures, *names],
        stdin=subprocess.PIPE,  # it ends when this does, whatever becomes of us
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parent.parent,
        start_new_session=True,  # Ctrl-C is ours: services still say goodbye through it
    )
    assert process.stdin is not None and process.stdout is not None, "both are pipes"
    try:
        told = json.loads(process.stdout.readline() or b'{"problem": "the relay did not start"}')
        if "problem" in told:
            raise NoWire(told["problem"])
        hosts = {
            name: Host(name, address_of(index), f"/proc/{process.pid}/fd/{number}")
            for index, (name, number) in enumerate(zip(names, told["namespaces"], strict=True))
        }
        yield Wired(hosts, process.pid)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def check_machine() -> None:
    """Raises NoWire if something is missing; being forbidden shows only when it is tried."""
    if sys.platform != "linux":
        raise NoWire("network namespaces need Linux")
    if os.geteuid() != 0:
        raise NoWire("making network namespaces needs root")
    if not Path("/dev/net/tun").exists():
        raise NoWire("there is no /dev/net/tun")
    if shutil.which("nsenter") is None:
        raise NoWire("there is no nsenter (package util-linux)")
