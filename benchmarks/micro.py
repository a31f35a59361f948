"""The kernels and the latency of a swap, measured by programs of their own (see there)."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.figures import Figure, Outcome

FLOOR = 15.0
"""Times numpy's `@` that ring.matmul must be at 512 x 512 x 512."""

NOT_SLOWER = 0.95
"""Ratio above which a product counts as not slower: two measurements of one thing differ by 5 %."""

CONVOLVED = 0.7
"""Rate of a convolution over that of the matrix product that would do its work, if made."""


def kernels(quick: bool) -> Outcome:
    """`python -m benchmarks.kernels`: products against numpy and float64 BLAS, packing, streams."""
    found = _run("benchmarks.kernels", "--seconds", "0.05" if quick else "0.3")
    products = found["products"]
    figures = []
    for row in products:
        name = f"{row['shape']}, a by {row['layout']}"
        least = FLOOR if row["shape"] == "512 x 512 x 512" else NOT_SLOWER
        figures.append(
            Figure(f"product {name}: times numpy", row["times_numpy"], "x", at_least=least)
        )
        if row["giga"] > 1:
            figures.append(Figure("- times float64 BLAS", row["times_blas"], "x"))
    for row in found["convolutions"]:
        name, ratio = f"convolution {row['what']}: rate of a matrix product's", row["times_matmul"]
        figures.append(Figure(name, ratio, "x", at_least=CONVOLVED))
        figures.append(Figure("- multiply-adds a second", row["giga"], "G"))
    figures += [Figure(row["what"], row["gigabytes"], "GB/s") for row in found["others"]]
    return Outcome(f"Kernels, {found['machine']}", figures, found)


def latency(quick: bool) -> Outcome:
    """`python -m benchmarks.latency`: one swap between two processes, by size."""
    rows = swaps(quick)
    figures = []
    for row in rows:
        name = f"{row['transport']}, {row['size']:,} bytes"
        figures.append(Figure(name, row["median_us"], "us", count=row["swaps"]))
        figures.append(Figure("- 90th percentile", row["p90_us"], "us"))
        figures.append(Figure("- CPU of a party", row["cpu_us"], "us"))
    return Outcome("One swap between two parties, medians", figures, {"rows": rows})


def swaps(quick: bool) -> Any:
    """The rows of `benchmarks.latency`."""
    return _run("benchmarks.latency", "--swaps", "200" if quick else "1000")


def _run(module: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", module, "--json", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line in ("{", "["))
    return json.loads("\n".join(lines[start:]))  # services' logs may stand before it
