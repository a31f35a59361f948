"""Jobs that start from a model: what fits, what is refused, what training gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from masque.data.table import LabelInfo, TableInfo, describe_model, parse_table
from masque.errors import DataError, ProtocolError, Refused, SpecError
from masque.jobs import policy
from masque.jobs.bound import BoundJob, read_bound
from masque.jobs.compile import compile_job, task_of
from masque.jobs.fit import SharedTable
from masque.jobs.held import check_held
from masque.jobs.limits import Case
from masque.jobs.networks import network_of
from masque.jobs.spec import from_values
from masque.jobs.starting import columns_of, model_info
from masque.ml.task import Table
from tests.jobs import examples
from tests.jobs.test_networks import PRICE, model_of, values
from tests.jobs.test_spec import only

LAYERS: list[Any] = [
    {"kind": "dense", "units": 3},
    *("batch_norm", "relu"),
    {"kind": "dropout", "rate": 0.5},
    {"kind": "dense", "units": 1},
]
SIZE = 2 * 3 + 3 + 4 * 3 + 3 + 1
TABLES = [examples.table("hospital-a"), examples.table("hospital-b", 150)]


def of_job(layers: list[Any] = LAYERS, rows: int = SIZE, **changes: Any) -> SharedTable:
    """The model that a job on the hospitals puts out, as a data set `first`."""
    spec = from_values(values(model__layers=layers))
    network = network_of(model_of(spec), 2)
    what: dict[str, Any] = {
        "columns": columns_of(TABLES[0].info.features),
        "label": examples.LABEL,
        "standardized": True,
    }
    info = describe_model(rows, model_info(network, **what | changes))
    return SharedTable(name="first", upload="upload-of-first", info=info)


def started(
    start: SharedTable | None = None, layers: list[Any] = LAYERS, **changes: Any
) -> BoundJob:
    job = from_values(values(model__layers=layers, model__start_from="first", **changes))
    return examples.bound(job, [*TABLES, start or of_job()])


def refused(start: SharedTable | None = None, layers: Any = LAYERS, **changes: Any) -> str:
    with pytest.raises(SpecError) as caught:
        started(start, layers, **changes)
    assert "model.start_from" in str(caught.value)
    return str(caught.value)


def test_training_gets_a_table_of_parameters() -> None:
    job = started()
    assert job.tables == tuple(TABLES)
    assert job.start == of_job()
    assert [table.name for table in job.shared] == ["hospital-a", "hospital-b", "first"]
    task = task_of(job)
    assert task.start == Table("first", SIZE, 1, 0)
    assert [table.name for table in task.tables] == ["hospital-a", "hospital-b"]
    assert (job.rows, task.rows, task.features) == (250, 250, 2)
    plain = examples.bound(from_values(values(model__layers=LAYERS)), TABLES)
    assert plain.start is None
    assert task_of(plain).start is None
    assert job.digest() != plain.digest()


def test_the_program_reads_the_model() -> None:
    program = compile_job(started(training__epochs=1))
    read = program.inputs["first"]
    assert (read.dataset, read.rows, read.columns, read.scale) == ("first", SIZE, 1, 24)


def test_a_bound_job_is_read_back_with_its_model() -> None:
    job = started()
    assert read_bound(job.canonical(), "coordinator") == job
    content = json.loads(job.canonical())
    other = of_job(standardized=False).model_dump(mode="json")
    for bad in (None, other, content["tables"][0], {**content["start"], "name": "second"}):
        text = json.dumps(content | {"start": bad}, sort_keys=True, separators=(",", ":"))
        with pytest.raises(ProtocolError):
            read_bound(text, "coordinator")
    linear = json.loads(examples.bound().canonical()) | {"start": content["start"]}
    with pytest.raises(ProtocolError, match="is not the model that the job starts from"):
        read_bound(json.dumps(linear, sort_keys=True, separators=(",", ":")), "coordinator")


def test_dropout_and_the_pace_of_moments_may_change() -> None:
    slower = [{"kind": "batch_norm", "momentum": 0.5} if x == "batch_norm" else x for x in LAYERS]
    less = [*LAYERS[:3], {"kind": "dropout", "rate": 0.1}, LAYERS[4]]
    for layers in ([*LAYERS[:3], LAYERS[4]], less, slower):
        assert task_of(started(layers=layers)).start is not None
    finer = [{"kind": "batch_norm", "epsilon": 0.01} if x == "batch_norm" else x for x in LAYERS]
    text = refused(layers=finer)
    assert "layer 1, not counting dropout, is {epsilon: 0.001, kind: batch_norm}" in text


def test_models_that_do_not_fit() -> None:
    tanh = [x if x != "relu" else "tanh" for x in LAYERS]
    other = "is another network: layer 2, not counting dropout, is {kind: relu}, this job's {kind:"
    assert other in refused(layers=tanh)
    longer = [*LAYERS, {"kind": "dense", "units": 1}]
    assert "it has 4 layers besides dropout, this job's has 5" in refused(layers=longer)
    shaped = refused(model__input_shape=[1, 1, 2], layers=["flatten", *LAYERS])
    assert "it reads [2], this job's [1, 1, 2]" in shaped
    assert "another network: it has 24 parameters" in refused(of_job(rows=SIZE - 1))
    assert "was trained on columns that were standardized" in refused(data__standardize=False)
    assert "Write standardize: true." in refused(data__standardize=False)
    late = of_job(standardized=False)
    assert "was trained on columns that were not standardized" in refused(late)
    wide = columns_of(examples.features("age", "size", half=2.0))
    assert "other columns, or columns with other ranges" in refused(of_job(columns=wide))
    assert "was trained on another label" in refused(of_job(label=PRICE))
    swapped = LabelInfo(name="malignant", kind="binary", classes=("yes", "no"))
    assert "was trained on another label" in refused(of_job(label=swapped))
    data = examples.table("first")
    assert "'first' is a data set, not a model. Name one that was" in refused(data)


NESTED = "[" * 60_000


@pytest.mark.parametrize(
    "architecture", [NESTED, '{"input_shape":' + NESTED, "9" * 5000, "[]", "", "{}", "null"]
)
def test_a_description_that_cannot_be_read_is_a_mistake_of_its_field(architecture: str) -> None:
    """It is a client's text, which coordinator, dealer and parties all read."""
    good = of_job()
    assert good.info.model is not None
    model = good.info.model.model_copy(update={"architecture": architecture})
    bad = good.model_copy(update={"info": good.info.model_copy(update={"model": model})})
    assert "another network: its description cannot be read" in refused(bad)
    content = started().model_copy(update={"start": bad})
    with pytest.raises(ProtocolError, match=r"model\.start_from 'first' is another network"):
        read_bound(content.canonical(), "coordinator")


def test_a_model_is_no_data_set() -> None:
    data = from_values(values(data__rows=["hospital-a", "first"]))
    with pytest.raises(SpecError, match="'first' is a model, not a data set"):
        examples.bound(data, [*TABLES, of_job()])


def test_a_model_that_is_not_shared() -> None:
    job = from_values(values(model__start_from="frist"))
    with pytest.raises(SpecError, match="'frist' is not shared"):
        examples.bound(job, [*TABLES, of_job()])


def test_only_networks_start_from_models() -> None:
    linear = {"kind": "logistic_regression", "start_from": "first"}
    where, text = only(values(model=linear))
    assert where == "model.start_from"
    assert "It is one of sequential." in text
    assert only(values(model__start_from="a b"))[0] == "model.start_from"


def test_parties_must_hold_the_model() -> None:
    job = started()
    check_held(job, [*TABLES, of_job()], "party-0")
    with pytest.raises(Refused, match="party-0 does not hold the data set 'first'"):
        check_held(job, TABLES, "party-0")
    again = of_job().model_copy(update={"upload": "another"})
    with pytest.raises(Refused, match="holds another upload of the data set 'first'"):
        check_held(job, [*TABLES, again], "party-0")
    policy.parse("minimum_rows: 100").check(Case(job, []), "party-0")  # parameters are no rows


@pytest.mark.parametrize(
    "change",
    [
        {"features": [{"name": "x", "source": "x", "kind": "number"}]},
        {"has_identifiers": True},
        {"model": {"architecture": "{}"}},
        {"label": {"name": "y", "kind": "number"}},
    ],
    ids=str,
)
def test_descriptions_of_models_are_checked(change: dict[str, Any]) -> None:
    info = of_job().info
    assert parse_table(info.model_dump_json()) == info
    with pytest.raises(DataError):
        parse_table(json.dumps(json.loads(info.model_dump_json()) | change))
    assert isinstance(info, TableInfo)


def test_an_architecture_that_is_no_json_is_another_network() -> None:
    info = of_job().info
    assert info.model is not None
    strange = info.model.model_copy(update={"architecture": '{"layers": 3}'})
    table = of_job().model_copy(update={"info": info.model_copy(update={"model": strange})})
    assert "is another network: its description cannot be read" in refused(table)
