"""How fast one core computes in the ring: products, packed bits, key streams.

    python -m benchmarks.kernels [--json] [--seconds S]

Products are timed against numpy's `@` on the same uint64 matrices, and against float64 BLAS on one
thread for scale (it does not compute the same thing); convolutions and the two products of their
gradients against `ring.matmul` of the matrices that would do their work. The contenders of a row
take turns, so that a busy machine slows all of them; times are medians, ratios are medians of the
ratios of turns.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # before numpy

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from masque.mpc import convolution, kernels, packing, prg, ring
from masque.mpc.types import Ring

SHAPES = (
    (512, 512, 512), (1024, 1024, 1024), (128, 784, 128), (784, 128, 128), (128, 128, 10),
    (128, 100, 1), (100, 128, 1), (128, 30, 1), (10000, 100, 1), (100, 10000, 1), (1, 1000, 1000),
    (1000, 1, 1000), (5, 1000, 1000), (10000, 30, 2), (127, 131, 113), (32, 32, 32), (16, 16, 16),
    (7, 7, 7), (3, 3, 1000), (1, 1000, 1), (1, 1, 1),
)  # fmt: skip
# Of the networks of the field: images, channels, side, channels out, kernel, stride, padding.
CONVOLUTIONS = {
    "B, first": (128, 1, 28, 16, 5, 1, 0), "B, second": (128, 16, 12, 16, 5, 1, 0),
    "C, first": (128, 1, 28, 20, 5, 1, 0), "C, second": (128, 20, 12, 50, 5, 1, 0),
    "D": (128, 1, 28, 5, 5, 2, 2), "3 x 3, padded": (8, 64, 32, 64, 3, 1, 1),
}  # fmt: skip
WIDTHS = (1, 8, 13, 32, 45, 64)
SIZES = (100, 4096, 1 << 20, 100_000_000)
WORDS = 1 << 20


@dataclass(frozen=True)
class Product:
    """One shape: microseconds, ratios to ours, 10^9 multiply-adds a second."""

    shape: str
    layout: str
    microseconds: float
    numpy_microseconds: float
    blas_microseconds: float
    times_numpy: float
    times_blas: float
    giga: float


@dataclass(frozen=True)
class Convolution:
    """One product: microseconds, 10^9 multiply-adds a second, its rate over ring.matmul's."""

    what: str
    microseconds: float
    giga: float
    times_matmul: float


@dataclass(frozen=True)
class Speed:
    """Microseconds and GB/s: of ring elements for packing, of bytes drawn for streams."""

    what: str
    microseconds: float
    gigabytes: float


def turns(contenders: list[Callable[[], Any]], seconds: float) -> list[list[float]]:
    """Seconds a call of each contender, turn by turn, for about `seconds` in all."""
    calls = []
    for contender in contenders:
        contender()
        start = time.perf_counter()
        contender()
        calls.append(max(1, int(1e-3 / (time.perf_counter() - start))))
    timed: list[list[float]] = [[] for _ in contenders]
    end = time.perf_counter() + seconds
    while len(timed[0]) < 3 or (time.perf_counter() < end and len(timed[0]) < 101):
        for contender, count, times in zip(contenders, calls, timed, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                contender()
            times.append((time.perf_counter() - start) / count)
    return timed


def words(*shape: int) -> Ring:
    return np.random.default_rng(1).integers(0, 2**64, shape, dtype=np.uint64)


def product(m: int, k: int, n: int, turned: bool, seconds: float) -> Product:
    a, b = words(m, k), words(k, n)
    if turned:
        a = np.asfortranarray(a)
    x, y = a.astype(np.float64), b.astype(np.float64)
    ours, numpys, blas = turns(
        [lambda: ring.matmul(a, b), lambda: np.matmul(a, b), lambda: np.matmul(x, y)], seconds
    )
    median = statistics.median(ours)
    return Product(
        shape=f"{m} x {k} x {n}",
        layout="columns" if turned else "rows",
        microseconds=1e6 * median,
        numpy_microseconds=1e6 * statistics.median(numpys),
        blas_microseconds=1e6 * statistics.median(blas),
        times_numpy=statistics.median(t / o for t, o in zip(numpys, ours, strict=True)),
        times_blas=statistics.median(t / o for t, o in zip(blas, ours, strict=True)),
        giga=m * k * n / median / 1e9,
    )


def convolutions(name: str, seconds: float) -> Iterator[Convolution]:
    """Forward, the gradient by the input, the gradient by the weights."""
    images, channels, side, outputs, taps, stride, padding = CONVOLUTIONS[name]
    common, kernel = ((stride, stride), (padding, padding)), (taps, taps)
    x, w = words(images, channels, side, side), words(outputs, channels, taps, taps)
    dz = convolution.conv2d(x, w, *common)
    row, places = dz.size // outputs, channels * taps**2
    a, b, c = words(outputs, places), words(places, row), words(outputs, row)
    contenders: dict[str, tuple[Callable[[], Ring], Callable[[], Ring]]] = {
        "forward": (lambda: convolution.conv2d(x, w, *common), lambda: ring.matmul(a, b)),
        "by input": (
            lambda: convolution.conv2d_input(dz, w, *common, (side, side)),
            lambda: ring.matmul(a.T, c),
        ),
        "by weights": (
            lambda: convolution.conv2d_weights(x, dz, *common, kernel),
            lambda: ring.matmul(c, b.T),
        ),
    }
    for what, pair in contenders.items():
        ours, matmul = turns(list(pair), seconds)
        median = statistics.median(ours)
        ratio = statistics.median(t / o for t, o in zip(matmul, ours, strict=True))
        giga = outputs * places * row / median / 1e9
        yield Convolution(f"{name}, {what}", 1e6 * median, giga, ratio)


def speed(what: str, call: Callable[[], Any], size: int, seconds: float) -> Speed:
    median = statistics.median(turns([call], seconds)[0])
    return Speed(what, 1e6 * median, size / median / 1e9)


def speeds(seconds: float) -> Iterator[Speed]:
    values, total = words(WORDS), 8 * WORDS
    for bits in WIDTHS:
        packed = packing.pack(values, 0, bits)
        own = packing.unpack(packed, WORDS, bits)
        folding = partial(packing.accumulate, [packed], WORDS, bits, own)
        for name, call in (
            ("pack", partial(packing.pack, values, 0, bits)),
            ("unpack", partial(packing.unpack, packed, WORDS, bits)),
            ("accumulate", folding),
        ):
            yield speed(f"{name}, {bits} bits", call, total, seconds)
    stream = prg.Stream(bytes(32))
    for size in SIZES:
        yield speed(f"stream, {size:,} bytes", partial(stream.expand, 0, size), size, seconds)
    x, y = words(10_000, 100), words(10_000, 100)
    dot = partial(ring.column_dot, x, y)
    yield speed("column_dot, 10,000 x 100", dot, 2 * x.nbytes, seconds)
    dot = partial(ring.row_dot, x, y)
    yield speed("row_dot, 10,000 x 100", dot, 2 * x.nbytes, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seconds", type=float, default=0.2, help="about, for each row")
    options = parser.parse_args()
    machine = f"{platform.machine()}, {kernels.LANES} words a register, one core"
    if not options.json:
        print(f"{machine}\n\n{'m x k x n':<20} {'a is by':<8} {'us':>10} {'G/s':>6}", end="")
        print(f" {'numpy us':>11} {'x numpy':>8} {'float64 us':>11} {'x float64':>9}")
    products = []
    for shape in SHAPES:
        for turned in (False, True) if np.prod(shape) < 1e8 else (False,):
            row = product(*shape, turned, options.seconds)
            products.append(asdict(row))
            if not options.json:
                print(f"{row.shape:<20} {row.layout:<8} {row.microseconds:10.1f}", end="")
                print(
                    f" {row.giga:6.2f} {row.numpy_microseconds:11.1f} {row.times_numpy:8.1f}",
                    end="",
                )
                print(f" {row.blas_microseconds:11.1f} {row.times_blas:9.2f}", flush=True)
    convolved = []
    for name in CONVOLUTIONS:
        for found in convolutions(name, options.seconds):
            convolved.append(asdict(found))
            if not options.json:
                print(f"convolution {found.what:<24} {found.microseconds:10.1f} us", end="")
                print(f" {found.giga:6.2f} G/s {found.times_matmul:6.2f} x matmul", flush=True)
    others = []
    for other in speeds(options.seconds):
        others.append(asdict(other))
        if not options.json:
            print(f"{other.what:<28} {other.microseconds:10.1f} us {other.gigabytes:7.2f} GB/s")
    if options.json:
        json.dump(
            {
                "machine": machine,
                "products": products,
                "convolutions": convolved,
                "others": others,
            },
            sys.stdout,
            indent=1,
        )
        print()


if __name__ == "__main__":
    main()
