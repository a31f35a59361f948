"""What a finished training hands out as its model, and how held-out rows are scored by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from masque.ml.bounds import FEATURE_SCALE, Bounds, room
from masque.ml.descent import WEIGHTS
from masque.ml.learning import EVALUATION, Learning, NetworkScores
from masque.ml.passes import refs
from masque.ml.scores import LinearScores, Scores
from masque.ml.task import Task
from masque.mpc.functions import clip
from masque.mpc.graph import Kind
from masque.mpc.program import Call, Ref, Register, Release
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from masque.mpc.types import Shape

HandOut = Callable[[Trace, str, Secret], None]


class Outcome(Protocol):
    """The end of a training."""

    @property
    def scores(self) -> Scores:
        """Of held-out rows."""

    def parts(self) -> dict[str, tuple[Shape, int]]:
        """Shape and scale of every array of the model."""

    def registers(self) -> dict[str, Register]:
        """What it needs besides."""

    def inputs(self) -> dict[str, Ref]:
        """What `put_out` reads."""

    def put_out(self, trace: Trace, hand_out: HandOut) -> None:
        """Hand out every part inside a block, and output what scoring needs."""

    def checks(self) -> Iterator[Call]:
        """Calls after the held-out rows were scored, before anything of them is handed out."""


class LinearOutcome:
    """Weights, limited for good, with the noise of a `release`; the intercept is their last row."""

    def __init__(self, task: Task, limits: Bounds, release: Release | None = None) -> None:
        self.task, self.limits, self.release = task, limits, release
        score = task.columns * limits.held_out * task.weight_bound
        self.scale = room(score, FEATURE_SCALE, limits.weight_scale, "a score")
        self.scores: Scores = LinearScores(
            *task.shape,
            "held-out weights",
            self.scale,
            task.weight_bound,
            limits.held_out,
            masked=True,
        )

    def parts(self) -> dict[str, tuple[Shape, int]]:
        """weights [features, classes], intercept [classes]."""
        task, scale = self.task, self.limits.weight_scale
        found: dict[str, tuple[Shape, int]] = {"weights": ((task.features, task.classes), scale)}
        return found | ({"intercept": ((task.classes,), scale)} if task.intercept else {})

    def registers(self) -> dict[str, Register]:
        """The weights that held-out rows are scored with."""
        if not self.task.metrics:
            return {}
        return {"held-out weights": Register(self.task.shape, Kind.MASKED)}

    def inputs(self) -> dict[str, Ref]:
        """The weights."""
        return {"weights": Ref(WEIGHTS)}

    def put_out(self, trace: Trace, hand_out: HandOut) -> None:
        """Limit the weights for good; what is handed out has noise, if any is due."""
        task, limits = self.task, self.limits
        w = trace.input("weights", task.shape, limits.weight_scale, limits.weight)
        final = clip(w, -task.weight_bound, task.weight_bound)
        if self.release:
            assert not task.metrics, "scores without noise would be told"
            sigma = round(self.release.sigma * 2.0**limits.weight_scale)
            final = final + trace.noise("weights", task.shape, limits.weight_scale, sigma)
        hand_out(trace, "weights", final[: task.features])
        if task.intercept:
            hand_out(trace, "intercept", final[task.features])
        if task.metrics:
            trace.output("held-out weights", final, self.scale, masked=True)

    def checks(self) -> Iterator[Call]:
        """None: nothing here can leave its bounds."""
        yield from ()


class NetworkOutcome:
    """The parameters of a network, as the last check found them within bounds."""

    def __init__(self, learning: Learning, held_out: float) -> None:
        self.learning = learning
        self.scores: Scores = NetworkScores(learning, held_out)

    def parts(self) -> dict[str, tuple[Shape, int]]:
        """Every parameter, by name."""
        scale = self.learning.scale
        return {name: (p.shape, scale) for name, p in self.learning.parameters.items()}

    def registers(self) -> dict[str, Register]:
        """Nothing."""
        return {}

    def inputs(self) -> dict[str, Ref]:
        """All parameters."""
        return refs(self.learning.network)

    def put_out(self, trace: Trace, hand_out: HandOut) -> None:
        """As they are."""
        learning = self.learning
        for name, parameter in learning.parameters.items():
            bound = learning.standing(name).element
            hand_out(trace, name, trace.input(name, parameter.shape, learning.scale, bound))

    def checks(self) -> Iterator[Call]:
        """Whether the held-out rows kept within bounds."""
        if self.learning.task.metrics:
            yield from self.learning.checks(EVALUATION)
