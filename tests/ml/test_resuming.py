"""Training that goes on from a checkpoint: the same model, with fresh masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from masque.ml.network import Adam
from masque.ml.task import EarlyStop, Task
from masque.ml.training import build
from masque.mpc import inprocess, sharing
from masque.mpc.cost import cost
from masque.mpc.doors import Source
from masque.mpc.party import Party
from masque.mpc.plain import Plain
from masque.mpc.program import Program
from masque.mpc.resume import input_of, register_of, resumed, written
from masque.mpc.types import Ring

from . import examples
from .examples import Reals
from .test_network_parties import binary

AGREE = 5e-4
"""As between parties and the plain twin: what is prepared again is rounded again."""


def whole_run(program: Program, clear: Mapping[str, Ring]) -> inprocess.Run:
    """All rounds, without a break."""
    parties = program.parties
    return inprocess.run(program, examples.sources(parties, clear), examples.seeds(parties))


def broken_run(
    program: Program, clear: Mapping[str, Ring], k: int
) -> tuple[inprocess.Run, inprocess.Run]:
    """The rounds before `k`; then, as a new attempt with other seeds, the rest."""
    parties = program.parties
    stores = examples.sources(parties, clear)
    first = inprocess.run(program, stores, examples.seeds(parties), until=k)
    stopped = first.parties[0].stopped
    assert all(party.stopped is stopped for party in first.parties)
    rest = resumed(program, k, stopped=stopped)
    sources = [with_checkpoint(s, p) for s, p in zip(stores, first.parties, strict=True)]
    return first, inprocess.run(rest, sources, examples.seeds(parties, 1))


def with_checkpoint(store: Source, party: Party) -> Source:
    kept = party.state()

    def source(name: str, rows: slice) -> Ring:
        register = register_of(name)
        return store(name, rows) if register is None else kept[register].reshape(-1, 1)[rows]

    return source


def outputs(run: inprocess.Run) -> dict[str, Reals]:
    program = run.parties[0].program
    return {
        name: examples.real(program, name, sharing.join([p.output(name) for p in run.parties]))
        for name in program.outputs
    }


def linear(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "standardize": True,
        "momentum": 0.9,
        "learning_rates": (0.1,) * 3,
        "metrics": ("accuracy",),
    }
    return examples.task("breast_cancer", **(fields | changes))


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_resumed_job_makes_the_model_of_an_uninterrupted_one(parties: int, done: int) -> None:
    task = linear(parties=parties)
    program, clear = build(task), examples.encoded(task, examples.dataset("breast_cancer"))
    first_epoch = sum(each.prepares for each in program.rounds)
    _, rest = broken_run(program, clear, first_epoch + done)
    expected = outputs(whole_run(program, clear))
    for name, value in outputs(rest).items():
        assert np.abs(value - expected[name]).max() < AGREE, name


def test_the_network_goes_on_with_its_optimiser_where_it_was() -> None:
    task = binary(optimizer=Adam(0.9, 0.999, 1e-3), learning_rates=(0.02,) * 4)
    program = build(task)
    clear = examples.encoded(task, examples.dataset("breast_cancer"))
    k = next(n for n, each in enumerate(program.rounds) if each.name.startswith("epoch 3"))
    _, rest = broken_run(program, clear, k)
    expected = outputs(whole_run(program, clear))
    for name, value in outputs(rest).items():
        assert np.abs(value - expected[name]).max() < 2e-3, name


def test_what_is_restored_is_what_was_kept_and_opens_nothing() -> None:
    task = linear()
    program, clear = build(task), examples.encoded(task, examples.dataset("breast_cancer"))
    k = sum(each.prepares for each in program.rounds) + 2
    first, rest = broken_run(program, clear, k)
    kept = {name: [party.state()[name] for party in first.parties] for name in first_names(first)}
    restored = inprocess.run(
        rest.parties[0].program,
        [
            with_checkpoint(s, p)
            for s, p in zip(examples.sources(2, clear), first.parties, strict=True)
        ],
        examples.seeds(2, 1),
        until=k,
    )
    for name, shares in kept.items():
        again = [party.state()[name] for party in restored.parties]
        assert np.array_equal(sharing.join(again), sharing.join(shares)), name
    here = rest.parties[0].program.rounds[k - 1]
    assert sum(call.block.rounds for call in here.calls()) == 0


def first_names(run: inprocess.Run) -> Sequence[str]:
    names = [set(party.state()) for party in run.parties]
    assert all(each == names[0] for each in names)
    return sorted(names[0])


def test_rounds_keep_their_numbers_and_what_is_over_is_passed_over() -> None:
    program = build(linear())
    k = sum(each.prepares for each in program.rounds) + 3
    rest = resumed(program, k)
    assert len(rest.rounds) == len(program.rounds)
    names = [each.name for each in rest.rounds]
    assert names[: k - 3] == [each.name for each in program.rounds[: k - 3]]
    assert names[k - 3 : k] == ["", "", "epoch 3, restored"]
    assert names[k:] == [each.name for each in program.rounds[k:]]
    assert rest.digest not in {program.digest, resumed(program, k - 1).digest}
    assert rest.digest == resumed(program, k).digest
    kept = {register_of(name) for name in rest.inputs} - {None}
    assert kept == written(program.rounds[:k]) == {"current weights", "current velocity"}
    assert cost(rest).rounds < cost(program).rounds


def test_a_job_that_had_stopped_early_does_not_train_on() -> None:
    task = linear(
        early_stop=EarlyStop("log_loss", 1, 10.0), validation_rows=50, learning_rates=(0.1,) * 6
    )
    program, clear = build(task), examples.encoded(task, examples.dataset("breast_cancer"))
    k = sum(each.prepares for each in program.rounds) + 2
    first, rest = broken_run(program, clear, k)
    assert first.parties[0].stopped, "one epoch without progress is enough here"
    assert [each.name for each in rest.parties[0].program.rounds[k:-1]] == [""] * 4
    assert not rest.parties[0].opened.keys() & first.parties[0].opened.keys()
    expected = outputs(whole_run(program, clear))
    for name, value in outputs(rest).items():
        assert np.abs(value - expected[name]).max() < AGREE, name


def test_masked_registers_are_masked_anew_where_nothing_prepares() -> None:
    """Also a program that marks no round as preparation can go on."""
    task = linear(standardize=False)
    program, clear = build(task), examples.encoded(task, examples.dataset("breast_cancer"))
    bare = replace(program, rounds=tuple(replace(r, prepares=False) for r in program.rounds))
    _, rest = broken_run(bare, clear, 2)
    block = next(iter(rest.parties[0].program.rounds[1].calls())).block
    assert block.rounds == 1, "one opening masks all of them"
    expected = outputs(whole_run(program, clear))
    for name, value in outputs(rest).items():
        assert np.abs(value - expected[name]).max() < AGREE, name


def test_the_plain_twin_runs_resumed_programs_too() -> None:
    task = linear()
    program, clear = build(task), examples.encoded(task, examples.dataset("breast_cancer"))
    whole = Plain(program, lambda name, rows: clear[name][rows])
    whole.run_program()
    k = sum(each.prepares for each in program.rounds) + 1
    half = Plain(
        Program(program.name, 2, program.registers, program.inputs, program.rounds[:k], {}),
        lambda name, rows: clear[name][rows],
    )
    half.run_program()
    rest = resumed(program, k)
    kept = {input_of(n): half.registers[n].reshape(-1, 1) for n in written(program.rounds[:k])}
    clear_too = {**clear, **kept}
    again = Plain(rest, lambda name, rows: clear_too[name][rows])
    again.run_program()
    for name in program.outputs:
        assert np.array_equal(again.output(name), whole.output(name)), "to the bit: no rounding"
