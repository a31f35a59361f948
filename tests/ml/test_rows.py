"""The public split, the public order of mini-batches, and programs of many rows."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.ml import rows
from masque.ml.task import Table, Task
from masque.ml.training import build
from masque.mpc.cost import cost


def plan(count: int, holdout: int, validation: int, batch: int, **changes: Any) -> Task:
    """A task of which only the sizes matter."""
    fields: dict[str, Any] = {
        "name": "job",
        "parties": 2,
        "kind": "logistic",
        "tables": (Table("a", count, 3, 1),),
        "stacked": True,
        "feature_bounds": (1.0,) * 3,
        "training_rows": count - holdout - validation,
        "validation_rows": validation,
        "holdout_rows": holdout,
        "learning_rates": (0.1, 0.1),
        "batch_size": batch,
        "seed": 5,
    }
    return Task(**fields | changes)


@settings(deadline=None, max_examples=30)
@given(st.integers(4, 300), st.integers(0, 90), st.integers(0, 90), st.integers(1, 400))
def test_every_row_is_in_one_part_and_every_training_row_in_one_batch(
    count: int, held: int, validated: int, batch: int
) -> None:
    task = plan(count, count * held // 300, count * validated // 300, batch)
    held_out, validation, training = rows.split(task)
    assert sorted([*held_out, *validation, *training]) == list(range(count))
    assert (len(held_out), len(validation)) == (task.holdout_rows, task.validation_rows)
    epochs = [list(rows.batches(task, epoch)) for epoch in (0, 1)]
    for batches in epochs:
        assert len(batches) == rows.batch_count(task)
        assert {b.size for b in batches} == set(rows.batch_sizes(task))
        assert np.array_equal(np.sort(np.concatenate(batches)), training)
    for start in range(rows.batch_count(task)):
        (one,) = rows.batches(task, 1, start, start + 1)
        assert np.array_equal(one, epochs[1][start])


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(np.concatenate(list(rows.batches(plan(50, 0, 0, 10, seed=seed), epoch))))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_chunks_cover_all_rows() -> None:
    for count, columns in ((1, 1), (5000, 3), (5000, 10_000), (2048, 64)):
        pieces = list(rows.chunks(count, columns))
        assert [row for piece in pieces for row in range(count)[piece]] == list(range(count))
        assert all((p.stop - p.start) * columns <= max(1 << 17, 32 * columns) for p in pieces)


def test_equal_tasks_have_equal_digests_and_others_do_not() -> None:
    base = plan(100, 10, 0, 16, l2=0.1)
    digests = [build(base).digest, build(plan(100, 10, 0, 16, l2=0.1)).digest]
    assert digests[0] == digests[1]
    others = [
        plan(100, 10, 0, 16, l2=0.1, seed=6),
        plan(100, 10, 0, 17, l2=0.1),
        plan(100, 11, 0, 16, l2=0.1),
        plan(100, 10, 0, 16, l2=0.1, learning_rates=(0.1, 0.11)),
        plan(100, 10, 0, 16, l2=0.1, learning_rates=(0.11, 0.1)),
        plan(100, 10, 0, 16, l2=0.2),
        plan(100, 10, 0, 16, l2=0.1, model_to=("x",)),
        plan(100, 10, 0, 16, l2=0.1, parties=3),
    ]
    assert len({build(task).digest for task in (base, *others)}) == 1 + len(others)


def test_a_quarter_of_a_million_rows_are_planned_in_seconds() -> None:
    task = plan(250_000, 50_000, 0, 128, learning_rates=(0.1,) * 3, standardize=True)
    start = time.process_time()
    program = build(task)
    assert time.process_time() - start < 3
    assert len(program.digest) == 32
    planned = cost(program)
    assert planned.rounds_by_name[3].rounds >= 6 * rows.batch_count(task)
    assert time.process_time() - start < 10


def test_a_round_may_be_a_part_of_an_epoch() -> None:
    whole, parts = plan(100, 0, 0, 8), plan(100, 0, 0, 8, batches_per_round=5)
    names = [training_round.name for training_round in build(parts).rounds]
    assert names[1:4] == [
        "epoch 1, batches 1-5",
        "epoch 1, batches 6-10",
        "epoch 1, batches 11-13",
    ]
    steps = [
        [call.inputs["X"].rows for r in build(task).rounds[1:-1] for call in r.calls()]
        for task in (whole, parts)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*steps, strict=True))
