"""How a party's memory grows with the data: one epoch on few rows, then on many."""

from __future__ import annotations

from benchmarks import machine
from benchmarks.figures import Figure, Outcome
from benchmarks.network import Network, network, synthetic
from masque.client.sharing import Shared

COLUMNS = 30
MIB = 1 << 20


def job(name: str) -> str:
    """One standardised epoch in large batches."""
    return f"""
name: memory
data: {{rows: [{name}], label: y, standardize: true, holdout: 0.1}}
model: {{kind: logistic_regression}}
training: {{epochs: 1, batch_size: 4096, optimizer: {{kind: sgd, learning_rate: 0.1}}, seed: 7}}
reveal: {{metrics: [accuracy], to: [analyst]}}
model_output: {{sealed_to: [analyst]}}
"""


def measure(quick: bool) -> Outcome:
    """Fresh services for each size, so that nothing is left from another."""
    small, large = (10_000, 80_000) if quick else (50_000, 400_000)
    few, few_bytes = _peaks(small)
    many, many_bytes = _peaks(large)
    more = many_bytes - few_bytes
    figures = [
        Figure("a party's share of the larger data set", many_bytes / MIB, "MiB"),
        *_sizes(f"{small:,} rows", few),
        *_sizes(f"{large:,} rows", many),
        *(
            Figure(f"growth of {name} for each byte", (many[name] - few[name]) / more, "bytes",
                   at_most=3.0 if name.startswith("party") else None)
            for name in many
        ),
    ]  # fmt: skip
    return Outcome(f"Memory and the size of the data, {COLUMNS} columns", figures)


def _sizes(rows: str, peaks: dict[str, int]) -> list[Figure]:
    return [Figure(f"{rows}: peak of {name}", size / MIB, "MiB") for name, size in peaks.items()]


def _peaks(rows: int) -> tuple[dict[str, int], int]:
    """The peak of every service from upload to result, and the bytes of a party's share."""
    with network() as services:
        shared = _share(services, rows)
        services.run(job(shared.name))
        peaks = {name: machine.peak_bytes(pid) for name, pid in services.pids.items()}
    return peaks, shared.info.share_bytes


def _share(services: Network, rows: int) -> Shared:
    path, schema = synthetic(services.directory, rows, COLUMNS)
    return services.share(path, schema, f"rows-{rows}")
