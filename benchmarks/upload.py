"""A million rows by 30 columns: CSV to checked, encoded, split and stored shares of two parties.

    python -m benchmarks.upload [--rows 1000000] [--columns 30] [--parties 2] [--json]

No network: what is measured is the owner's side and the parties' stores. Memory is the peak
resident size of one fresh process that does all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

BATCH = 50_000


def generate(path: Path, rows: int, columns: int) -> None:
    random = np.random.default_rng(7)
    names = [f"x{index}" for index in range(columns - 1)] + ["y"]
    layout = pa.schema([(name, pa.float64()) for name in names[:-1]] + [("y", pa.int8())])
    with pa.csv.CSVWriter(path, layout) as writer:
        for start in range(0, rows, BATCH):
            count = min(BATCH, rows - start)
            features = [random.normal(50, 12, count).clip(0, 100).round(4) for _ in names[:-1]]
            label = random.integers(0, 2, count, dtype=np.int8)
            writer.write(pa.record_batch([*features, label], schema=layout))


def schema_text(columns: int) -> str:
    lines = [f"  x{index}: {{type: number, range: [0, 100]}}" for index in range(columns - 1)]
    return "\n".join(["columns:", *lines, "label: {column: y, type: binary}"]) + "\n"


def share(path: Path, schema_path: Path, parties: int, into: Path) -> dict[str, float]:
    """Runs in a process of its own."""
    from masque.data.schema import load
    from masque.data.chunks import checksum
    from masque.data.shares import share_stream
    from masque.data.store import Store
    from masque.mpc import prg

    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    stream = share_stream(path, load(schema_path), parties, prg.reader(os.urandom(32)))
    checked = time.perf_counter()
    stores = [Store(into / str(party)) for party in range(parties)]
    writers = [store.begin("bench", stream.info, "bench") for store in stores]
    largest = 0
    for chunk in stream.chunks():
        for party, writer in enumerate(writers):
            payload = chunk.payload(party)
            largest = max(largest, len(payload))
            writer.write(chunk.first_row, chunk.rows, payload, checksum(payload))
    for writer in writers:
        writer.commit()
    ended = time.perf_counter()
    rows = stream.info.rows
    return {
        "rows": rows,
        "check_seconds": round(checked - began, 3),
        "share_seconds": round(ended - checked, 3),
        "rows_per_second": round(rows / (ended - began)),
        "largest_chunk_bytes": largest,
        "idle_mib": round(idle / 1024, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--parties", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, metavar=("CSV", "SCHEMA", "INTO"))
    options = parser.parse_args()
    if options.child:
        csv_path, schema_path, into = map(Path, options.child)
        print(json.dumps(share(csv_path, schema_path, options.parties, into)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        path, schema_path = Path(scratch, "data.csv"), Path(scratch, "schema.yaml")
        generate(path, options.rows, options.columns)
        schema_path.write_text(schema_text(options.columns))
        command = [sys.executable, "-m", "benchmarks.upload", "--parties", str(options.parties)]
        command += ["--child", str(path), str(schema_path), scratch]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result = json.loads(done.stdout)
        result["csv_mib"] = round(path.stat().st_size / 2**20, 1)
        result["columns"], result["parties"] = options.columns, options.parties
        result["machine"] = f"{os.cpu_count()} cores, {platform.machine()}"
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        print(f"{key:>20}  {value}")


if __name__ == "__main__":
    main()
