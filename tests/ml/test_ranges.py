"""What bounds the values of a step: told of every layer, and warned of where it is tight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from masque.errors import RangeError
from masque.ml.network import NETWORKS, Adam, Network, Sgd
from masque.ml.ranges import FEW, RING_BITS, USUAL_WEIGHTS, ranges
from masque.ml.task import Kind, Table, Task
from masque.ml.training import build
from masque.mpc.cost import cost


def task(kind: Kind = "softmax", name: str | None = None, **changes: object) -> Task:
    """Of 784 columns within +-1, trained by the network `name` or a linear model."""
    made = Task(
        name="t",
        parties=2,
        kind=kind,
        tables=(Table("images", 256, 784, 10 if kind == "softmax" else 1),),
        stacked=True,
        feature_bounds=(1.0,) * 784,
        training_rows=256,
        validation_rows=0,
        holdout_rows=0,
        learning_rates=(0.01,),
        batch_size=128,
        model_to=("analyst",),
    )
    if name is not None:
        shape, layers = NETWORKS[name]
        made = replace(made, network=Network(shape, layers), optimizer=Sgd(), weight_bound=8.0)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_network_is_told_of(name: str) -> None:
    found = ranges(task(name=name))
    layers = NETWORKS[name][1]
    assert found.layers == tuple(layer.kind for layer in layers)
    told = {(entry.layer, entry.what) for entry in found.found}
    for index, layer in enumerate(layers):
        assert {(index, "values"), (index, "gradient")} <= told
        if layer.kind in ("dense", "conv2d"):
            assert {(index, "weight"), (index, "step of weight")} <= told
    limits = {limit for entry in found.found for _, limit in entry.checks}
    assert {8.0, 64.0} <= limits, "weights and gradients are checked"
    for entry in found.found:
        assert 0 < entry.bits <= RING_BITS
        assert all(shift <= width for shift, width in entry.cuts)


@pytest.mark.parametrize("made", [task(name="a"), task(), task("linear"), task("logistic")])
def test_no_round_has_wider_numbers_than_the_ring_or_fewer_than_a_step(made: Task) -> None:
    rounds = {part.name: part.bits for part in cost(build(made)).rounds_by_name}
    assert all(0 <= bits <= RING_BITS for bits in rounds.values())
    assert rounds["epoch 1"] >= ranges(made).bits - 1e-9


def test_linear_models_are_told_of() -> None:
    made = ranges(task())
    assert made.layers == ()
    assert [entry.what for entry in made.found] == [
        "design matrix", "weights", "scores", "residuals", "gradient", "weights after a step",
    ]  # fmt: skip
    assert made.found[0].largest == pytest.approx(1.0, abs=1e-3)
    assert made.concerns == ()


def test_coarse_weights_are_warned_of() -> None:
    fine, coarse = (ranges(task(name="a", learning_rates=(rate,))) for rate in (0.01, 5.0))
    assert fine.concerns == ()
    (concern,) = coarse.concerns
    assert concern.field == "training.optimizer.learning_rate"
    assert concern.layer is not None
    assert f"instead of {USUAL_WEIGHTS} or more" in concern.message
    assert f"of layer {concern.layer} (dense)" in concern.message
    cured = replace(task(name="a", learning_rates=(5.0,)), gradient_clip=0.01)
    assert ranges(cured).concerns == (), "as the gradients are kept small"


def test_steps_of_adam_are_short_whatever_the_gradients() -> None:
    assert ranges(task(name="a", optimizer=Adam())).concerns == ()


def test_what_is_tight_is_warned_of() -> None:
    made = task(name="b", optimizer=Adam())
    assert made.network is not None
    network = replace(
        made.network, activation_bound=128.0, gradient_bound=4096.0, weight_bound=64.0
    )
    found = ranges(replace(made, network=network))
    tight = {(e.layer, e.what) for e in found.found if RING_BITS - e.bits < FEW}
    assert (3, "gradient of weight") in tight
    (told,) = [c for c in found.concerns if (c.layer, c.field) == (3, "model.gradient_bound")]
    assert told.message.startswith("Only 0.4 of the ring's 62 bits are left by the gradient")


def test_scales_of_linear_models_that_are_lowered_are_warned_of() -> None:
    found = ranges(task("linear", weight_bound=65536.0, learning_rates=(1e-6,)))
    assert [concern.field for concern in found.concerns] == [
        "model.weight_bound",
        "training.batch_size",
    ]


def test_a_network_without_room_is_refused_by_layer() -> None:
    made = task(name="c", learning_rates=(100.0,))
    assert made.network is not None
    wide = replace(made.network, gradient_bound=65536.0, weight_bound=1024.0)
    with pytest.raises(RangeError, match=r"this network \(layer \d\): ") as caught:
        build(replace(made, network=wide))
    assert str(caught.value.where["field"]).startswith("model.")
    assert isinstance(caught.value.where["layer"], int)
