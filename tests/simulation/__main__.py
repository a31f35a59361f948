"""Run seeds: `python -m tests.simulation 2000` (1 to 2000), `1000-1999`, or `--seed 17`.

Exit code 0 if every rule holds in every seed, 1 if not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence

from tests.simulation.portions import portion_of
from tests.simulation.seeds import Report, run
from tests.simulation.villages import ground as prepared

LINES = 60
"""Events of a failing seed that are shown."""

PORTION = 20


def seeds_of(text: str) -> range:
    """`2000`: seeds 1 to 2000; `1000-1999`: these."""
    try:
        first, _, last = text.rpartition("-")
        return range(int(first or 1), int(last) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no seeds: write 2000, for 1 to 2000, or 1000-1999"
        ) from None


def _reports(seeds: Sequence[int], workers: int) -> Iterator[Report]:
    portions = [seeds[at : at + PORTION] for at in range(0, len(seeds), PORTION)]
    if len(portions) == 1 or workers == 1:
        for portion in portions:
            yield from portion_of(portion)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for reports in pool.imap(portion_of, portions):
            yield from reports


def _show(report: Report, lines: int | None) -> None:
    print(f"\n{report}")
    shown = report.trace if lines is None else report.trace[-lines:]
    for at, text in shown:
        print(f"  {at:10.4f}  {text}")
    for error in report.errors:
        print(error)
    print(f"replay it: make simulate SEED={report.seed}", flush=True)


def _replay(seed: int, *, tasks: bool) -> int:
    """One seed, with all that happens in it."""
    with prepared() as ground:
        report = run(seed, ground, tracing=tasks)
    _show(report, None)
    return int(bool(report.violations))


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="?", type=seeds_of, default="1000", help="many seeds")
    parser.add_argument("--seed", type=int, help="one seed, with everything that happens in it")
    parser.add_argument("--tasks", action="store_true", help="every turn of every thread as well")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return _replay(chosen.seed, tasks=chosen.tasks)
    began, bad = time.monotonic(), 0
    for done, report in enumerate(_reports(chosen.seeds, chosen.workers), start=1):
        if report.violations:
            bad += 1
            _show(report, LINES)
        if done % PORTION == 0 or done == len(chosen.seeds):
            spent = time.monotonic() - began
            end = "\r" if sys.stderr.isatty() and done < len(chosen.seeds) else "\n"
            text = f"{done} of {len(chosen.seeds)} seeds, {bad} bad, {spent:.0f} s"
            print(text, end=end, file=sys.stderr, flush=True)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
