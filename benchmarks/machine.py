"""The machine, and what processes use of it: read from /proc (Linux)."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

_TICK = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """What ran the benchmarks, and how busy it was."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load": [round(value, 2) for value in os.getloadavg()],
        "when": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def cpu_seconds(pid: int) -> float:
    """Seconds of a core that a process has used, threads that ended included; ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def peak_bytes(pid: int | str = "self") -> int:
    """The peak resident size of a process, since its start or since `forget_peak`."""
    return _status(pid, "VmHWM")


def resident_bytes(pid: int | str = "self") -> int:
    """The resident size of a process now."""
    return _status(pid, "VmRSS")


def forget_peak(pid: int | str = "self") -> None:
    """Let the peak of a process begin anew, at what it is now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _status(pid: int | str, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc has no {name}")


class Others:
    """How many cores programs other than `ours` (process ids) and this one keep busy."""

    def __init__(self, ours: list[int]) -> None:
        self._ours = [*ours, os.getpid()]
        self._start = self._last = self._now()

    @property
    def cores(self) -> float:
        """On average since the beginning."""
        return self._between(self._start, self._now())

    def lap(self) -> float:
        """On average since the last lap."""
        last, self._last = self._last, self._now()
        return self._between(last, self._last)

    def _now(self) -> tuple[float, float]:
        used = _busy() - sum(cpu_seconds(pid) for pid in self._ours)
        return time.monotonic(), used

    @staticmethod
    def _between(first: tuple[float, float], last: tuple[float, float]) -> float:
        return round(max(0.0, last[1] - first[1]) / max(1e-3, last[0] - first[0]), 2)


def _busy() -> float:
    """Seconds that all cores together have been in use, time taken by other machines included."""
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    user, nice, system, _, _, interrupts, soft, steal = map(int, first[1:9])
    return (user + nice + system + interrupts + soft + steal) / _TICK
