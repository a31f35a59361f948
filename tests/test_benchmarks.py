"""The benchmarks' own arithmetic, and that what they run is what Masque runs."""

from __future__ import annotations

import json
import os
import time

import pytest

from benchmarks import cancer, core, iteration, machine, memory, operations
from benchmarks.__main__ import NAMES, RESULTS, TABLES, report
from benchmarks.figures import QUIET, Figure, Outcome, judged, lines, median_of, number
from benchmarks.network import Run, synthetic
from masque.data.schema import load
from masque.jobs import spec
from masque.mpc import inprocess, prg
from masque.mpc.cost import cost


def test_targets_are_met_or_missed() -> None:
    assert Figure("a", 4.0, "ms", at_most=4.0).met
    assert Figure("a", 4.1, "ms", at_most=4.0).met is False
    assert Figure("a", 15.0, "x", at_least=15.0).met
    assert Figure("a", 1.0, "x").met is None


def test_ratios_say_how_many_times_ours_the_others_take() -> None:
    figure = Figure("a", 2.0, "ms", rivals={"slow": 30.0, "quick": 1.0})
    assert figure.ratios == {"slow": 15.0, "quick": 0.5}
    assert Figure("nothing sent", 0.0, "bytes", rivals={"slow": 1.0}).ratios == {}


def test_disturbed_samples_do_not_decide_a_target() -> None:
    samples = [(3.0, 0.0), (3.5, QUIET), (3.2, 0.1), (90.0, 1.2)]
    alone, every = judged("a", samples, "ms", at_most=4.0, rivals={})
    assert alone.met and alone.count == 3 and alone.high == 3.5
    assert every.met is None and every.count == 4 and every.high == 90.0


def test_with_disturbed_samples_only_the_target_is_about_them() -> None:
    (only,) = judged("a", [(90.0, 1.2)], "ms", at_most=4.0, rivals={})
    assert only.met is False


def test_numbers_are_written_for_people() -> None:
    assert [number(x) for x in (3.14159, 0.012345, 123.456, 1234567.8, 6)] == [
        "3.14", "0.0123", "123", "1,234,568", "6",
    ]  # fmt: skip


def test_the_tables_are_those_of_the_results() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert set(results) <= set(NAMES)
    assert TABLES.read_text(encoding="utf-8") == report(results)


def test_a_table_has_a_row_a_figure() -> None:
    outcome = Outcome("t", [median_of("a", [1.0, 2.0, 9.0], "s"), Figure("b", 1, "")])
    assert len(lines(outcome)) == 4 + 2


def test_the_jobs_are_valid() -> None:
    for text in (iteration.job("d", 3), cancer.job(["a", "b"]), memory.job("d")):
        spec.parse(text)


def test_rounds_of_a_job_are_told_apart_by_name() -> None:
    starts = {"preparing": 0.0, "prepare": 0.5, "epoch 1": 1.0, "epoch 2": 1.5, "finish": 2.5}
    run = Run("job", result=None, starts=starts)  # type: ignore[arg-type]
    assert run.lasted("epoch") == [0.5, 1.0]


def test_synthetic_files_fit_their_schema(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path, schema = synthetic(tmp_path, 25, 3)
    assert len(path.read_text().splitlines()) == 26
    assert load(schema).describe(25).columns == 4


ELEMENTWISE = [o for o in operations.operations(quick=True) if "matmul" not in o.name]


@pytest.mark.parametrize("operation", ELEMENTWISE, ids=lambda o: o.name)
def test_operations_send_what_they_are_said_to(operation: operations.Operation) -> None:
    made = operations.program(operation)
    seeds = [prg.derive(bytes(32), "test", index) for index in range(operations.PARTIES)]
    seats = core.seats(operations.PARTIES)
    sources = [operations.source(operation, index) for index in range(operations.PARTIES)]
    core.meet(made, seats, inprocess.stock(made, seeds), seeds, sources)
    assert seats[0].meeting.sent == [cost(made).sent] * operations.PARTIES
    assert seats[0].meeting.rounds == [cost(made).rounds] * operations.PARTIES


def test_our_own_work_is_not_that_of_others() -> None:
    others = machine.Others([])
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        sum(range(1000))
    busy = others.lap()
    assert 0.0 <= busy <= (os.cpu_count() or 1)
    assert machine.cpu_seconds(os.getpid()) > 0
    assert machine.peak_bytes() >= machine.resident_bytes() > 1 << 20
