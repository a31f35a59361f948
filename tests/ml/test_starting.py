"""Training that goes on from a shared model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from masque.errors import Refused
from masque.ml.layers import BatchNorm, Conv2d, Dense, Flatten, Relu
from masque.ml.network import Network
from masque.ml.task import Table, Task
from masque.mpc.types import Ring
from tests.ml.examples import DATA_SCALE, Reals, dataset, plainly, task, together

NETWORK = Network(
    (1, 8, 8),
    (Conv2d(2, (3, 3), stride=(2, 2)), BatchNorm(), Relu(), Flatten(), Dense(10)),
)


def started(values: Reals, **changes: Any) -> tuple[Task, dict[str, Ring]]:
    """A task that starts from these numbers, and its inputs besides the data."""
    words = np.rint(values * 2.0**DATA_SCALE).astype(np.int64).view(np.uint64).reshape(-1, 1)
    fields = {"network": NETWORK, "learning_rates": (1e-7,), "batch_size": 256} | changes
    job = task("digits", start=Table("model", len(words), 1, 0), **fields)
    return job, {"model": words}


def model(seed: int, size: float = 0.2) -> dict[str, Reals]:
    """Made-up parameters; variances are not negative."""
    random = np.random.default_rng(seed)
    found = {
        name: random.normal(0, size, parameter.shape).clip(-3 * size, 3 * size)
        for name, parameter in NETWORK.parameters().items()
    }
    return found | {"1.variance": np.abs(found["1.variance"]) + 0.1}


def flat(parameters: dict[str, Reals]) -> Reals:
    return np.concatenate([value.reshape(-1) for value in parameters.values()])


def test_it_starts_where_the_model_ended() -> None:
    given = model(1)
    job, inputs = started(flat(given))
    result = plainly(job, dataset("digits"), **inputs)
    for name, value in given.items():
        if "mean" in name or "variance" in name:
            continue  # these follow the batches, however slow the rest is
        np.testing.assert_allclose(result.outputs[name], value, atol=2e-5)


def test_parties_start_there_too() -> None:
    given = model(2)
    job, inputs = started(flat(given), parties=3)
    result, _ = together(job, dataset("digits"), **inputs)
    np.testing.assert_allclose(result.outputs["4.weight"], given["4.weight"], atol=3e-5)


@pytest.mark.parametrize("weight", [9.0, -1000.0])
def test_a_model_beyond_the_bounds_of_the_job_is_refused(weight: float) -> None:
    given = model(3)
    given["4.weight"][7, 3] = weight
    job, inputs = started(flat(given))
    with pytest.raises(Refused, match="within bounds"):
        together(job, dataset("digits"), **inputs)
