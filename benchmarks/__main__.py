"""Run the benchmarks: `python -m benchmarks [NAME ...] [--quick] [--json]`; see README.md."""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # before numpy

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import masque.client  # noqa: F401 - before grpc, whose settings it chooses
from benchmarks import (
    account,
    budget,
    cancer,
    core,
    iteration,
    machine,
    memory,
    micro,
    neural,
    operations,
    prediction,
    upload,
    wan,
)
from benchmarks.figures import Outcome, Skipped, lines
from masque.errors import MasqueError

NAMES: dict[str, Callable[[bool], Outcome]] = {
    "lr": iteration.measure,
    "breast-cancer": cancer.measure,
    "networks": neural.measure,
    "network-budget": budget.measure,
    "network-ahead": neural.ahead,
    "network-memory": neural.memory,
    "wan": wan.measure,
    "plan": prediction.measure,
    "memory": memory.measure,
    "upload": upload.measure,
    "operations": operations.measure,
    "core": core.measure,
    "profile": account.measure,
    "kernels": micro.kernels,
    "latency": micro.latency,
}
"""Benchmarks in the order in which all of them run; each is told whether to be quick."""

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
TABLES = HERE / "results.md"


def main() -> int:
    """Measure and print; a complete run also writes `results.json` and `results.md`."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that services are stopped
    chosen = options.names or list(NAMES)
    found: dict[str, Any] = {}
    code = 0
    for name in chosen:
        _say(f"== {name}")
        began = time.monotonic()
        try:
            outcome = NAMES[name](options.quick)
        except Skipped as reason:
            _say(f"   SKIPPED: {name} was not measured: {reason}")
            continue
        except MasqueError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            code = error.exit_code
            continue
        found[name] = outcome.as_json() | {"machine": machine.describe()}
        if options.write or not (options.names or options.quick):
            write(found)  # now, so that a later failure loses nothing
        if not options.json:
            print("\n".join([*lines(outcome), ""]), flush=True)
        _say(f"   {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
    if options.json:
        print(json.dumps(found, indent=1))
    return code


def write(found: dict[str, Any]) -> None:
    """Put results into the files, beside those of benchmarks that did not run this time."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    merged = {name: (known | found)[name] for name in NAMES if name in known | found}
    RESULTS.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    TABLES.write_text(report(merged), encoding="utf-8")


def report(results: dict[str, Any]) -> str:
    """`results.json` as tables."""
    text = ["# Results", "", "Written by `make bench`; how to read them is in README.md.", ""]
    for found in results.values():
        text += lines(Outcome.from_json(found))
        at = found["machine"]
        text += [
            "",
            f"{at['when']}, {at['cores']} cores of {at['processor']}, load {at['load'][0]}",
        ]
        text += [""]
    return "\n".join(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure speed, rounds, bytes and memory. Without names: everything.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: a minute or two")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--write", action="store_true", help="update results.json and results.md")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(NAMES)}")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
