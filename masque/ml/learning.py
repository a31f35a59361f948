"""Training of networks: a step on a mini-batch is forward, loss, backward, optimiser, on Secret.

Scales and bounds of the parameters are found once, when the job is compiled: a parameter may leave
its limit by what one step can do, and the next step checks it before anything else rests on it
(`masque.ml.guards`). Weights have as many fraction bits as all of this leaves room for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from masque.errors import RangeError
from masque.ml import models, rows
from masque.ml.bounds import DATA_SCALE, FEATURE_SCALE, RowBounds
from masque.ml.layers import Dropout
from masque.ml.layers.base import GRADIENT_SCALE, Batch, Parameter
from masque.ml.layers.shaping import KEEP_SCALE, MASK
from masque.ml.network import Network, Sgd
from masque.ml.optimizers import Given, Moved, Rule, Settings, states
from masque.ml.passes import Norms, Passes, limits, refs, register, widest
from masque.ml.preparation import DESIGN, LABELS
from masque.ml.record import Found
from masque.ml.starting import SharedStart, places, shared
from masque.ml.task import Task
from masque.mpc import prg
from masque.mpc.functions import equals
from masque.mpc.graph import Block, Kind
from masque.mpc.program import Call, Input, Opening, Ref, Register
from masque.mpc.public import constant, public_array
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from masque.mpc.types import Array

MOST_BITS, LEAST_BITS = 22, 12  # of weights after the point
VIOLATIONS, WITHIN = "violations", "within bounds"
MOST_VIOLATIONS = 2.0**45
EVALUATION = "evaluation within bounds"
CHECKS = 2  # calls of `Learning.checks`
SLACK = 1.0 + 2.0**-10  # what one more fraction bit may change of a bound


@dataclass(frozen=True)
class Step:
    """A step on so many rows, as a block, and what follows from having traced it."""

    block: Block
    given: tuple[Given, ...]
    moved: Mapping[str, Moved]
    means: Mapping[str, tuple[float, float]]
    found: tuple[Found, ...]


class Learning:
    """Registers and calls of the training of a network; blocks are traced once a shape."""

    def __init__(self, task: Task, rows_within: RowBounds) -> None:
        assert task.network is not None
        self.task, self.within = task, rows_within
        self.network: Network = task.network
        self.optimizer = task.optimizer or Sgd()
        self.parameters: dict[str, Parameter] = self.network.parameters()
        self.scale, self.before, self._steps = self._planned()
        self._check = self._check_block()

    def row_norm(self, element: float) -> float:
        """Of a row whose elements are within +-`element`."""
        return element * sqrt(self.task.features)

    # -- planning --------------------------------------------------------------------------------

    def _planned(self) -> tuple[int, dict[str, Norms], dict[int, Step]]:
        """Fraction bits of parameters, what they are within before a step, and the steps."""
        failure: RangeError | None = None
        for scale in range(MOST_BITS, LEAST_BITS - 1, -1):
            try:
                return (scale, *self._planned_at(scale))
            except RangeError as error:
                if "field" in error.where:
                    raise
                failure = error
        assert failure is not None
        layer = failure.where.get("layer")
        at = "" if layer is None else f" (layer {layer})"
        raise RangeError(
            f"No scale of weights leaves room for this network{at}: {failure.message}",
            hint="Lower model.weight_bound, model.activation_bound or the learning rate,"
            " or use fewer layers.",
            field="model.weight_bound",
            layer=layer,
        ) from failure

    def _planned_at(self, scale: int) -> tuple[dict[str, Norms], dict[int, Step]]:
        sizes = rows.batch_sizes(self.task)
        before = {name: self._limit(name) for name in self.parameters}
        for _ in range(4):
            steps = {size: self._trace_step(size, scale, before) for size in sizes}
            after = {name: self._after(name, list(steps.values())) for name in self.parameters}
            if all(_covers(before[name], after[name]) for name in before):
                return before, steps
            before = {name: _widened(after[name]) for name in after}
        raise RangeError("the bounds of its parameters grow without end.")

    def found(self, scale: int) -> tuple[Found, ...]:
        """What bounds the values of a step on the largest batch, at a scale of parameters."""
        steps = self._steps if scale == self.scale else self._planned_at(scale)[1]
        return steps[max(steps)].found

    def _limit(self, name: str) -> Norms:
        parameter, bound = self.parameters[name], self.network.weight_bound
        return limits(parameter, bound)

    def standing(self, name: str) -> Norms:
        """What a parameter is within once a check has passed."""
        return self._limit(name) if self.parameters[name].trained else self.before[name]

    def _after(self, name: str, steps: list[Step]) -> Norms:
        """What a parameter is within after any of the steps."""
        parameter = self.parameters[name]
        if not parameter.trained:
            root, means = sqrt(parameter.shape[0]), [step.means[name] for step in steps]
            largest = max(parameter.start, *(element for element, _ in means)) * 1.01 + 0.01
            whole = max(parameter.start * root, *(norm for _, norm in means)) * 1.01 + 0.01 * root
            whole = min(whole, largest * root)
            return Norms(whole, whole, whole, largest)
        moves = [step.moved[name] for step in steps]
        return self._limit(name).plus(
            max(move.into for move in moves),
            max(move.out for move in moves),
            max(move.whole for move in moves),
        )

    # -- blocks ----------------------------------------------------------------------------------

    def _trace_step(self, batch: int, scale: int, before: Mapping[str, Norms]) -> Step:
        task = self.task
        trace = Trace(f"step of {batch}", task.parties)
        x = trace.input("X", (batch, task.columns), FEATURE_SCALE, self.within.feature, masked=True)
        y = trace.input("y", (batch, task.classes), DATA_SCALE, 1.0)
        count = trace.input(VIOLATIONS, (1,), 0, MOST_VIOLATIONS)
        passes = Passes(trace, self.network, before, scale, training=True)
        z = passes.forward(x, self.row_norm(self.within.feature))
        with passes.record.entry(None, "residuals") as add:
            error = models.residual(task.kind, z.value, y, GRADIENT_SCALE)
            add(error, _error_norm(task, error))
        gradients = passes.backward(Batch.of(error, _error_norm(task, error)))
        settings = Settings(self.optimizer, task.learning_rates, task.l2, task.gradient_clip, batch)
        rule, moved = Rule(trace, settings, scale), {}
        for name, gradient in gradients.items():
            layer, what = name.split(".")
            with passes.record.entry(int(layer), f"step of {what}") as add:
                w, shrinks = passes.weights[name], what == "weight"
                move = rule.step(name, w, gradient, shrinks=shrinks)
                moved[name] = replace(move, value=move.value.at(scale))
                add(moved[name].value)
            trace.output(name, moved[name].value, scale)
            for what, state in move.state.items():
                trace.output(f"{what} {name}", state, state.scale)
        for name, value in passes.updates().items():
            trace.output(name, value, scale)
        _count(trace, count, passes)
        means = passes.means()
        found = tuple(passes.record.found)
        return Step(trace.freeze(), tuple(rule.given), moved, means, found)

    def _check_block(self) -> Block:
        """Are the parameters, and was everything so far, within bounds?"""
        trace = Trace("check of bounds", self.task.parties)
        count = trace.input(VIOLATIONS, (1,), 0, MOST_VIOLATIONS)
        passes = Passes(trace, self.network, self.before, self.scale, training=False)
        count = _count(trace, count, passes)
        trace.output(WITHIN, equals(count).value(), 0)
        return trace.freeze()

    def _opening_block(self, name: str) -> Block:
        trace = Trace(name, self.task.parties)
        value = trace.input(WITHIN, (1,), 0, 1.0)
        refusal = (
            f"Training left its bounds ({name}: no): weights, activations or gradients grew beyond"
            " what the job allows, which happens when training diverges.",
            "Lower training.optimizer.learning_rate; or, if the data are right, raise"
            " model.activation_bound, model.gradient_bound or model.weight_bound.",
        )
        if name == EVALUATION:  # training ended within them
            refusal = (
                f"Held-out rows left the bounds of the network ({name}: no): some are far from"
                " all that it was trained on.",
                "Look for values that are wrong or rare in the data sets; or raise"
                " model.activation_bound, or reveal no metrics.",
            )
        trace.reveal(name, value, effect="require", refusal=refusal)
        return trace.freeze()

    def start_block(self) -> Block:
        """Parameters as the public seed has them."""
        trace = Trace("start", self.task.parties)
        for name, values in self.network.initial(self.task.seed):
            zero = trace.input(name, values.shape, self.scale, 0.0)
            trace.output(name, zero + constant(trace.graph, values, self.scale), self.scale)
        return trace.freeze()

    def shared_start_block(self) -> Block:
        """Parameters as a shared model has them; those beyond their limits are violations."""
        trace = Trace("start", self.task.parties)
        count = trace.input(VIOLATIONS, (1,), 0, 0.0)
        start = SharedStart(trace, self.scale)
        for name, parameter in self.parameters.items():
            value = start.parameter(name, parameter, self.standing(name))
            trace.output(name, value, self.scale)
        found = start.guards.violations()
        trace.output(VIOLATIONS, count if found is None else count + found, 0)
        return trace.freeze()

    # -- registers, openings, calls --------------------------------------------------------------

    def registers(self) -> dict[str, Register]:
        """Parameters, the optimiser's state, and the count of violations."""
        found = {VIOLATIONS: Register((1,), Kind.SHARE), WITHIN: Register((1,), Kind.SHARE)}
        for name, parameter in self.parameters.items():
            found[register(name)] = Register(parameter.shape, Kind.SHARE)
            for what in states(self.optimizer) if parameter.trained else ():
                found[f"{what} {name}"] = Register(parameter.shape, Kind.SHARE)
        return found

    def openings(self) -> tuple[Opening, ...]:
        """One bit an epoch, and one after evaluation: whether everything was within bounds."""
        names = [bounds_name(epoch) for epoch in range(len(self.task.learning_rates))]
        return tuple(Opening(name, 1, ("parties", "coordinator", "dealer")) for name in names)

    def start(self) -> Call:
        """The call that sets all parameters."""
        named = refs(self.network)
        if self.task.start is None:
            return Call(self.start_block(), named, {}, named)
        count = {VIOLATIONS: Ref(VIOLATIONS)}
        given = places(self.task.start, self.parameters)
        inputs = {f"start of {name}": ref for name, ref in given.items()}
        return Call(self.shared_start_block(), inputs | count, {}, named | count)

    def inputs(self) -> dict[str, Input]:
        """A shared model to start from, if there is one."""
        return {} if self.task.start is None else shared(self.task.start)

    def calls(self, epoch: int, start: int, stop: int) -> Iterator[Call]:
        """The steps on mini-batches `start` to `stop` - 1 of an epoch, all counted from 0."""
        done = epoch * rows.batch_count(self.task) + start
        state = self._state()
        for number, batch in enumerate(rows.batches(self.task, epoch, start, stop), start=done):
            step = self._steps[batch.size]
            inputs = {"X": Ref(DESIGN, batch), "y": Ref(LABELS, batch), **state}
            arguments = self._arguments(step, epoch, number, batch.size)
            outputs = {name: state[name] for name in step.block.outputs}
            yield Call(step.block, inputs, arguments, outputs)

    def checks(self, name: str) -> Iterator[Call]:
        """Two calls: whether everything was within bounds, opened as `name`."""
        named = refs(self.network) | {VIOLATIONS: Ref(VIOLATIONS)}
        results = {VIOLATIONS: Ref(VIOLATIONS), WITHIN: Ref(WITHIN)}
        yield Call(self._check, named, {}, results)
        yield Call(self._opening_block(name), {WITHIN: Ref(WITHIN)})

    def _state(self) -> dict[str, Ref]:
        """Everything that a step reads and writes, under the names of its inputs."""
        found = {VIOLATIONS: Ref(VIOLATIONS), **refs(self.network)}
        for name, parameter in self.parameters.items():
            for what in states(self.optimizer) if parameter.trained else ():
                found[f"{what} {name}"] = Ref(f"{what} {name}")
        return found

    def _arguments(self, step: Step, epoch: int, number: int, batch: int) -> dict[str, Array]:
        found = {given.factor.name: given.encoded(epoch, number) for given in step.given}
        shapes = self.network.shapes()
        for index, layer in enumerate(self.network.layers):
            if isinstance(layer, Dropout) and layer.rate:
                keep = kept(self.task.seed, number, index, (batch, *shapes[index]), layer.rate)
                found[f"{MASK} {index}"] = public_array(keep * layer.factor, KEEP_SCALE)
        return found


@dataclass(frozen=True)
class NetworkScores:
    """The forward pass of a trained network on rows whose elements are within +-`feature`."""

    learning: Learning
    feature: float

    @property
    def columns(self) -> int:
        """Elements of a row where it has most."""
        return widest(self.learning.network)

    @property
    def bound(self) -> float:
        """That of the forward pass of a single row."""
        learning = self.learning
        trace = Trace("bound", learning.task.parties)
        x = trace.input("X", (1, learning.task.columns), FEATURE_SCALE, self.feature, masked=True)
        return self.of(trace, x).bound

    def of(self, trace: Trace, x: Secret) -> Secret:
        """The forward pass; checks on the way are counted."""
        learning = self.learning
        count = trace.input(VIOLATIONS, (1,), 0, MOST_VIOLATIONS)
        within = {name: learning.standing(name) for name in learning.parameters}
        passes = Passes(trace, learning.network, within, learning.scale, training=False)
        z = passes.forward(x, learning.row_norm(self.feature)).value
        _count(trace, count, passes)
        return z

    def inputs(self) -> dict[str, Ref]:
        """Parameters and the count of violations."""
        return refs(self.learning.network) | self.outputs()

    def outputs(self) -> dict[str, Ref]:
        """The count of violations."""
        return {VIOLATIONS: Ref(VIOLATIONS)}


def bounds_name(epoch: int) -> str:
    """Name of the bit that is opened after `epoch` (0, 1, ...)."""
    return f"epoch {epoch + 1} within bounds"


def kept(seed: int, step: int, layer: int, shape: tuple[int, ...], rate: float) -> Array:
    """Which elements a dropout layer keeps in a step: 0 or 1, public, from the job's seed."""
    root = prg.derive(bytes(prg.SEED_SIZE), "public dropout", seed, layer)
    drawn = prg.Stream(root).expand(step, 2 * int(np.prod(shape))).view("<u2").reshape(shape)
    return np.asarray(drawn >= round(rate * 65536), dtype=np.float64)


def _error_norm(task: Task, error: Secret) -> float:
    """Of a row's gradient by its scores."""
    if task.kind == "linear":
        return error.bound * sqrt(task.classes)
    return 1.01 * (sqrt(2.0) if task.kind == "softmax" else 1.0)


def _count(trace: Trace, count: Secret, passes: Passes) -> Secret:
    """Add the block's violations to those before, and put them out."""
    found = passes.guards.violations()
    total = count if found is None else (count + found).bounded(MOST_VIOLATIONS)
    trace.output(VIOLATIONS, total, 0)
    return total


def _covers(before: Norms, after: Norms) -> bool:
    pairs = ((before.into, after.into), (before.out, after.out), (before.whole, after.whole))
    return all(a <= b for b, a in (*pairs, (before.element, after.element)))


def _widened(norms: Norms) -> Norms:
    """A little more, so that roundings at the next scale are covered."""
    return Norms(norms.into * SLACK, norms.out * SLACK, norms.whole * SLACK, norms.element * SLACK)
