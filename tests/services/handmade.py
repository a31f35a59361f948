"""A small program whose results are exact, and services that run it instead of a compiled job.

    python -m tests.services.handmade party --config party.yaml

`training.epochs` is the number of calls of each of the three training rounds (one exchange each;
the most that a job may have stand for `ENDLESS`, which no machine has dealt within a second),
`early_stop` adds a bit that is opened as 1 after the first of them. The result is X'X over all
epochs: no truncation, so that the parties' result is the plain one to the last bit.
"""

import masque.wire  # noqa: F401, I001 - before grpc

import sys
from functools import partial

import numpy as np

from masque.jobs.bound import BoundJob
from masque.jobs.spec import EVERYBODY
from masque.mpc.graph import Block, Kind
from masque.mpc.program import Call, Input, Opening, Output, Program, Ref, Register, TrainingRound
from masque.mpc.trace import Trace
from masque.mpc.types import Ring

SCALE = 24
STEPS = 3
MOST_EPOCHS, ENDLESS = 10_000, 30_000


def compile_handmade(job: BoundJob) -> Program:
    """prepare; three training rounds, of which an early stop leaves out two; finish."""
    table = job.tables[0]
    rows, columns, parties = table.info.rows, table.info.columns, len(job.parties)
    epochs, stop = job.spec.training.epochs, job.spec.training.early_stop is not None
    calls = ENDLESS if epochs == MOST_EPOCHS else epochs
    to = job.spec.model_output.sealed_to or ()
    to = (EVERYBODY,) if job.spec.model_output.open_to_all else to
    prepare, step = _prepare(parties, rows, columns), _step(parties, rows, columns)
    bit = _bit(parties, columns)
    openings = [Opening("stop", 1, ("parties",))] if stop else []

    def step_calls(k: int) -> list[Call]:
        inputs = {"x": Ref("x"), "batch": Ref(table.name), "gram": Ref("gram")}
        found = [Call(step, inputs, {}, {"gram": Ref("gram")}) for _ in range(calls)]
        return [*found, Call(bit, {"gram": Ref("gram")})] if stop and k == 0 else found

    def finish() -> list[Call]:
        if to != (EVERYBODY,):
            return []
        return [Call(_open(parties, columns), {"gram": Ref("gram")})]

    if to == (EVERYBODY,):
        openings.append(Opening("gram", 64 * columns**2, to))
    rounds = [
        TrainingRound(
            "prepare", lambda: [Call(prepare, {"x": Ref(table.name)}, {}, {"x": Ref("x")})], 1
        ),
        *(
            TrainingRound(
                f"step {k + 1}", partial(step_calls, k), len(step_calls(k)), skippable=k > 0
            )
            for k in range(STEPS)
        ),
        TrainingRound("finish", finish, len(finish())),
    ]
    return Program(
        name=job.job_id,
        parties=parties,
        registers={
            "x": Register((rows, columns), Kind.MASKED),
            "gram": Register((columns, columns), Kind.SHARE),
        },
        inputs={table.name: Input(table.name, rows, columns, SCALE)},
        rounds=rounds,
        outputs={"gram": Output("gram", (columns, columns), 2 * SCALE, to)},
        openings=tuple(openings),
    )


def gram(values: Ring, calls: int) -> Ring:
    """What the program computes, on clear fixed-point values."""
    return (values.T @ values) * np.uint64(calls)


def _prepare(parties: int, rows: int, columns: int) -> Block:
    trace = Trace("prepare", parties)
    trace.output("x", trace.input("x", (rows, columns), SCALE, 1.0), SCALE, masked=True)
    return trace.freeze()


def _step(parties: int, rows: int, columns: int) -> Block:
    trace = Trace("step", parties)
    x = trace.input("x", (rows, columns), SCALE, 1.0, masked=True)
    batch = trace.input("batch", (rows, columns), SCALE, 1.0)
    so_far = trace.input("gram", (columns, columns), 2 * SCALE, 2.0**10)
    total = (x.T @ batch + so_far).bounded(2.0**10)
    trace.output("gram", total, 2 * SCALE)
    return trace.freeze()


def _bit(parties: int, columns: int) -> Block:
    trace = Trace("bit", parties)
    value = trace.input("gram", (columns, columns), 0, 2.0**10)
    trace.reveal("stop", value[0, 0] - value[0, 0] + 1.0, effect="stop")
    return trace.freeze()


def _open(parties: int, columns: int) -> Block:
    trace = Trace("open", parties)
    trace.reveal("gram", trace.input("gram", (columns, columns), 2 * SCALE, 2.0**10))
    return trace.freeze()


def main() -> int:
    """Run a service on handmade programs."""
    from services.dealer import main as dealer
    from services.party import main as party

    role, *arguments = sys.argv[1:]
    run = {"dealer": dealer.run, "party": party.run}[role]
    return run(arguments, compile=compile_handmade)


if __name__ == "__main__":
    sys.exit(main())
