"""The memory that a job declares, against what numpy was asked for while parties ran it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from masque.ml.task import Task
from masque.ml.training import build
from masque.mpc import inprocess
from masque.mpc.footprint import BESIDE, footprint
from tests.ml import examples
from tests.ml.test_network_parties import binary
from tests.ml.test_resuming import linear


@pytest.mark.parametrize(
    "task",
    [linear(), linear(batch_size=400), linear(parties=3), binary(), binary(batch_size=300)],
    ids=["epochs of small batches", "large batches", "three parties", "network", "large steps"],
)
def test_a_program_declares_what_it_takes_and_not_many_times_that(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = build(task)
    clear = examples.encoded(task, examples.dataset("breast_cancer"))
    stores = examples.sources(task.parties, clear)
    taken = []
    together: Callable[[Sequence[Any]], None] = inprocess._together

    def watched(jobs: Sequence[Any]) -> None:
        tracemalloc.start()
        try:
            together(jobs)
            taken.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    monkeypatch.setattr(inprocess, "_together", watched)
    inprocess.run(program, stores, examples.seeds(task.parties))
    registers = footprint(replace(program, rounds=())) - BESIDE
    measured = taken[0] / task.parties + registers  # these were made before
    declared = footprint(program) - BESIDE
    assert 0.9 * measured < declared < 4 * measured
