"""The breast-cancer job, from sharing two hospitals' files to the opened model; a party's memory.

569 x 30, 30 epochs of batches of 32, standardised and evaluated under the protocol, with the
services up and idle. The first job of the services counts as well: it is in `details`.
"""

from __future__ import annotations

import time

from benchmarks import machine, rivals
from benchmarks.figures import Figure, Outcome, judged, median_of
from benchmarks.iteration import check_counters
from benchmarks.network import Network, Run, network
from masque.client.planning import Plan
from masque.data import bundled
from masque.data.bundled import Files

STEPS = ("share", "prepare", "standardise", "train", "evaluate", "result")
MIB = 1 << 20


def job(names: list[str]) -> str:
    """The job file, that of the README."""
    return f"""
name: breast-cancer
data: {{rows: [{", ".join(names)}], label: malignant, standardize: true, holdout: 0.2}}
model: {{kind: logistic_regression, l2: 0.001}}
training:
  epochs: 30
  batch_size: 32
  optimizer: {{kind: sgd, learning_rate: 0.1, momentum: 0.9}}
  seed: 7
reveal: {{metrics: [accuracy, auc], to: [analyst]}}
model_output: {{sealed_to: [analyst]}}
"""


def measure(quick: bool) -> Outcome:
    """Run the job several times on one network."""
    with network() as services:
        files = bundled.write("breast-cancer", services.directory / "data", holdout=0.0)
        idle = {name: machine.resident_bytes(pid) for name, pid in services.pids.items()}
        elsewhere = machine.Others(list(services.pids.values()))
        runs, busy = [], []
        for _ in range(3 if quick else 8):
            runs.append(once(services, files))
            busy.append(elsewhere.lap())
        peaks = {name: machine.peak_bytes(pid) for name, pid in services.pids.items()}
        others = elsewhere.cores
    warm = [laps for laps, _, _ in runs[1:]]
    planned, last = runs[-1][1], runs[-1][2]
    figures = [
        *judged(
            "sharing to opened model",
            list(zip([sum(laps.values()) for laps in warm], busy[1:], strict=True)),
            "s",
            at_most=3.0,
            rivals=rivals.CANCER_SECONDS,
        ),
        *(median_of(f"of it: {step}", [laps[step] for laps in warm], "s") for step in STEPS),
        Figure("rounds", planned.total.rounds, "rounds"),
        Figure("a party sends", planned.total.sent_by_a_party, "bytes"),
        Figure("the dealer sends, in all", sum(planned.total.corrections), "bytes"),
        Figure("accuracy on held-out rows", last.result.metrics["accuracy"], ""),
        Figure("AUC on held-out rows", last.result.metrics["auc"], ""),
        *_memory(peaks),
        Figure("cores kept busy by other programs meanwhile", others, "cores"),
    ]
    details = {
        "seconds": [{step: round(value, 3) for step, value in laps.items()} for laps in warm],
        "cores_used_by_others": busy[1:],
        "first_job_seconds": {step: round(value, 3) for step, value in runs[0][0].items()},
        "idle_mib": {name: round(size / MIB, 1) for name, size in idle.items()},
        "counters": check_counters(planned, last),
    }
    return Outcome(
        "Breast cancer, 569 x 30, 30 epochs of 32: sharing to opened model", figures, details
    )


def _memory(peaks: dict[str, int]) -> list[Figure]:
    return [
        Figure(
            f"peak memory of {name}",
            size / MIB,
            "MiB",
            at_most=300.0 if name.startswith("party") else None,
        )
        for name, size in peaks.items()
    ]


def once(services: Network, files: Files) -> tuple[dict[str, float], Plan, Run]:
    """Share, train, open; seconds of every step."""
    began = time.monotonic()
    shared = [
        services.share(path, schema, path.stem, replace=True)
        for path, schema in zip(files.hospitals, files.schemas, strict=True)
    ]
    sharing = time.monotonic() - began
    text = job([item.name for item in shared])
    planned = services.plan(text, shared)
    run = services.run(text)
    first = next(name for name in run.starts if name.startswith("prepare"))
    laps = {
        "share": sharing,
        "prepare": run.starts[first],
        "standardise": sum(run.lasted("prepare:")),
        "train": sum(run.lasted("epoch")),
        "evaluate": sum(run.lasted("evaluate")),
        "result": run.seconds - run.starts["finishing"],
    }
    return laps, planned, run
