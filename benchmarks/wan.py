"""Training between distant hosts: every service in a network namespace, 40 ms and 350 Mb/s between.

Dealer, parties, coordinator and client have a host each (see `wire.py`), mutual TLS as always. All
of them share the cores of this machine, and so does the relay that stands for the network. Before
anything is measured the network itself is: what it says of itself is in the figures.

An epoch's time is the coordinator's, divided by its iterations; the first epoch warms up. The jobs
are those of `lr` and `networks`.

    python -m benchmarks wan        # Linux, root; elsewhere it says so and is skipped

A process that has opened connections cannot move to another namespace, so that the work is done in
one of its own: `python -m benchmarks.wan`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import masque.client  # noqa: F401 - before grpc, whose settings it chooses
from benchmarks import iteration, machine, neural, rivals
from benchmarks.figures import Figure, Outcome, Skipped, judged, median_of
from benchmarks.network import Network, Run, spread, synthetic
from benchmarks.wire import WAN, Host, NoWire, wire
from masque.client import lifeline
from masque.client.planning import Part
from masque.client.sharing import Shared
from masque.errors import MasqueError

CLIENT = "client"
HOSTS = ("dealer", "party-1", "party-2", "coordinator", CLIENT)
NET_A_SECONDS, LR_SECONDS = 2.5, 0.35
NET_A_ITERATIONS = 5
"""An epoch of network A; the counted epochs together have 20."""


def measure(quick: bool) -> Outcome:
    """In a process of its own. Raises Skipped if this machine has no such networks."""
    bound = [sys.executable, "-E", "-S", lifeline.__file__, str(os.getpid())]  # it ends with us
    command = [*bound, sys.executable, "-m", __name__, *(["--quick"] if quick else [])]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        output, _ = child.communicate()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    told = json.loads(output or b'{"error": "the process that measures ended early"}')
    if "skipped" in told:
        raise Skipped(told["skipped"])
    if "error" in told:
        raise MasqueError(told["error"])
    return Outcome.from_json(told)


def measured(quick: bool) -> Outcome:
    """Everything, from this process; afterwards it stays at the client's host."""
    with wire(HOSTS) as hosts:
        figures = checks(hosts["party-1"], hosts["party-2"])
        control = hosts.congestion_control
        hosts[CLIENT].enter()
        with spread(hosts.hosts) as services:
            figures += jobs(services, hosts.relay, quick)
    title = "One iteration between hosts 40 ms and 350 Mb/s apart, batch 128"
    return Outcome(title, figures, {"congestion_control": control})


# ---- the network itself --------------------------------------------------------------------------


def checks(here: Host, there: Host) -> list[Figure]:
    """What the network does, measured by itself. A MasqueError if it is better than it claims."""
    times = [1e3 * seconds for seconds in echoes(here, there, 20)]
    rate = throughput(here, there) / 1e6
    delay, limit = 2e3 * WAN.delay, WAN.rate / 1e6
    if min(times) < delay or rate > limit:
        raise MasqueError(
            f"The network is not what it claims: {min(times):.1f} ms there and back, {rate:.0f}"
            " Mb/s.",
            hint="No figure measured over it would be worth anything.",
        )
    return [
        median_of("the network: a packet there and back", times, "ms", at_least=delay),
        Figure("- bytes of one TCP connection, once under way", rate, "Mb/s", at_most=limit),
    ]


def echoes(here: Host, there: Host, count: int) -> list[float]:
    """Seconds that packets take there and back, one after the other."""
    ours, theirs = _datagrams(here), _datagrams(there)
    with ours, theirs:

        def answer() -> None:
            for _ in range(count):
                theirs.sendto(*theirs.recvfrom(64))

        thread = threading.Thread(target=answer)
        thread.start()
        times = []
        for _ in range(count):
            began = time.perf_counter()
            ours.sendto(b"?", theirs.getsockname())
            ours.recv(64)
            times.append(time.perf_counter() - began)
        thread.join()
    return times


def _datagrams(host: Host) -> socket.socket:
    found = host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    found.bind((host.address, 0))
    found.settimeout(5.0)
    return found


def throughput(here: Host, there: Host, size: int = 48 << 20) -> float:
    """Bits a second of the second half of `size` bytes, so that the connection is under way."""
    listener = there.inside(lambda: socket.create_server((there.address, 0)))
    ours = here.inside(lambda: socket.create_connection(listener.getsockname()))
    theirs, _ = listener.accept()
    with listener, ours, theirs:
        thread = threading.Thread(target=ours.sendall, args=(bytes(size),))
        thread.start()
        got, half, began = 0, size // 2, 0.0
        while got < size:
            got += len(theirs.recv(1 << 20))
            if got >= half and not began:
                began, half = time.perf_counter(), got
        seconds = time.perf_counter() - began
        thread.join()
    return 8 * (size - half) / seconds


# ---- the jobs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What to measure: a job of some epochs, each of so many iterations; what others take."""

    name: str
    epochs: int
    iterations: int
    at_most: float
    rivals: dict[str, float]
    job: Callable[[str, int], str]

    def figures(self, services: Network, relay: int, shared: Shared) -> list[Figure]:
        """Run the job and account for it."""
        text = self.job(shared.name, self.epochs)
        planned = services.plan(text, [shared])
        part = next(part for part in planned.parts if part.name == "epoch 2")
        elsewhere = machine.Others([*services.pids.values(), relay])
        busy: dict[str, float] = {}
        run = services.run(text, lambda name: busy.update({name: elsewhere.lap()}))
        iteration.check_counters(planned, run)
        first, *samples = (seconds / self.iterations for seconds in run.lasted("epoch"))
        names = list(busy)
        begun = names.index("epoch 2") + 1  # the lap of an epoch ends where the next one begins
        return [
            *judged(
                f"{self.name}, one iteration",
                list(zip(samples, (busy[name] for name in names[begun:]), strict=False)),
                "s",
                at_most=self.at_most,
                rivals=self.rivals,
            ),
            *self._floor(part),
            Figure("- the first epoch's, which opens the connections up", first, "s"),
            *_waiting(run),
        ]

    def _floor(self, part: Part) -> list[Figure]:
        """What an iteration needs of the network, and how long that takes at the least."""
        rounds = part.rounds / self.iterations
        sent = part.sent_by_a_party / self.iterations
        dealt = sum(part.corrections) / self.iterations
        busiest = max(
            sent + dealt / len(part.corrections), dealt
        )  # a party's link in, the dealer's out
        return [
            Figure("- rounds", rounds, "rounds"),
            Figure("- a party sends", sent, "bytes"),
            Figure("- the dealer sends, in all", dealt, "bytes"),
            Figure("- its rounds, each one way", rounds * WAN.delay, "s"),
            Figure("- its bytes, over the busiest link", WAN.seconds(round(busiest)), "s"),
        ]


def _waiting(run: Run) -> list[Figure]:
    figures = []
    for what in ("peers", "dealer"):
        shares = [100 * c[f"waiting_for_{what}"] / c["seconds"] for c in run.counters.values()]
        title = (
            f"- waiting for {'the dealer' if what == 'dealer' else what}, share of the whole job"
        )
        figures.append(Figure(title, statistics.median(shares), "%"))
    return figures


def jobs(services: Network, relay: int, quick: bool) -> Iterator[Figure]:
    """Network A, then logistic regression."""
    directory, rows = services.directory, NET_A_ITERATIONS * neural.BATCH
    yield from Work(
        "network A",
        3 if quick else 5,
        NET_A_ITERATIONS,
        NET_A_SECONDS,
        rivals.NET_A_WAN_SECONDS,
        lambda name, epochs: neural.job("a", name, epochs),
    ).figures(services, relay, services.share(*neural.images(directory, rows), "images"))
    shared = services.share(*synthetic(directory, iteration.ROWS, iteration.COLUMNS), "synthetic")
    yield from Work(
        "logistic regression, 10,000 x 100",
        2 if quick else 4,
        iteration.ITERATIONS,
        LR_SECONDS,
        rivals.LR_WAN_SECONDS,
        iteration.job,
    ).figures(services, relay, shared)


def main() -> None:
    """The process that measures: one JSON document on standard output."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is stopped
    try:
        found = measured("--quick" in sys.argv).as_json()
    except NoWire as reason:
        found = {"skipped": str(reason)}
    except MasqueError as error:
        found = {"error": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
