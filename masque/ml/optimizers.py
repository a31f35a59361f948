"""Optimisers: from the gradient of a batch to the parameters of the next, on Secret.

Each keeps its state in registers of the shape of the parameter, and says how far one step can move
it at most, element by element and in norm: that is what lets `masque.ml.guards` see every weight
that leaves its bound before anything wraps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, inf, log2, sqrt

import numpy as np

from masque.errors import RangeError
from masque.ml.factors import Factor, power
from masque.ml.layers.base import Gradient, Weight
from masque.ml.network import Adam, Optimizer, Sgd
from masque.mpc.functions import clip, inverse_sqrt
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from masque.mpc.types import Array

MOMENT_SCALE = 24
SQUARE_SCALE = 50
ROOT_SCALE = 16
ULPS = 4.0  # that the two roundings of a moment in a step may come to
ADAM_CLIP = 1.0
"""Adam's gradients are limited to this if the job names no limit of its own."""


@dataclass(frozen=True)
class Settings:
    """What a step's factors follow from; `rates`: one an epoch."""

    optimizer: Optimizer
    rates: tuple[float, ...]
    l2: float
    clip: float | None
    batch: int


@dataclass(frozen=True)
class Moved:
    """A parameter after a step, its state, and how far the step moved it at most, in norms."""

    value: Secret
    state: dict[str, Secret]
    into: float
    out: float
    whole: float


@dataclass(frozen=True)
class Given:
    """A factor of a step and the function of (epoch, number of the step) that it encodes."""

    factor: Factor
    value: Callable[[int, int], float]

    def encoded(self, epoch: int, step: int) -> Array:
        """For one call."""
        return self.factor.encoded(np.full(self.factor.shape, self.value(epoch, step)))


def states(optimizer: Optimizer) -> tuple[str, ...]:
    """Names of what is kept of every parameter."""
    if isinstance(optimizer, Adam):
        return ("mean", "square")
    return ("velocity",) if optimizer.momentum else ()


class Rule:
    """One step of all parameters in a block; collects the factors that its calls need."""

    def __init__(self, trace: Trace, settings: Settings, scale: int) -> None:
        self.trace, self.settings, self.scale = trace, settings, scale
        self.given: list[Given] = []

    def step(self, name: str, w: Weight, gradient: Gradient, *, shrinks: bool) -> Moved:
        """The parameter `name` after a step; `shrinks`: whether l2 is for it."""
        if isinstance(self.settings.optimizer, Adam):
            return self._adam(name, w, gradient, self.settings.optimizer, shrinks=shrinks)
        return self._sgd(name, w, gradient, self.settings.optimizer, shrinks=shrinks)

    def _times(
        self, what: str, x: Secret, largest: float, scale: int, value: Callable[[int, int], float]
    ) -> Secret:
        """x times a public factor of each call, at `scale`, in the opening of a truncation."""
        factor = Factor.of(what, largest, x, scale)
        self.given.append(Given(factor, value))
        return x.scaled(factor.argument(self.trace), scale)

    def _shrinkage(self, w: Weight) -> float:
        return max(self.settings.rates) * self.settings.l2 * w.whole

    # -- sgd -------------------------------------------------------------------------------------

    def _sgd(self, name: str, w: Weight, g: Gradient, rule: Sgd, *, shrinks: bool) -> Moved:
        """change = rate (gradient / batch + l2 w); v = momentum v - change; w = w + v."""
        rates, batch, scale = self.settings.rates, self.settings.batch, self.scale
        largest = max(rates)
        if self.settings.clip is None:
            change = self._times(
                f"rate of {name}", g.value, largest / batch, scale, lambda e, _: rates[e] / batch
            )
            norms = [largest / batch * norm for norm in (g.into, g.out, g.whole)]
        else:
            mean, norms = self._clipped(g, MOMENT_SCALE, self.settings.clip)
            change = self._times(f"rate of {name}", mean, largest, scale, lambda e, _: rates[e])
            norms = [largest * norm for norm in norms]
        if shrinks and self.settings.l2:
            l2 = self.settings.l2
            change = change + self._times(
                f"shrink of {name}", w.value, largest * l2, scale, lambda e, _: rates[e] * l2
            )
            norms = [norm + self._shrinkage(w) for norm in norms]
        ulps = 2.0 ** (3 - scale) * sqrt(np.prod(w.value.shape))
        kept = 1.0 - rule.momentum - 2.0**-20
        if kept <= 0:
            raise RangeError(
                f"with a momentum of {rule.momentum} a velocity has no bound.",
                hint="Lower training.optimizer.momentum.",
                field="training.optimizer.momentum",
            )
        norms = [(norm + ulps) / kept * 1.001 for norm in norms]
        velocity, state = -change, {}
        if rule.momentum:
            before = self.trace.input(f"velocity {name}", w.value.shape, scale, norms[2])
            velocity = (before.scaled(rule.momentum, scale) - change).bounded(norms[2])
            state["velocity"] = velocity
        return Moved(w.value + velocity, state, *norms)

    def _clipped(self, g: Gradient, scale: int, limit: float) -> tuple[Secret, list[float]]:
        """The mean gradient, every element limited; and its norms."""
        mean = g.value.scaled(1.0 / self.settings.batch, scale)
        size = float(np.prod(mean.shape))
        rows = float(mean.shape[0])
        norms = [limit * sqrt(size / rows if len(mean.shape) == 4 else rows)]
        norms += [limit * sqrt(size), limit * sqrt(size)]
        return clip(mean, -limit, limit), norms

    # -- adam ------------------------------------------------------------------------------------

    def _adam(self, name: str, w: Weight, g: Gradient, rule: Adam, *, shrinks: bool) -> Moved:
        """m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; w = w - rate c_t m / sqrt(v + epsilon^2).

        c_t = sqrt(1 - b2^t) / (1 - b1^t) corrects m and v for their start at zero (the efficient
        order of computation in section 2 of the paper).
        """
        limit = self.settings.clip or ADAM_CLIP
        l2 = self.settings.l2 if shrinks else 0.0
        fine = _moment_scale(limit + l2 * w.value.bound)
        g_mean, _ = self._clipped(g, fine, limit)
        if l2:
            g_mean = g_mean + w.value.scaled(l2, fine)
        m = self._moment(f"mean {name}", g_mean, rule.beta1)
        square = g_mean * g_mean
        scale = min(SQUARE_SCALE, floor(58.5 - log2(square.bound + 1.0)))
        v = self._moment(f"square {name}", square, rule.beta2, scale)
        change = self._adam_change(name, m, v, rule)
        norm = change.bound * sqrt(np.prod(m.shape))
        return Moved(w.value - change, {"mean": m, "square": v}, norm, norm, norm)

    def _moment(self, name: str, x: Secret, beta: float, scale: int | None = None) -> Secret:
        """beta times what it was and 1 - beta times x."""
        scale = x.scale if scale is None else scale
        if not beta:
            return x.at(scale)
        bound = x.bound * 1.001 + ULPS * 2.0**-scale / (1 - beta)
        before = self.trace.input(name, x.shape, scale, bound)
        return (before.scaled(beta, scale) + x.scaled(1 - beta, scale)).bounded(bound)

    def _adam_change(self, name: str, m: Secret, v: Secret, rule: Adam) -> Secret:
        """rate c_t m / sqrt(v + epsilon^2).

        |m| <= furthest sqrt(v), see `_furthest`, and what roundings add to m; what they take from v
        is less than epsilon^2, or the job is refused.
        """
        if ULPS * 2.0**-v.scale > rule.epsilon**2 * (1 - rule.beta2):
            raise RangeError(
                f"with gradients of up to {sqrt(v.bound):.3g}, squares of epsilon are too fine.",
                hint="Raise training.optimizer.epsilon, or lower training.gradient_clip.",
                field="training.optimizer.epsilon",
            )
        rates, size = self.settings.rates, int(np.prod(v.shape))
        raised = (v + rule.epsilon**2).reshape(size)
        root = inverse_sqrt(raised, minimum=rule.epsilon**2 / 2).reshape(*v.shape).at(ROOT_SCALE)
        ratio = m * root
        rounding = ULPS * 2.0**-m.scale / (1 - rule.beta1) * root.bound + m.bound * 2.0**-14
        ratio = ratio.bounded(min(ratio.bound, 1.02 * _furthest(rule) + rounding))
        first = sqrt(1 - rule.beta2) / (1 - rule.beta1)

        def rate(epoch: int, step: int) -> float:
            start = sqrt(1 - power(rule.beta2, step + 1)) / (1 - power(rule.beta1, step + 1))
            return rates[epoch] * start

        return self._times(f"rate of {name}", ratio, max(rates) * max(1.0, first), self.scale, rate)


def _moment_scale(bound: float) -> int:
    """Fraction bits of a gradient within `bound`, so that its square fits."""
    return min(MOMENT_SCALE, floor(30.9 - log2(bound + 1.0)))


def _furthest(rule: Adam) -> float:
    """Of a mean over the root of the mean square: (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)).

    By Cauchy and Schwarz, for b1^2 < b2; without end otherwise.
    """
    rest = 1 - rule.beta1**2 / rule.beta2
    if rest < 2.0**-20:
        return inf
    return (1 - rule.beta1) / sqrt((1 - rule.beta2) * rest)
