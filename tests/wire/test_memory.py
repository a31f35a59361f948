"""Memory that a service keeps while a job runs, and gives back afterwards."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading
import time
import numpy as np
from masque.wire import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

assert memory.keep_freed()
before = resident()

def work():
    for _ in range(3):
        arrays = [np.ones(1 << 20) for _ in range(16)]  # 128 MiB
        del arrays

worker = threading.Thread(target=work)
worker.start()
worker.join()
assert resident() - before > 120 << 20, "what was freed is kept, in any thread"
memory.give_back_soon(0.0)
end = time.monotonic() + 10
while resident() - before > 32 << 20:
    assert time.monotonic() < end, "and given back"
    time.sleep(0.02)
"""


def test_what_is_freed_is_kept_and_then_given_back() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
