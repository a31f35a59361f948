"""One iteration of logistic regression, 10,000 x 100, batches of 128: time, rounds, bytes.

The job runs as any user's does, without standardisation. An epoch's time is the coordinator's,
from one training round to the next, so it includes what sequencing costs; divided by its 79
iterations it is one sample. The first epoch of every job warms up and does not count.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks import machine, rivals
from benchmarks.figures import Figure, Outcome, judged, median_of
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
        elsewhere = machine.Others(list(services.pids.values()))
        samples = [_sample(services, text, epochs) for _ in range(repeats)]
        return _outcome(shared, planned, samples, elsewhere.cores)


@dataclass(frozen=True)
class Sample:
    """One job: milliseconds an iteration, and cores that other programs used, by epoch; the first
    left out. `cpu`: milliseconds of CPU an iteration by service, of the epochs only, but for the
    dealer, which runs ahead: of the whole job.
    """

    run: Run
    milliseconds: list[float]
    busy: list[float]
    cpu: dict[str, float]


def _sample(services: Network, text: str, epochs: int) -> Sample:
    marks: dict[str, dict[str, float]] = {}
    busy: dict[str, float] = {}
    elsewhere = machine.Others(list(services.pids.values()))

    def watcher(name: str) -> None:
        marks[name] = {key: machine.cpu_seconds(pid) for key, pid in services.pids.items()}
        busy[name] = elsewhere.lap()  # of what went before `name` began

    run = services.run(text, watcher)
    names = list(marks)
    begun = names.index("epoch 1")
    over = names[begun + epochs]
    first = marks["epoch 1"] | {"dealer": marks["submitted"]["dealer"]}
    spent = {name: marks[over][name] - before for name, before in first.items()}
    return Sample(
        run,
        [1e3 * seconds / ITERATIONS for seconds in run.lasted("epoch")[1:]],
        [busy[name] for name in names[begun + 2 : begun + epochs + 1]],
        {name: 1e3 * seconds / epochs / ITERATIONS for name, seconds in spent.items()},
    )


def _outcome(shared: Shared, planned: Plan, samples: list[Sample], busy: float) -> Outcome:
    epoch = next(part for part in planned.parts if part.name == "epoch 2")
    figures = [
        *judged(
            "one iteration",
            [pair for s in samples for pair in zip(s.milliseconds, s.busy, strict=True)],
            "ms",
            at_most=4.0,
            rivals=rivals.LR_MILLISECONDS,
        ),
        *_counted(epoch),
        *(
            median_of(f"CPU of {name}", [s.cpu[name] for s in samples], "ms")
            for name in samples[0].cpu
        ),
        Figure("waiting for peers, share of a party's time", _waiting(samples), "%"),
        Figure("cores kept busy by other programs meanwhile", busy, "cores"),
    ]
    details = {
        "iteration_ms": [[round(value, 3) for value in s.milliseconds] for s in samples],
        "cores_used_by_others": [s.busy for s in samples],
        "counters": check_counters(planned, samples[-1].run),
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


def _waiting(samples: list[Sample]) -> float:
    shares = [
        counters["waiting_for_peers"] / counters["seconds"]
        for sample in samples
        for counters in sample.run.counters.values()
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
