"""Going on with a program: what a checkpoint holds, and the program of an attempt from there.

A checkpoint before training round k holds every party's shares of the registers that rounds before
k have written, apart from what rounds that prepare have: these follow from the data sets alone. The
program of the new attempt

    prepares again          with fresh masks
    restores the rest       in place of round k - 1; what was masked is masked anew, in one opening
    goes on with round k

and passes over what was done, so that rounds keep their numbers. No mask of the old attempt is in
it. Values are those of the checkpoint to the bit; what is prepared again may differ by the rounding
of its truncations, one unit in the last place each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod

from masque.mpc.graph import Kind
from masque.mpc.program import Call, Input, Program, Ref, TrainingRound
from masque.mpc.trace import Trace

CHECKPOINT = ":checkpoint"
"""The data set of inputs that a checkpoint gives: no data set of a user's has such a name."""

_INPUT = "checkpoint:"


def input_of(register: str) -> str:
    """The name of the input that restores a register: [size, 1], words of the ring."""
    return f"{_INPUT}{register}"


def register_of(name: str) -> str | None:
    """The register that an input of a program restores; None if it is another kind of input."""
    return name.removeprefix(_INPUT) if name.startswith(_INPUT) else None


def written(rounds: Iterable[TrainingRound]) -> set[str]:
    """Registers that these rounds write, apart from what rounds that prepare do."""
    return {
        ref.name
        for training_round in rounds
        if not training_round.prepares
        for call in training_round.calls()
        for ref in call.outputs.values()
    }


def resumed(program: Program, k: int, *, stopped: bool = False) -> Program:
    """The program that goes on with training round `k` (1, 2, ...) of `program`.

    `stopped`: training had stopped early, so that rounds which that skips are left out. Needs a
    round before `k` that does not prepare: AssertionError otherwise.
    """
    done = program.rounds[:k]
    assert 0 < k < len(program.rounds) and not done[-1].prepares, "nothing to go on from"
    names = sorted(written(done))
    restored = TrainingRound(f"{done[-1].name}, restored", lambda: [call], 1)
    call = _restore(program, names)

    def left(number: int, training_round: TrainingRound) -> TrainingRound:
        if training_round.prepares:
            return training_round
        if number == k - 1:
            return restored
        over = number < k or (stopped and training_round.skippable)
        return TrainingRound("", lambda: (), 0) if over else training_round

    kept = {
        input_of(name): Input(CHECKPOINT, prod(program.registers[name].shape), 1, 0)
        for name in names
    }
    return replace(
        program,
        inputs={**program.inputs, **kept},
        rounds=tuple(left(number, each) for number, each in enumerate(program.rounds)),
    )


def _restore(program: Program, names: list[str]) -> Call:
    """Shares go back into their registers; those of masked ones are masked in one opening."""
    trace = Trace("restore", program.parties)
    for name in names:
        register = program.registers[name]
        words = trace.words(input_of(name), (prod(register.shape), 1))
        masked = register.kind is Kind.MASKED
        trace.output(name, words.reshape(*register.shape), 0, masked=masked)
    return Call(
        trace.freeze(),
        {input_of(name): Ref(input_of(name)) for name in names},
        {},
        {name: Ref(name) for name in names},
    )
