"""The job file: what to train, on which data sets, what may be opened and to whom.

`load` reads a file, `parse` a text. Both raise SpecError with every mistake of the file at once,
each with its line, its field and its cure. `docs/job.md` is the reference for users.
"""

from __future__ import annotations

from os import PathLike
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from masque.jobs import document
from masque.jobs.complaints import Complaint, refusal, validated
from masque.jobs.models import LinearSpec, ModelSpec, OptimizerSpec, SequentialSpec
from masque.jobs.section import Name, Names, Real, Section, listed

Metric = Literal["accuracy", "auc", "log_loss", "r2", "confusion"]
StopMetric = Literal["log_loss", "squared_error"]
Partition = Literal["rows", "columns"]
Outcome = Literal["sealed", "kept", "open"]

EVERYBODY = "all"
"""In place of recipients: parties, coordinator and every client may see it."""


def _everybody(value: Any) -> Any:
    return (EVERYBODY,) if value == EVERYBODY else listed(value)


Recipients = Annotated[tuple[Name, ...], BeforeValidator(_everybody), Field(max_length=64)]
Metrics = Annotated[tuple[Metric, ...], BeforeValidator(listed), Field(max_length=5)]
Column = Annotated[str, Field(min_length=1, max_length=256)]


class DataSpec(Section):
    """Which data sets, stacked by rows or joined by columns, and what is held out."""

    rows: Names | None = Field(None, examples=["[hospital-a, hospital-b]"])
    columns: Names | None = Field(None, examples=["[bank, shop]"])
    label: Column = Field(examples=["malignant"])
    standardize: bool = False
    holdout: Annotated[Real, Field(ge=0, le=0.5)] = 0.0

    @property
    def partition(self) -> Partition:
        """How the data sets fit together."""
        return "columns" if self.rows is None else "rows"

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets, in the order of the file."""
        return self.rows or self.columns or ()


class ConstantSchedule(Section):
    """The learning rate stays as it is."""

    kind: Literal["constant"]

    def multiplier(self, epoch: int) -> float:
        """What the learning rate is multiplied by in `epoch` (0, 1, ...)."""
        del epoch
        return 1.0


class StepSchedule(Section):
    """The learning rate is multiplied by `factor` after every `every` epochs."""

    kind: Literal["step"]
    every: Annotated[int, Field(ge=1, le=10_000)] = Field(examples=["10"])
    factor: Annotated[Real, Field(gt=0, le=1)] = 0.5

    def multiplier(self, epoch: int) -> float:
        """What the learning rate is multiplied by in `epoch` (0, 1, ...)."""
        return _power(self.factor, epoch // self.every)


class ExponentialSchedule(Section):
    """The learning rate is multiplied by `factor` after every epoch."""

    kind: Literal["exponential"]
    factor: Annotated[Real, Field(gt=0, le=1)] = Field(examples=["0.95"])

    def multiplier(self, epoch: int) -> float:
        """What the learning rate is multiplied by in `epoch` (0, 1, ...)."""
        return _power(self.factor, epoch)


class InverseTimeSchedule(Section):
    """The learning rate is divided by 1 + `decay` x epoch."""

    kind: Literal["inverse_time"]
    decay: Annotated[Real, Field(gt=0, le=1000)] = Field(examples=["0.1"])

    def multiplier(self, epoch: int) -> float:
        """What the learning rate is multiplied by in `epoch` (0, 1, ...)."""
        return 1.0 / (1.0 + self.decay * epoch)


ScheduleSpec = Annotated[
    ConstantSchedule | StepSchedule | ExponentialSchedule | InverseTimeSchedule,
    Field(discriminator="kind"),
]


class EarlyStopSpec(Section):
    """Stop when `metric` has not improved by `min_delta` for `patience` epochs.

    It is measured on the `validation` part of the training rows, which is not trained on. Costs
    one declared opened bit an epoch: go on or stop.
    """

    metric: StopMetric = Field(examples=["log_loss"])
    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    min_delta: Annotated[Real, Field(ge=0, le=100)] = 0.0
    validation: Annotated[Real, Field(gt=0, le=0.5)] = 0.1


class TrainingSpec(Section):
    """How it is trained. `seed` is public: it orders the rows, it hides nothing."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(examples=["30"])
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(examples=["32"])
    optimizer: OptimizerSpec = Field(examples=["{kind: sgd, learning_rate: 0.1, momentum: 0.9}"])
    schedule: ScheduleSpec = ConstantSchedule(kind="constant")
    gradient_clip: Annotated[Real, Field(gt=0, le=65536)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    early_stop: EarlyStopSpec | None = None
    batches_per_round: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of `epoch` (0, 1, ...), schedule included; equal on every machine."""
        return self.optimizer.learning_rate * self.schedule.multiplier(epoch)


class RevealSpec(Section):
    """Which numbers about the held-out rows are opened, and to whom."""

    metrics: Metrics = ()
    to: Recipients = ()


class OutputSpec(Section):
    """What becomes of the model: sealed to recipients, kept as shares, or opened to everybody."""

    sealed_to: Names | None = Field(None, examples=["[analyst]"])
    keep_shares: Name | None = Field(None, examples=["my-model"])
    open_to_all: Literal[True] | None = Field(None, examples=["true"])

    @property
    def kind(self) -> Outcome:
        """Which of the three it is."""
        if self.sealed_to is not None:
            return "sealed"
        return "open" if self.keep_shares is None else "kept"


class PrivacySpec(Section):
    """Noise in the weights, so that the model is (epsilon, delta)-differentially private.

    `sensitivity`: no row moves the weights further, in Euclidean norm, or the job is refused.
    """

    epsilon: Annotated[Real, Field(ge=0.001, le=100)] = Field(examples=["1.0"])
    delta: Annotated[Real, Field(ge=1e-15, le=0.01)] = Field(examples=["1e-6"])
    sensitivity: Annotated[Real, Field(gt=0, le=1e9)] | None = None


class JobSpec(Section):
    """A whole job file. See `docs/job.md`."""

    name: Name = Field(examples=["breast-cancer"])
    data: DataSpec = Field(examples=["{rows: [hospital-a, hospital-b], label: malignant}"])
    model: ModelSpec = Field(examples=["{kind: logistic_regression}"])
    training: TrainingSpec = Field(
        examples=["{epochs: 30, batch_size: 32, optimizer: {kind: sgd, learning_rate: 0.1}}"]
    )
    reveal: RevealSpec = RevealSpec()
    model_output: OutputSpec = Field(examples=["{sealed_to: [analyst]}"])
    privacy: PrivacySpec | None = None

    @property
    def shared(self) -> tuple[str, ...]:
        """Everything shared that the job reads: its data sets, then the model it starts from."""
        start = self.model.start_from if isinstance(self.model, SequentialSpec) else None
        return self.data.datasets + ((start,) if start is not None else ())

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everybody the job promises something to by name, sorted, without repeats."""
        named = {*self.reveal.to, *(self.model_output.sealed_to or ())} - {EVERYBODY}
        return tuple(sorted(named))


def load(path: str | PathLike[str]) -> JobSpec:
    """Read a job file. Raises SpecError naming file, line and field of every mistake in it."""
    return _checked(document.read(path))


def parse(text: str, name: str = "the job") -> JobSpec:
    """Read a job from YAML (or JSON) text; `name` is what errors call it. Raises SpecError."""
    return _checked(document.parse(text, name))


def from_values(values: Any, name: str = "the job") -> JobSpec:
    """A job from plain values (dicts, lists, numbers, text). Raises SpecError."""
    return _checked(document.Document(name, values, {}))


def _checked(source: document.Document) -> JobSpec:
    from masque.jobs.rules import complaints_about

    spec, complaints = validated(JobSpec, source)
    if spec is None:
        sections = _sections_that_hold(source.value)
    else:
        sections = {key: getattr(spec, key) for key in JobSpec.model_fields}
    complaints += complaints_about(sections)
    if spec is None or complaints:
        raise refusal(source, complaints)
    return spec


def _sections_that_hold(value: Any) -> dict[str, Section]:
    """The sections that are valid on their own, so that their rules can be checked as well."""
    kinds: dict[str, type[Section]] = {
        "data": DataSpec,
        "model": _model_class(value),
        "training": TrainingSpec,
        "reveal": RevealSpec,
        "model_output": OutputSpec,
        "privacy": PrivacySpec,
    }
    found: dict[str, Section] = {}
    for key, kind in kinds.items():
        if not isinstance(value, dict) or (key not in value and key != "reveal"):
            continue
        section, _ = validated(kind, document.Document("", value.get(key, {}), {}))
        if section is not None:
            found[key] = section
    return found


def _model_class(value: Any) -> type[Section]:
    """The alternative of `model` that a file has chosen."""
    model = value.get("model") if isinstance(value, dict) else None
    sequential = isinstance(model, dict) and model.get("kind") == "sequential"
    return SequentialSpec if sequential else LinearSpec


def _power(base: float, exponent: int) -> float:
    """`base ** exponent` by multiplications alone: the C library's `pow` differs by machine."""
    result = 1.0
    for _ in range(exponent):
        result *= base
    return result


__all__ = ["Complaint", "JobSpec", "from_values", "load", "parse"]
