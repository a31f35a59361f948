"""The least that work could take on this machine, by what it has to do; all else is overhead.

    multiplications   of all processes, at the rate of `ring.matmul`, spread over the cores
    bytes             between parties and from the dealer, at the CPU that a swap of 1 MiB takes a
                      byte, spread over the cores
    rounds            at the latency of a swap of 1 KiB

as if comparisons, truncations, randomness and Python took nothing.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks.figures import Figure
from masque.mpc import ring


@dataclass(frozen=True)
class Machine:
    """Ring multiplications a second of a core; seconds of CPU a byte sent and received; seconds a
    round.
    """

    rate: float
    byte: float
    round: float


@dataclass(frozen=True)
class Work:
    """`multiplications` at one party (the dealer does half as many), `sent` by each of two parties,
    `dealt` in all, in bytes; `rounds`.
    """

    multiplications: float
    sent: float
    dealt: float
    rounds: float


@cache
def measured() -> Machine:
    """This machine; takes a few seconds."""
    from benchmarks.micro import swaps

    rows = {row["size"]: row for row in swaps(True) if "gRPC" in row["transport"]}
    large = rows[1 << 20]["cpu_us"] / 1e6 / (1 << 20)
    return Machine(_rate(), large, rows[1 << 10]["median_us"] / 1e6)


def _rate() -> float:
    random = np.random.default_rng(1)
    a, b = (random.integers(0, 2**64, shape, dtype=np.uint64) for shape in ((512, 512),) * 2)
    times = []
    for _ in range(12):
        began = time.perf_counter()
        ring.matmul(a, b)
        times.append(time.perf_counter() - began)
    return 512**3 / statistics.median(times)


def parts(work: Work) -> dict[str, float]:
    """Seconds, by what they go to."""
    machine, cores = measured(), os.cpu_count() or 1
    return {
        "multiplications": 2.5 * work.multiplications / machine.rate / cores,
        "bytes": (2 * work.sent + work.dealt) * machine.byte / cores,
        "rounds": work.rounds * machine.round,
    }


def figures(work: Work, seconds: float) -> list[Figure]:
    """The floor, and how far above it the measured time stands."""
    found = parts(work)
    floor = sum(found.values())
    share = ", ".join(f"{what} {value / floor:.0%}" for what, value in found.items())
    return [
        Figure(f"- floor ({share})", 1e3 * floor, "ms"),
        Figure("- times it", seconds / floor, "x"),
    ]
