from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.data.table import FeatureColumn, LabelInfo, describe
from masque.errors import ProtocolError, Refused, SpecError
from masque.jobs.bound import BoundJob, Recipient, read_bound
from masque.jobs.differences import difference
from masque.jobs.fit import SharedTable, Split
from masque.jobs.held import agreed_tables, check_held
from masque.jobs.spec import parse
from tests.jobs.examples import HOSPITALS, MINIMAL, bound, features, job, table

STAGE = LabelInfo(name="stage", kind="classes", classes=("i", "ii", "iii"))
PRICE = LabelInfo(name="price", kind="number", middle=50.0, half=50.0)


def refused(**changes: Any) -> str:
    spec = job(**changes.pop("spec", {}))
    with pytest.raises(SpecError) as caught:
        bound(spec, **changes)
    return str(caught.value)


def test_what_a_bound_job_says() -> None:
    made = bound()
    assert made.rows == 250
    assert made.split == Split(training=200, validation=0, holdout=50)
    assert [feature.name for feature in made.features] == ["age", "size"]
    assert made.label.classes == ("no", "yes")
    assert made.keys == {"analyst": "ab" * 32}
    assert [shared.name for shared in made.tables] == ["hospital-a", "hospital-b"]


def test_canonical_json_is_read_back_to_the_same_job() -> None:
    made = bound()
    assert read_bound(made.canonical(), "coordinator") == made
    assert read_bound(made.canonical().decode(), "coordinator").digest() == made.digest()
    assert len(made.digest()) == 32
    again = made.at_attempt(2)
    assert again.digest() != made.digest()
    assert again.subject() == made.subject()


def test_the_digest_is_a_golden_value() -> None:
    """If this changes, services of two versions refuse each other: raise the format's number."""
    assert bound().digest().hex() == (
        "8a816354ddef815ede18bf255a2fa35998bf0c894b5eff92291c41a9c154d8ac"
    )


@given(st.permutations(list(range(6))), st.booleans())
def test_the_digest_does_not_depend_on_spelling(order: list[int], noted: bool) -> None:
    optimizer = "{kind: sgd, learning_rate: 0.1, momentum: 0.9}"
    respelt = "{momentum: 9e-1, learning_rate: 0.10, kind: 'sgd'}"
    head, training, tail = MINIMAL.partition("training:")
    body, reveal, rest = tail.partition("reveal:")
    lines = [*head.splitlines(), training + body.replace(optimizer, respelt).rstrip()]
    lines += [(reveal + rest).splitlines()[0], (reveal + rest).splitlines()[1]]
    note = "  # a note\n" if noted else "\n"
    text = note.join(lines[position] for position in order) + "\n"
    assert bound(parse(text)).digest() == bound().digest()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list) and value:
        return [leaf for key, inner in enumerate(value) for leaf in leaves(inner, (*path, key))]
    return [path]


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return ["x"]


FULL = bound(
    job(
        training__schedule={"kind": "step", "every": 2},
        training__early_stop={"metric": "log_loss"},
        training__batches_per_round=2,
    )
)


@pytest.mark.parametrize("path", leaves(json.loads(FULL.canonical())), ids=str)
def test_every_field_changes_the_digest_and_is_named(path: tuple[Any, ...]) -> None:
    content = json.loads(FULL.canonical())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = changed(inner[path[-1]])
    other = rebuilt(content)
    assert other.canonical() != FULL.canonical()
    assert other.digest() != FULL.digest()
    told = difference(FULL, other)
    assert told
    last = next(key for key in reversed(path) if isinstance(key, str))
    assert last == "name" or any(last in line for line in told)
    assert difference(FULL, FULL) == []


def rebuilt(content: Any) -> BoundJob:
    """A bound job with these fields, whether or not they fit together."""

    class Raw(BoundJob):
        def model_dump(self, **options: Any) -> dict[str, Any]:
            exclude = options.get("exclude") or set()
            return {key: value for key, value in content.items() if key not in exclude}

    return Raw.model_construct(**content)


def test_differences_in_words() -> None:
    mine = bound()
    theirs = bound(job(model__l2=0.01, data__rows=["hospital-b", "hospital-a"]))
    assert difference(mine, theirs) == [
        "spec.data.rows is ['hospital-a', 'hospital-b'] here and ['hospital-b', 'hospital-a']"
        " there",
        "spec.model.l2 is 0.001 here and 0.01 there",
        "tables is in another order",
    ]
    swapped = [Recipient(name="analyst", key="ee" * 32)]
    assert difference(mine, bound(recipients=swapped)) == ["recipients[analyst].key differs"]
    other = bound(tables=[HOSPITALS[0], table("hospital-b", 151)])
    assert difference(mine, other) == ["tables[hospital-b].info.rows is 150 here and 151 there"]
    far = bound(
        job(name="x", training__seed=1, training__epochs=2, model__l2=1, data__holdout=0.3),
        client="someone",
    )
    told = difference(mine, far)
    assert len(told) == 6
    assert told[-1] == "and 1 more"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"tables": []}, "'hospital-a' is not a shared data set"),
        ({"tables": [HOSPITALS[0]]}, "data.rows[1] 'hospital-b' is not a shared data set. Did you"),
        ({"spec": {"data__label": "age"}}, "mark it as the label in the schema"),
        ({"spec": {"data__label": "x"}}, "The label there is 'malignant'"),
        ({"tables": [HOSPITALS[0], table("hospital-b", label=None)]}, "is not the label of 'hosp"),
        ({"recipients": []}, "names 'analyst', whose public key is not known. Register"),
        (
            {"spec": {"model_output__sealed_to": ["analist"]}},
            "names 'analist', whose public key is not known. Did you mean 'analyst'?",
        ),
        ({"parties": ["one"]}, "parties are 1"),
        ({"parties": ["one", "one"]}, "repeat the name 'one'"),
        ({"dealer": "party-0"}, "repeat the name 'party-0'"),
        ({"coordinator": "all"}, "cannot have the name 'all'"),
        ({"attempt": 0}, "attempt must be at least 1"),
        ({"job_id": ""}, "job_id cannot be ''"),
        (
            {"tables": [HOSPITALS[0], table("hospital-b", 9, "age", "bmi")]},
            "feature column 2 is 'size' in 'hospital-a' and 'bmi' in 'hospital-b'",
        ),
        (
            {"tables": [HOSPITALS[0], table("hospital-b", 9, "age")]},
            "'hospital-a' has 2 feature columns, 'hospital-b' has 1",
        ),
        ({"spec": {"training__batch_size": 201}}, "only 200 rows are left to train on. It can be"),
        (
            {"spec": {"training__batches_per_round": 8}},
            "is 8, but an epoch has 7 batches",
        ),
        (
            {
                "spec": {"training__epochs": 10_000, "training__batch_size": 1},
                "tables": [table("hospital-a", 10**6), HOSPITALS[1]],
            },
            "training.epochs makes 10000 x 800120 batches, which is more than 20000000",
        ),
        (
            {
                "spec": {
                    "training__epochs": 10_000,
                    "training__batch_size": 1,
                    "training__batches_per_round": 1,
                }
            },
            "training.batches_per_round makes 2000000 rounds, which is more than 50000",
        ),
        (
            {"spec": {"data__holdout": 0.005}},
            "leaves 1 of 250 rows to evaluate on",
        ),
        (
            {"spec": {"training__early_stop": {"metric": "log_loss", "validation": 0.005}}},
            "leaves 1 of 250 rows to validate on",
        ),
        (
            {"spec": {"model__kind": "softmax_regression", "reveal": {}}},
            "the label 'malignant' is binary. It can be logistic_regression",
        ),
        (
            {"spec": {"model__kind": "linear_regression", "reveal": {}}},
            "cannot be linear_regression",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], part: str) -> None:
    assert part in refused(**changes)


def test_a_differing_range_is_told() -> None:
    wide = SharedTable(
        name="hospital-b",
        upload="u",
        info=describe(9, features("age", "size", middle=40.0, half=40.0), HOSPITALS[0].info.label),
    )
    assert (
        "column 'age' has middle 0.0 in 'hospital-a' and 40.0 in 'hospital-b'. Share 'hospital-b'"
        " again with the schema of 'hospital-a'"
    ) in refused(tables=[HOSPITALS[0], wide])


def joined(*tables: SharedTable, **spec: Any) -> BoundJob:
    names = [shared.name for shared in tables]
    return bound(job(data__rows=..., data__columns=names, **spec), list(tables))


def test_columns_are_joined_in_order() -> None:
    bank, shop = table("bank", 100, "income"), table("shop", 100, "spent", "visits", label=None)
    made = joined(shop, bank)
    assert [feature.name for feature in made.features] == ["spent", "visits", "income"]
    assert made.rows == 100
    assert made.label.name == "malignant"


@pytest.mark.parametrize(
    ("other", "part"),
    [
        (table("shop", 99, "spent", label=None), "shop' is not"),
        (table("shop", 99, "spent", label=None), "has 99 rows, but 'bank' has 100"),
        (table("shop", 100, "income", label=None), "has the column 'income' that 'bank' has"),
        (table("shop", 100, "spent"), "is in 'bank' and 'shop'. Share it in one"),
        (table("shop", 100, "spent", label=STAGE), "has the label 'stage' besides"),
        (table("shop", 100, "spent", label=None, identifiers=True), "'shop' was shared with ident"),
    ],
)
def test_columns_that_do_not_join_are_refused(other: SharedTable, part: str) -> None:
    if part == "shop' is not":
        with pytest.raises(SpecError, match="'malignant' is not the label of 'other', 'shop'"):
            joined(table("other", 99, "x", label=None), other)
        return
    with pytest.raises(SpecError) as caught:
        joined(table("bank", 100, "income"), other)
    assert part in str(caught.value)


def test_other_models_fit_other_labels() -> None:
    stages = [table("hospital-a", label=STAGE), table("hospital-b", label=STAGE)]
    softmax = {"model__kind": "softmax_regression", "data__label": "stage"}
    assert bound(job(**softmax, reveal__metrics=["accuracy"]), stages).label.columns == 3
    prices = [table("hospital-a", label=PRICE), table("hospital-b", label=PRICE)]
    linear = {"model__kind": "linear_regression", "data__label": "price"}
    assert bound(job(**linear, reveal__metrics=["r2"]), prices).label.columns == 1


def test_a_job_from_a_lying_coordinator_is_refused() -> None:
    honest = bound()

    def sent(content: Any) -> str:
        raw = json.dumps(content, sort_keys=True, separators=(",", ":"))
        with pytest.raises(ProtocolError) as caught:
            read_bound(raw, "coordinator")
        assert caught.value.where["peer"] == "coordinator"
        return str(caught.value)

    def change(*path: Any, to: Any) -> Any:
        content = json.loads(honest.canonical())
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return content

    assert "spec.training.epochs" in sent(change("spec", "training", "epochs", to="30"))
    assert "extra" in sent(change("spec", "surprise", to=1)).lower()
    assert "data.holdout is 0" in sent(change("spec", "data", "holdout", to=0.0))
    assert "parties repeat" in sent(change("parties", to=["a", "a"]))
    assert "recipients are not those" in sent(change("recipients", to=[]))
    assert "tables are not the data sets" in sent(change("tables", to=[]))
    assert "schema_digest" in sent(change("tables", 0, "info", "schema_digest", to="0" * 64))
    assert "canonical" in sent(change("spec", "model", "l2", to=0))
    with pytest.raises(ProtocolError, match="canonical"):
        read_bound(honest.canonical() + b"\n", "coordinator")
    with pytest.raises(ProtocolError, match="canonical"):
        read_bound(honest.canonical().replace(b'"attempt":1,', b'"attempt":1,"attempt":1,'), "c")


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_raise_anything_but_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_bound(raw, "coordinator")
    with pytest.raises(ProtocolError):
        read_bound(raw.decode("utf-8", "surrogateescape"), "coordinator")


@given(st.integers(1, 10_000), st.floats(0, 0.5), st.floats(0.001, 0.5))
def test_every_row_is_for_one_thing(rows: int, holdout: float, validation: float) -> None:
    spec = job(
        reveal={},
        data__holdout=holdout,
        training__early_stop={"metric": "log_loss", "validation": validation},
        training__batch_size=1,
    )
    try:
        made = bound(spec, [table("hospital-a", rows), table("hospital-b", 1)])
    except SpecError:
        return
    split = made.split
    assert split.rows == rows + 1
    assert split.training >= 1
    assert split.validation >= 2
    assert abs(split.holdout - holdout * (rows + 1)) <= 0.5


def test_a_party_checks_what_it_holds() -> None:
    made = bound()
    check_held(made, [*HOSPITALS, table("more")], "party-0")
    with pytest.raises(Refused, match="party-0 does not hold the data set 'hospital-b'"):
        check_held(made, HOSPITALS[:1], "party-0")
    with pytest.raises(Refused, match="another upload of the data set 'hospital-b' than job job-1"):
        check_held(made, [HOSPITALS[0], table("hospital-b", 150, upload="new")], "party-0")
    with pytest.raises(Refused, match="with another description than job"):
        check_held(made, [HOSPITALS[0], table("hospital-b", 151)], "party-0")


def test_only_data_sets_that_all_parties_hold_alike_are_offered() -> None:
    a, b = HOSPITALS
    tables, problems = agreed_tables(
        {"p0": [a, b, table("c")], "p1": [a, table("hospital-b", 150, upload="new")]}
    )
    assert tables == [a]
    assert problems == [
        "'c' is not at p1; share it again",
        "'hospital-b' at p1 is another upload than at p0; share it again",
    ]
    assert agreed_tables({}) == ([], [])


def test_a_feature_named_like_a_path_is_still_told_apart() -> None:
    odd = FeatureColumn(name="a].b[c", source="a].b[c", kind="number")
    tables = [
        SharedTable(name=name, upload="u", info=describe(100, (odd,), HOSPITALS[0].info.label))
        for name in ("hospital-a", "hospital-b")
    ]
    assert difference(bound(tables=tables), bound())
