"""How long one swap between parties takes: real processes, mutual TLS, loopback.

    python -m benchmarks.latency [--parties N] [--swaps N] [--json]

Every party is an operating-system process; all of them swap payloads of the same size at once, as
in a round of the protocol. Reported by party 0: medians and 90th percentiles over all swaps, CPU
time of its process per swap, and the payload's speed in each direction. On a busy machine compare
rows with each other and with the first line, a bare socket pair between two processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import masque.wire.polling  # before grpc  # noqa: F401

if TYPE_CHECKING:
    from masque.wire.exchange import PeerExchange

SIZES = (64, 1 << 10, 4 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20)
PROJECT = "bench"


@dataclass(frozen=True)
class Row:
    """One payload size: bytes, microseconds of wall clock and CPU per swap, MB/s each way."""

    transport: str
    size: int
    swaps: int
    median_us: float
    p90_us: float
    cpu_us: float
    megabytes_per_second: float


def measure(transport: str, swap: Callable[[bytes], object], size: int, swaps: int) -> Row:
    """Time `swaps` swaps of `size` bytes, after a few that do not count."""
    payload = bytes(size)
    for _ in range(max(5, swaps // 10)):
        swap(payload)
    times = []
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(swaps):
        began = time.perf_counter()
        swap(payload)
        times.append(time.perf_counter() - began)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Row(
        transport,
        size,
        swaps,
        median_us=statistics.median(times) * 1e6,
        p90_us=statistics.quantiles(times, n=10)[-1] * 1e6,
        cpu_us=cpu / swaps * 1e6,
        megabytes_per_second=size * swaps / wall / 1e6,
    )


def swaps_of(size: int, swaps: int) -> int:
    """Fewer swaps for long payloads, so that every row takes about as long."""
    return max(20, min(swaps, (swaps << 16) // max(size, 1)))


@contextmanager
def meeting(index: int, root: Path, pipe: Connection) -> Iterator[PeerExchange]:
    """Serve as party `index`, exchange addresses through the parent, connect to the others."""
    from masque.wire.binding import Binding
    from masque.wire.exchange import PeerExchange
    from masque.wire.hub import Hub
    from masque.wire.identity import Identity, Role
    from masque.wire.server import Server
    from masque.wire.streams import METHOD, open_peer_channel
    from masque.wire.tls import find_credentials

    names = sorted(path.name for path in root.glob("p*"))
    credentials = find_credentials(root / names[index])
    hub = Hub(names[index])
    with Server(credentials, "127.0.0.1:0", {METHOD: {Role.PARTY}}, [hub.mount]) as server:
        pipe.send(server.address)
        addresses = pipe.recv()
        channels = {
            name: open_peer_channel(address, Identity(PROJECT, Role.PARTY, name), credentials)
            for name, address in zip(names, addresses, strict=True)
            if name != names[index]
        }
        binding = Binding("latency", 1, tuple(names), index, bytes(32), bytes(32))
        with PeerExchange(hub, binding, channels).open() as exchange:
            yield exchange
        server.stop(grace=0)


def party(index: int, root: Path, swaps: int, pipe: Connection) -> None:
    """One process: meet the others, swap, report."""
    with meeting(index, root, pipe) as exchange:
        for size in SIZES:
            row = measure(transport(exchange), exchange.swap, size, swaps_of(size, swaps))
            pipe.send(row)
        pipe.recv()


def introduce(pipes: Sequence[Connection]) -> None:
    """Tell all parties the addresses of all."""
    addresses = [pipe.recv() for pipe in pipes]
    for pipe in pipes:
        pipe.send(addresses)


def transport(exchange: PeerExchange) -> str:
    """What was measured: mutual TLS, and which of the ways to send and to wait were in use."""
    from masque.wire.polling import CHOSEN_IN_TIME, SETTINGS
    from masque.wire.streams import DirectOutgoing

    sending = "direct" if isinstance(exchange._links[0].outgoing, DirectOutgoing) else "queued"
    own = CHOSEN_IN_TIME and all(os.environ.get(name) == SETTINGS[name] for name in SETTINGS)
    return f"gRPC TLS, {sending}, {'own' if own else 'other'} polling"


def issue(root: Path, parties: int) -> None:
    """Certificates for all parties."""
    from masque.wire.authority import create_authority
    from masque.wire.identity import Identity, Role

    authority = create_authority(root / "authority", PROJECT)
    for index in range(parties):
        identity = Identity(PROJECT, Role.PARTY, f"p{index}")
        authority.issue(identity, root / identity.name)


def run(parties: int, swaps: int) -> list[Row]:
    """Start the processes, introduce them to each other, collect the rows of party 0."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        issue(root, parties)
        pipes, processes = [], []
        for index in range(parties):
            ours, theirs = context.Pipe()
            process = context.Process(target=party, args=(index, root, swaps, theirs))
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        introduce(pipes)
        collected: list[list[Row]] = [[pipe.recv() for pipe in pipes] for _ in SIZES]
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join()
    return [rows[0] for rows in collected]


def socket_floor(swaps: int) -> Row:
    """The same swap of 1 KiB over a bare socket pair, nothing encrypted: the machine's own cost."""
    ours, theirs = socket.socketpair()
    context = multiprocessing.get_context("spawn")
    size = 1 << 10
    count = swaps + max(5, swaps // 10)
    process = context.Process(target=_answer, args=(theirs, size, count))
    process.start()

    def swap(payload: bytes) -> bytes:
        ours.sendall(payload)
        return ours.recv(size, socket.MSG_WAITALL)

    try:
        return measure("socket pair", swap, size, swaps)
    finally:
        process.join()


def _answer(connection: socket.socket, size: int, count: int) -> None:
    for _ in range(count):
        connection.sendall(bytes(size))
        connection.recv(size, socket.MSG_WAITALL)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parties", type=int, default=2)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [socket_floor(options.swaps), *run(options.parties, options.swaps)]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print(f"{'transport':31}{'bytes':>9}{'median us':>11}{'p90 us':>9}{'CPU us':>9}{'MB/s':>8}")
    for row in rows:
        print(
            f"{row.transport:31}{row.size:9}{row.median_us:11.0f}{row.p90_us:9.0f}"
            f"{row.cpu_us:9.0f}{row.megabytes_per_second:8.1f}"
        )


if __name__ == "__main__":
    main()
