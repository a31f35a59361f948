"""Networks on real services: training that goes on from a model, and training that diverges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from masque.client.network_model import NetworkModel
from masque.client.reading import read
from tests.client.shell import Shell
from tests.client.test_models_shared import network_job


def parameters(path: Path) -> Mapping[str, NDArray[np.float64]]:
    found = read(path)
    assert isinstance(found, NetworkModel)
    return found.parameters


def test_training_goes_on_where_a_model_ended(
    masque: Shell, profile: Path, shared: None, tmp_path: Path
) -> None:
    job, first, second = tmp_path / "job.yaml", tmp_path / "first.npz", tmp_path / "second.npz"
    job.write_text(network_job(3))
    assert masque("train", job, "--watch", "--id", "goes-on-1").code == 0
    assert masque("result", "goes-on-1", "--out", first).code == 0
    assert masque("share-model", first, "--as", "half-way").code == 0
    slow = network_job(1, start=", start_from: half-way")
    job.write_text(slow.replace("learning_rate: 0.2", "learning_rate: 0.000001"))
    answer = masque("train", job, "--watch", "--id", "goes-on-2")
    assert answer.code == 0, answer.err
    assert masque("result", "goes-on-2", "--out", second).code == 0
    before, after = parameters(first), parameters(second)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=1e-4)
    assert masque("delete", "half-way").code == 0


def test_training_that_diverges_ends_with_what_to_do(
    masque: Shell, profile: Path, shared: None, tmp_path: Path
) -> None:
    job = tmp_path / "wild.yaml"
    job.write_text(network_job().replace("learning_rate: 0.2", "learning_rate: 90"))
    answer = masque("train", job, "--watch", "--id", "wild")
    assert answer.code == 7
    assert answer.err.count("has failed") == 1
    assert "Training left its bounds (epoch 1 within bounds: no)" in answer.err
    assert "Lower training.optimizer.learning_rate" in answer.err
    assert masque("result", "wild").code == 7
    job.write_text(network_job())
    assert masque("train", job, "--watch").code == 0, "everybody stayed usable"
