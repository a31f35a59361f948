"""What bounds every value of a training step, where that is tight, and what to change about it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from masque.errors import RangeError
from masque.ml.bounds import Bounds, bounds, row_bounds
from masque.ml.descent import Descent
from masque.ml.learning import Learning
from masque.ml.network import Adam
from masque.ml.privacy import release, score_noise
from masque.ml.record import Found
from masque.ml.task import Task
from masque.mpc.program import Release

RING_BITS = 62
FEW = 2.0
"""Bits left that are worth a warning."""
LOUD = {"linear": 0.5, "logistic": 1.0, "softmax": 1.0}
"""Noise of a score that is worth a warning: of half ranges of the label, or of log-odds."""
USUAL_WEIGHTS, USUAL_ACTIVATIONS, USUAL_RESIDUALS = 20, 14, 20
"""Fraction bits; fewer are worth a warning."""

_FIELDS = {
    "values": ("model.weight_bound", "model.activation_bound"),
    "gradient": ("model.gradient_bound", "model.weight_bound"),
    "residuals": ("model.weight_bound", "model.activation_bound"),
    "rows": ("data.standardize", "the ranges of columns"),
}


@dataclass(frozen=True)
class Concern:
    """Something that a plan warns of, and the field of the job to change."""

    message: str
    field: str
    layer: int | None = None


@dataclass(frozen=True)
class Ranges:
    """Of a step on the largest batch; `layers`: their kinds, () unless it is a network."""

    found: tuple[Found, ...]
    layers: tuple[str, ...]
    concerns: tuple[Concern, ...]

    @property
    def bits(self) -> float:
        """Of the ring's 62, that the widest of all values takes."""
        return max(entry.bits for entry in self.found)


def ranges(task: Task) -> Ranges:
    """The ranges of a task that can be built. Errors: as of `masque.ml.training.build`."""
    if task.network is None:
        within = bounds(task)
        descent, concerns = Descent(task, within), _of_scales(within)
        if task.privacy:
            concerns += _of_noise(task, release(task, within, descent.factors))
        return Ranges(descent.found, (), tuple(concerns))
    kinds = tuple(layer.kind for layer in task.network.layers)
    task = replace(task, intercept=False)
    learning = Learning(task, row_bounds(task))
    found = learning.found(learning.scale)
    return Ranges(found, kinds, tuple(_of_network(task, learning, found)))


def _of_scales(within: Bounds) -> list[Concern]:
    """Of a linear model: scales that had to be lowered."""
    found = []
    for what, scale, usual, field in (
        ("Weights", within.weight_scale, USUAL_WEIGHTS, "model.weight_bound"),
        ("Residuals", within.error_scale, USUAL_RESIDUALS, "training.batch_size"),
    ):
        if scale < usual:
            text = f"{what} have {scale} bits after the point instead of {usual} or more"
            text += ", so that nothing leaves the ring. Lower"
            found.append(Concern(f"{text} {field}, or the ranges of columns.", field))
    return found


def _of_noise(task: Task, found: Release) -> list[Concern]:
    """Of a model with privacy: noise that drowns it, a delta that lets whole rows through."""
    concerns = []
    noise = score_noise(task, found)
    if noise > LOUD[task.kind]:
        text = f"Noise may move a score by {noise:.2g} (standard deviation), and a model whose"
        text += f" scores are off by {LOUD[task.kind]:g} says little. Raise privacy.epsilon, raise"
        text += " model.l2, train fewer epochs, or use more rows or fewer columns."
        concerns.append(Concern(text, "privacy.epsilon"))
    if found.delta * task.training_rows > 1:
        text = f"A delta of {found.delta:g} allows for giving away one row of {task.training_rows}"
        concerns.append(Concern(f"{text}. Lower privacy.delta.", "privacy.delta"))
    return concerns


def _of_network(task: Task, learning: Learning, found: tuple[Found, ...]) -> list[Concern]:
    concerns = []
    if learning.scale < USUAL_WEIGHTS:
        layer, what = _obstacle(learning, found)
        text = f"Weights have {learning.scale} bits after the point instead of {USUAL_WEIGHTS} or"
        concerns.append(_concern(f"{text} more, to make room for", layer, what, task))
    else:
        for entry in _at_usual_scale(learning, found):
            left = RING_BITS - entry.bits
            if left < FEW:
                text = f"Only {left:.1f} of the ring's {RING_BITS} bits are left by"
                concerns.append(_concern(text, entry.layer, entry.what, task))
    for entry in found:
        if entry.what == "values" and entry.scale < USUAL_ACTIVATIONS:
            text = f"Only {entry.scale} bits after the point, not {USUAL_ACTIVATIONS}, have"
            concerns.append(_concern(text, entry.layer, entry.what, task))
    return list({(c.layer, c.field): c for c in reversed(concerns)}.values())[::-1]


def _obstacle(learning: Learning, found: tuple[Found, ...]) -> tuple[int | None, str]:
    """(layer, what) of the value that has no room where parameters have a bit more."""
    try:
        learning.found(learning.scale + 1)
    except RangeError as error:
        layer, what = error.where.get("layer"), error.where.get("value")
        if isinstance(what, str):
            return layer if isinstance(layer, int) else None, what
    widest = max(found, key=lambda entry: entry.bits)
    return widest.layer, widest.what


def _at_usual_scale(learning: Learning, found: tuple[Found, ...]) -> tuple[Found, ...]:
    """What would be found if parameters had no more fraction bits than usual: more are taken only
    because there is room.
    """
    try:
        return found if learning.scale == USUAL_WEIGHTS else learning.found(USUAL_WEIGHTS)
    except RangeError:
        return found


def _concern(text: str, layer: int | None, what: str, task: Task) -> Concern:
    assert task.network is not None
    first, second = _fields(what, task)
    of = f" of layer {layer} ({task.network.layers[layer].kind})" if layer is not None else ""
    return Concern(f"{text} the {what}{of}. Lower {first} or {second}.", first, layer)


def _fields(what: str, task: Task) -> tuple[str, str]:
    """The two fields that a value follows from most."""
    kind = what.partition(" ")[0]
    if kind in _FIELDS:
        return _FIELDS[kind]
    rate = "training.optimizer.learning_rate"  # parameters, with what a step may add to them
    adam = isinstance(task.optimizer, Adam)
    return ("model.weight_bound", rate) if adam else (rate, "model.gradient_bound")
