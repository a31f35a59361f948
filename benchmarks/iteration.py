"""One iteration of logistic regression, 10,000 x 100, batches of 128: time, rounds, bytes.

The job runs as any user's does, without standardisation. An epoch's time is the coordinator's,
from one training round to the next, so it includes what sequencing costs; divided by its 79
iterations it is one sample. The first epoch of every job warms up and does not count.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import machine, rivals
from benchmarks.figures import Figure, Outcome, median_of
from benchmarks.network import Network, Run, network, synthetic
from masque.client.planning import Part, Plan
from masque.client.sharing import Shared

ROWS, COLUMNS, BATCH = 10_000, 100, 128
ITERATIONS = -(-ROWS // BATCH)


def job(name: str, epochs: int) -> str:
    """The job file."""
    return f"""
name: lr
data: {{rows: [{name}], label: y}}
model: {{kind: logistic_regression}}
training:
  epochs: {epochs}
  batch_size: {BATCH}
  optimizer: {{kind: sgd, learning_rate: 0.1, momentum: 0.9}}
  seed: 7
model_output: {{sealed_to: [analyst]}}
"""


def measure(quick: bool) -> Outcome:
    """Run several jobs of several epochs on one network."""
    epochs, repeats = (4, 2) if quick else (12, 5)
    with network() as services:
        shared = services.share(*synthetic(services.directory, ROWS, COLUMNS), "synthetic")
        text = job(shared.name, epochs)
        planned = services.plan(text, [shared])
        services.run(job(shared.name, 1))
        runs: list[Run] = []
        usage: list[dict[str, float]] = []
        with machine.others(list(services.pids.values())) as elsewhere:
            for _ in range(repeats):
                runs.append(_run(services, text, epochs, usage))
    return _outcome(shared, planned, runs, usage, elsewhere.cores)


def _run(services: Network, text: str, epochs: int, usage: list[dict[str, float]]) -> Run:
    """One job; appends milliseconds of CPU an iteration of each process.

    Of the epochs only, but for the dealer, which runs ahead: of the whole job.
    """
    marks: dict[str, dict[str, float]] = {}

    def watcher(name: str) -> None:
        marks[name] = {key: machine.cpu_seconds(pid) for key, pid in services.pids.items()}

    run = services.run(text, watcher)
    names = list(marks)
    first, last = marks["epoch 1"], marks[names[names.index(f"epoch {epochs}") + 1]]
    count = epochs * ITERATIONS
    first["dealer"] = marks["submitted"]["dealer"]
    usage.append({name: 1e3 * (last[name] - first[name]) / count for name in first})
    return run


def _outcome(
    shared: Shared, planned: Plan, runs: list[Run], usage: list[dict[str, float]], busy: float
) -> Outcome:
    times = [1e3 * seconds / ITERATIONS for run in runs for seconds in run.lasted("epoch")[1:]]
    epoch = next(part for part in planned.parts if part.name == "epoch 2")
    figures = [
        median_of("one iteration", times, "ms", at_most=4.0, rivals=rivals.LR_MILLISECONDS),
        median_of(
            "one iteration, quietest epoch of each job",
            [min(1e3 * s / ITERATIONS for s in run.lasted("epoch")[1:]) for run in runs],
            "ms",
        ),
        *_counted(epoch),
        *(median_of(f"CPU of {name}", [used[name] for used in usage], "ms") for name in usage[0]),
        Figure("waiting for peers, share of a party's time", _waiting(runs), "%"),
        Figure("cores kept busy by other programs meanwhile", busy, "cores"),
    ]
    details = {
        "iteration_ms_by_job": [
            [round(1e3 * s / ITERATIONS, 3) for s in run.lasted("epoch")] for run in runs
        ],
        "counters": check_counters(planned, runs[-1]),
        "share_bytes_a_party": shared.info.share_bytes,
    }
    title = f"One iteration of logistic regression, {ROWS:,} x {COLUMNS}, batch {BATCH}"
    return Outcome(title, figures, details)


def _counted(epoch: Part) -> list[Figure]:
    """Exact figures from the program; the last batch is a smaller one, so they are means."""
    return [
        Figure("rounds", epoch.rounds / ITERATIONS, "rounds", at_most=8, rivals=rivals.LR_ROUNDS),
        Figure(
            "a party sends", epoch.sent_by_a_party / ITERATIONS, "bytes", rivals=rivals.LR_BYTES
        ),
        Figure("the dealer sends, in all", sum(epoch.corrections) / ITERATIONS, "bytes"),
        Figure("a party draws from its seed", epoch.drawn / ITERATIONS, "bytes"),
        Figure("multiplications of a party", epoch.multiplications / ITERATIONS, ""),
    ]


def _waiting(runs: list[Run]) -> float:
    shares = [
        counters["waiting_for_peers"] / counters["seconds"]
        for run in runs
        for counters in run.counters.values()
    ]
    return 100 * statistics.median(shares)


def check_counters(planned: Plan, run: Run) -> dict[str, Any]:
    """What the parties counted, which must be what was planned, to the byte."""
    total = planned.total
    found: dict[str, Any] = {}
    for index, (party, counted) in enumerate(run.counters.items()):
        expected = {
            "exchanges": total.rounds,
            "sent": total.sent_by_a_party,
            "received": total.sent_by_a_party,
            "corrections": total.corrections[index],
        }
        measured = {name: round(counted[name]) for name in expected}
        assert measured == expected, f"{party} counted {measured}, planned were {expected}"
        found[party] = measured
    return found | {"as_planned": True}
