"""Measuring a machine: a few short jobs on made-up data, and what each unit of work takes.

The jobs run on the services of a profile like any user's. They differ in what they cost most:
messages, bytes, multiplications, Python. Of each the training rounds after the first are timed by
the coordinator's clock; the data sets are deleted at the end, however it ends.

The mean of a job's rounds counts, as the dealer works ahead in the first and is done before the
last. Of several times that a job ran the shortest counts: whatever disturbs adds to it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import platform
import secrets
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from masque.client import datasets, jobs, sharing
from masque.client.fitting import fitted
from masque.client.machine import BUILT_IN, UNITS, Calibration, Sample, amounts
from masque.client.planning import bound_for_planning
from masque.client.services import Services
from masque.client.sharing import Shared
from masque.errors import MasqueError
from masque.jobs import spec
from masque.jobs.fit import SharedTable

if TYPE_CHECKING:
    from masque.mpc.cost import RoundCost

ROWS = 512
PIXELS = 16
CLASSES = 10
POOR = 0.2
"""A relative error of the fit that is worth a warning."""

Show = Callable[[int, int, str], None]
"""Told which job runs (from 0), of how many, and what it is."""


@dataclass(frozen=True)
class Probe:
    """A job that is measured: what it is, its data set, its model, rows of a batch, passes."""

    what: str
    data: str
    model: str
    batch: int
    epochs: int

    def text(self, dataset: str, recipient: str, epochs: int) -> str:
        """The job file."""
        name = self.what.replace(" ", "-").replace(",", "")
        return (
            f"name: calibration-{name}\n"
            f"data: {{rows: [{dataset}], label: {'even' if self.data == 'numbers' else 'digit'}}}\n"
            f"model: {self.model}\n"
            f"training: {{epochs: {epochs}, batch_size: {self.batch},"
            " optimizer: {kind: sgd, learning_rate: 0.01}}\n"
            f"model_output: {{sealed_to: [{recipient}]}}\n"
        )


def _network(*layers: str, images: bool = False) -> str:
    shape = f"input_shape: [1, {PIXELS}, {PIXELS}], " if images else ""
    return f"{{kind: sequential, {shape}layers: [{', '.join((*layers, _dense(CLASSES)))}]}}"


def _dense(units: int) -> str:
    return f"{{kind: dense, units: {units}}}"


def _convolution(channels: int) -> str:
    return f"{{kind: conv2d, channels: {channels}, kernel: 5}}"


_POOL = "{kind: max_pool, size: 2}"
PROBES = (
    Probe("logistic regression, small batches", "numbers", "{kind: logistic_regression}", 16, 8),
    Probe("logistic regression, large batches", "numbers", "{kind: logistic_regression}", 256, 16),
    Probe("softmax regression", "images", "{kind: softmax_regression}", 128, 8),
    Probe("a small network", "images", _network(_dense(32), "relu"), 32, 10),
    Probe("a wide network", "images", _network(_dense(384), "relu", _dense(384), "relu"), 128, 6),
    Probe("a network with tanh", "images", _network(_dense(64), "tanh"), 128, 10),
    Probe(
        "a convolution", "images", _network(_convolution(8), "relu", "flatten", images=True), 64, 6
    ),
    Probe(
        "convolutions and pooling",
        "images",
        _network(_convolution(16), _POOL, "relu", _convolution(32), "relu", "flatten", images=True),
        128,
        4,
    ),
)
"""Enough passes for the dealer to be as far ahead as it may be, and to go on at the jobs' pace."""

WARM_UP = PROBES[-1]


def calibrate(services: Services, show: Show, *, quick: bool = False) -> Calibration:
    """Measure; takes half a minute on an idle machine. Raises what services say against it.

    `quick`: fewer passes, once.
    """
    jobs.recipient_keys(services, [services.profile.name])  # what is missing is told at once
    for peer in services.everybody:
        peer.check()
    plan = [(WARM_UP, 1), *((p, 3 if quick else p.epochs) for p in PROBES * (1 if quick else 2))]
    found: dict[str, tuple[RoundCost, list[float]]] = {}
    with _shared(services) as shared:
        for number, (probe, epochs) in enumerate(plan):
            show(number, len(plan), probe.what)
            part, seconds = _measured(services, probe, shared[probe.data], epochs)
            if number:
                found.setdefault(probe.what, (part, []))[1].append(seconds)
    measured = [(what, part, min(times)) for what, (part, times) in found.items()]
    return calibration(measured, len(services.parties))


def calibration(measured: Sequence[tuple[str, RoundCost, float]], parties: int) -> Calibration:
    """What measured training rounds (name, cost, seconds) say about this machine."""
    rows = [[amounts(part, parties)[unit] for unit in UNITS] for _, part, _ in measured]
    counts = np.array(rows, dtype=np.float64)
    seconds = np.array([taken for *_, taken in measured])
    expected = np.array([BUILT_IN[unit] for unit in UNITS])
    each = fitted(counts, seconds, expected)
    samples = zip(measured, counts @ each, strict=True)
    return Calibration(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        parties=parties,
        seconds=dict(zip(UNITS, map(float, each), strict=True)),
        samples=tuple(
            Sample(job=what, measured=round(taken, 6), fitted=round(float(fit), 6))
            for (what, _, taken), fit in samples
        ),
    )


# -- one job -------------------------------------------------------------------------------------


def _measured(
    services: Services, probe: Probe, shared: Shared, epochs: int
) -> tuple[RoundCost, float]:
    """(cost of an epoch, seconds of one: the mean of all but the first)."""
    text = probe.text(shared.name, services.profile.name, epochs)
    job = spec.parse(text)
    part = _cost_of_an_epoch(job, shared, len(services.parties))
    starts: dict[str, float] = {}
    with jobs.ours(services, text, job) as job_id:
        last = None
        for last in jobs.watch(services, job_id):
            progress = last.progress
            name = progress.round_name if last.state == "training" else last.state
            starts.setdefault(name, progress.seconds)
        assert last is not None, "watch yields or raises"
        jobs.check(last, job_id)
    lasted = [
        starts[after] - starts[name]
        for name, after in itertools.pairwise(starts)
        if name.startswith("epoch")
    ]
    return part, max(1e-4, statistics.fmean(lasted[1:] or lasted))


def _cost_of_an_epoch(job: spec.JobSpec, shared: Shared, parties: int) -> RoundCost:
    from masque.jobs.compile import compile_job
    from masque.mpc.cost import cost

    table = SharedTable(name=shared.name, upload=shared.upload_id, info=shared.info)
    costs = cost(compile_job(bound_for_planning(job, [table], parties)))
    return next(part for part in costs.rounds_by_name if part.name == "epoch 1")


# -- made-up data --------------------------------------------------------------------------------


@contextlib.contextmanager
def _shared(services: Services) -> Iterator[dict[str, Shared]]:
    """Data sets `numbers` and `images` at all parties, gone at the end."""
    mark = secrets.token_hex(3)
    found: dict[str, Shared] = {}
    with tempfile.TemporaryDirectory(prefix="masque-calibration-") as directory:
        try:
            for name, columns in (("numbers", 32), ("images", PIXELS**2)):
                path, schema = _written(Path(directory), name, columns)
                whole = f"calibration-{name}-{mark}"
                found[name] = sharing.share(services.parties, path, schema, whole)
            yield found
        finally:
            for shared in found.values():
                with contextlib.suppress(MasqueError):
                    datasets.delete(services.parties, shared.name)


def _written(directory: Path, name: str, columns: int) -> tuple[Path, Path]:
    """A CSV file of noise with a label, and its schema."""
    random = np.random.default_rng(7)
    names = [f"x{index}" for index in range(columns)]
    label, classes = ("even", 2) if name == "numbers" else ("digit", CLASSES)
    values = random.integers(0, 256, (ROWS, columns + 1))
    values[:, -1] %= classes
    path, schema = directory / f"{name}.csv", directory / f"{name}.yaml"
    np.savetxt(path, values, "%d", ",", header=",".join([*names, label]), comments="")
    kind = "type: binary, classes: [0, 1], positive: 1"
    if classes > 2:
        kind = f"type: classes, classes: [{', '.join(map(str, range(classes)))}]"
    lines = [f"  {column}: {{type: integer, range: [0, 255]}}" for column in names]
    text = "\n".join(["columns:", *lines, f"label: {{column: {label}, {kind}}}"])
    schema.write_text(text + "\n", encoding="ascii")
    return path, schema


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
