"""Share a file with two parties' stores in this process; print what it took, as JSON.

python -m tests.data.measured FILE SCHEMA DIRECTORY
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from masque.data.chunks import checksum
from masque.data.schema import load
from masque.data.shares import share_stream
from masque.data.store import Store
from masque.mpc import prg


def main(path: Path, schema: Path, into: Path) -> None:
    shared = share_stream(path, load(schema), 2, prg.reader(os.urandom(prg.SEED_SIZE)))
    stores = [Store(into / str(party)) for party in range(2)]
    writers = [store.begin("measured", shared.info, "measured") for store in stores]
    largest = 0
    for chunk in shared.chunks():
        for party, writer in enumerate(writers):
            payload = chunk.payload(party)
            largest = max(largest, len(payload))
            writer.write(chunk.first_row, chunk.rows, payload, checksum(payload))
    for writer in writers:
        writer.commit()
    print(json.dumps({"largest_chunk_bytes": largest, "peak_mib": peak_mib()}))


def peak_mib() -> float:
    """Of this program alone; what getrusage tells includes the program that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
