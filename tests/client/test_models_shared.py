"""A network trained, fetched, shared again as a model, and named by a job that starts from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from masque.client import export
from masque.client.model import Model
from masque.client.models_shared import ROWS, ModelStream, described, flattened, network_in
from masque.client.network_model import NetworkModel, network_model
from masque.client.planning import bound_for_planning, tables_of
from masque.client.reading import read
from masque.data.encode import from_fixed, to_fixed
from masque.data.schema import load
from masque.data.table import TableInfo
from masque.errors import InputError
from masque.jobs.compile import task_of
from masque.jobs.networks import network_of
from masque.jobs.spec import parse
from masque.ml.layers import BatchNorm, Dense, Relu
from masque.ml.network import Network
from masque.ml.task import Table
from masque.mpc import prg, sharing
from tests.client.networks import SCHEMA, job_text
from tests.client.shell import Shell
from tests.client.test_network_model import parameters

LAYERS = "[{kind: dense, units: 4}, relu, {kind: dense, units: 1}]"
SIZE = 2 * 4 + 4 + 4 + 1


def network_job(epochs: int = 2, start: str = "") -> str:
    model = f"{{kind: sequential, layers: {LAYERS}{start}}}"
    text = job_text(epochs).replace("{kind: logistic_regression}", model)
    return text.replace("learning_rate: 0.5", "learning_rate: 0.2")


def schema_info(tmp_path: Path) -> TableInfo:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    return load(tmp_path / "schema.yaml").describe(60)


def model(tmp_path: Path, layers: Network | None = None) -> NetworkModel:
    """A made-up network on the columns of the small data sets."""
    info = schema_info(tmp_path)
    network = layers or Network((2,), (Dense(4), Relu(), Dense(1)))
    values = parameters(network, np.random.default_rng(0))
    assert info.label is not None
    return network_model(network, info.features, info.label, values)


def test_the_shares_join_to_the_parameters_in_order(tmp_path: Path) -> None:
    layers = (Dense(9), BatchNorm(), Relu(), Dense(1, bias=False))
    made = model(tmp_path, Network((2,), layers))
    made.parameters["1.variance"][3] = 1000.0
    flat = flattened(made, "m.npz")
    info = described(made, "m.npz")
    assert info.rows == 9 * 2 + 9 + 4 * 9 + 9 == len(flat)
    stream = ModelStream(info, 3, prg.reader(bytes(prg.SEED_SIZE)), to_fixed(flat))
    chunks = list(stream.chunks())
    joined = np.concatenate([sharing.join(chunk.shares) for chunk in chunks])
    found = from_fixed(joined)[:, 0]
    assert np.abs(found - flat).max() <= 2.0**-25
    at = 0
    for name, parameter in made.network.parameters().items():
        size = made.parameters[name].size
        again = found[at : at + size].reshape(parameter.shape)
        assert np.allclose(again, made.parameters[name], atol=1e-7)
        at += size


def test_a_large_model_comes_in_chunks(tmp_path: Path) -> None:
    info = described(model(tmp_path), "m.npz").model_copy(update={"rows": 2 * ROWS + 5})
    words = np.arange(2 * ROWS + 5, dtype=np.uint64)
    chunks = list(ModelStream(info, 2, prg.reader(bytes(prg.SEED_SIZE)), words).chunks())
    assert [(c.first_row, c.rows) for c in chunks] == [(0, ROWS), (ROWS, ROWS), (2 * ROWS, 5)]
    joined = np.concatenate([sharing.join(chunk.shares) for chunk in chunks])
    assert (joined[:, 0] == words).all()


def test_what_cannot_be_shared(tmp_path: Path) -> None:
    made = model(tmp_path)
    for value, said in ((np.nan, "not a number"), (-np.inf, "not a number"), (1025.0, "beyond ±")):
        bad = {name: array.copy() for name, array in made.parameters.items()}
        bad["2.bias"][0] = value
        broken = NetworkModel(**{**vars(made), "parameters": bad})
        for suffix in ("npz", "json", "safetensors"):
            export.write(broken, tmp_path / f"bad.{suffix}")
            again = network_in(tmp_path / f"bad.{suffix}")
            with pytest.raises(InputError, match=rf"parameter 2\.bias is .*{said}"):
                flattened(again, "bad")
    linear = Model("linear_regression", ("x",), "y", (), np.ones((1, 1)), np.ones(1))
    export.write(linear, tmp_path / "linear.json")
    with pytest.raises(InputError, match="holds a linear_regression, and training can start from"):
        network_in(tmp_path / "linear.json")
    content = json.loads((tmp_path / "bad.json").read_text()) | {"middle": [float("nan"), 0.0]}
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not a model that Masque wrote"):
        network_in(tmp_path / "bad.json")
    with pytest.raises(InputError, match="its label cannot be that of a data set"):
        described(NetworkModel(**{**vars(made), "label": ""}), "m.npz")


def test_a_model_that_a_plan_names(tmp_path: Path) -> None:
    made = model(tmp_path)
    export.write(made, tmp_path / "model.npz")
    schema = tmp_path / "schema.yaml"
    tables = tables_of([f"left={schema}:60", f"right={schema}:60", f"m={tmp_path / 'model.npz'}"])
    job = bound_for_planning(parse(network_job(start=", start_from: m")), tables, 2)
    assert job.start is not None
    assert job.start.info == described(made, "model.npz")
    assert task_of(job).start == Table("m", SIZE, 1, 0)
    with pytest.raises(InputError, match="No such file"):
        tables_of([f"m={tmp_path / 'none.npz'}"])


def test_from_a_job_to_a_job_that_starts_from_it(
    masque: Shell, profile: Path, shared: None, tmp_path: Path
) -> None:
    first = tmp_path / "first.yaml"
    first.write_text(network_job())
    answer = masque("train", first, "--watch", "--id", "network-first")
    assert answer.code == 0, answer.err
    path = tmp_path / "model.npz"
    answer = masque("result", "network-first", "--out", path)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[1].split() == ["layer", "kind", "a", "row", "parameters"]
    assert lines[2].split() == ["0", "dense", "4", "12"]
    assert lines[5].split() == ["all", str(SIZE)]
    found = read(path)
    assert isinstance(found, NetworkModel)
    spec = parse(network_job()).model
    assert found.network == network_of(spec, 2)  # type: ignore[arg-type]
    content = masque("result", "network-first", "--json").json["model"]
    assert content["0.weight"] == found.parameters["0.weight"].tolist()

    answer = masque("share-model", path, "--as", "network-model", "--replace")
    assert answer.out == (
        f"network-model: a model of {SIZE} parameters;"
        f" {SIZE * 8} B of random numbers to each of party-1, party-2\n"
    )
    answer = masque("share-model", path, "--as", "network-model", "--json")
    assert (answer.code, answer.json["error"]["kind"]) == (8, "Conflict")
    listed = {d["name"]: d["table"] for d in masque("datasets", "--json").json["datasets"]}
    assert (listed["network-model"]["rows"], listed["left"]["model"]) == (SIZE, None)
    assert "(a model)" in masque("datasets").out

    data = tmp_path / "data.yaml"
    data.write_text(network_job().replace("right]", "network-model]"))
    assert "is a model, not a data set" in masque("train", data).err
    wrong = tmp_path / "wrong.yaml"
    start = ", start_from: network-model"
    wrong.write_text(network_job(start=start).replace("relu", "tanh"))
    answer = masque("train", wrong)
    assert answer.code == 4
    assert "layer 1, not counting dropout, is {kind: relu}, this job's {kind: tanh}" in answer.err
    wrong.write_text(network_job(start=", start_from: left"))
    assert "'left' is a data set, not a model" in masque("train", wrong).err
    wrong.write_text(network_job(start=", start_from: netwrk-model"))
    assert "is not shared. Did you mean 'network-model'?" in masque("train", wrong).err

    rules = tmp_path / "conditions.yaml"
    rules.write_text("clients: [somebody]")
    again = ("share-model", path, "--as", "network-model", "--replace")
    assert masque(*again, "--conditions", rules).code == 0
    wrong.write_text(network_job(start=start))
    answer = masque("train", wrong)
    assert answer.code == 4
    assert "conditions of 'analyst' for the data set 'network-model' do not allow" in answer.err
    assert masque(*again).code == 8, "they would be lost"
    assert masque("delete", "network-model").code == 0
