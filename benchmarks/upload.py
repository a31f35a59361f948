"""A million rows by 30 columns, from a CSV file to two parties' stores, over mutual TLS.

The client is a process of its own, so that the memory measured is its alone: imports, reading,
checking, encoding, splitting and sending.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.figures import Figure, Outcome
from benchmarks.network import network, synthetic

COLUMNS = 30
MIB = 1 << 20


def measure(quick: bool) -> Outcome:
    """Upload once; a second upload replaces the first."""
    rows = 100_000 if quick else 1_000_000
    with network() as services:
        path, schema = synthetic(services.directory, rows, COLUMNS - 1)
        parties = {name: pid for name, pid in services.pids.items() if name.startswith("party")}
        idle = {name: machine.resident_bytes(pid) for name, pid in parties.items()}
        elsewhere = machine.Others(list(services.pids.values()))
        found = _child(services.directory / "network" / "profile.yaml", path, schema)
        busy = elsewhere.cores
        figures = [
            Figure("upload", found["seconds"], "s"),
            Figure("rows a second", rows / found["seconds"], "rows"),
            Figure("sent to both parties", found["bytes"] / MIB, "MiB"),
            Figure("the file", path.stat().st_size / MIB, "MiB"),
            Figure("peak memory of the client", found["peak"] / MIB, "MiB", at_most=500.0),
            Figure("of it: program and libraries", found["idle"] / MIB, "MiB"),
            *(
                Figure(
                    f"memory that {name} needed more",
                    (machine.peak_bytes(pid) - idle[name]) / MIB,
                    "MiB",
                )
                for name, pid in parties.items()
            ),
            Figure("times that progress was told", found["progress"], ""),
            Figure("cores kept busy by other programs and the client", busy, "cores"),
        ]
    return Outcome(f"Upload of {rows:,} rows x {COLUMNS} columns to two parties", figures)


def _child(profile: Path, path: Path, schema: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.upload", str(profile), str(path), str(schema)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def upload(profile: Path, path: Path, schema: Path) -> dict[str, Any]:
    """In the client's process: share a file, and tell what it took."""
    from masque.client import sharing
    from masque.client.profile import load
    from masque.client.services import Services

    with Services(load(profile)) as services:
        idle = machine.peak_bytes()
        began = time.monotonic()
        count = 0

        def progress(*_: object) -> None:
            nonlocal count
            count += 1

        shared = sharing.share(services.parties, path, schema, "million", progress=progress)
        seconds = time.monotonic() - began
    return {
        "seconds": seconds,
        "bytes": shared.bytes_sent,
        "idle": idle,
        "peak": machine.peak_bytes(),
        "progress": count,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Share a file; print what it took as JSON.")
    for name in ("profile", "path", "schema"):
        parser.add_argument(name, type=Path)
    print(json.dumps(upload(**vars(parser.parse_args()))))
