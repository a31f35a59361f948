from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import SpecError
from masque.jobs.spec import JobSpec, from_values, load, parse
from tests.jobs.examples import MINIMAL, VALUES, job, values


def mistakes(text_or_values: Any) -> list[dict[str, Any]]:
    read: Any = parse if isinstance(text_or_values, str) else from_values
    with pytest.raises(SpecError) as caught:
        read(text_or_values, "job.yaml")
    found = caught.value.where["complaints"]
    assert isinstance(found, list)
    json.dumps(found)
    for mistake in found:
        assert mistake["problem"] in str(caught.value)
        assert mistake["cure"] in str(caught.value)
    return found


def only(text_or_values: Any) -> tuple[str, str]:
    found = mistakes(text_or_values)
    assert len(found) == 1, found
    return found[0]["field"], f"{found[0]['problem']}. {found[0]['cure']}".strip()


def test_the_minimal_job_of_the_readme(tmp_path: Any) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(MINIMAL)
    spec = load(path)
    assert spec == parse(MINIMAL) == from_values(VALUES) == job()
    assert spec.data.datasets == ("hospital-a", "hospital-b")
    assert spec.data.partition == "rows"
    assert spec.model_output.kind == "sealed"
    assert spec.recipients == ("analyst",)
    assert spec.training.learning_rate(29) == 0.1
    assert from_values(spec.model_dump(mode="json")) == spec
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("changes", "field", "part"),
    [
        ({"data__standardise": True}, "data.standardise", "Did you mean 'standardize'?"),
        ({"Reveal": {}}, "Reveal", "Did you mean 'reveal'?"),
        ({"model__kind": "logistic"}, "model.kind", "Did you mean 'logistic_regression'?"),
        ({"model__kind": "Logistic-Regression"}, "model.kind", "mean 'logistic_regression'?"),
        ({"model__kind": "svm"}, "model.kind", "Known: linear_regression, logistic_"),
        ({"model__kind": True}, "model.kind", "cannot be True"),
        ({"training__optimizer__kind": "lbfgs"}, "training.optimizer.kind", "Known: sgd, adam"),
        ({"training__learning_rate": 0.1}, "training.learning_rate", "in training.optimizer"),
        ({"data__seed": 3}, "data.seed", "It belongs in training"),
        ({"data__model_output": 3}, "data.model_output", "It belongs in the top of the file"),
        ({"zzz": 1}, "zzz", "is not a known key. Known: name, data"),
        ({"reveal__metrics": ["acuracy"]}, "reveal.metrics[0]", "Did you mean 'accuracy'?"),
        ({"reveal__to": "analyst"}, "reveal.to", "Write [analyst]."),
        ({"reveal__to": ["all", "analyst"]}, "reveal.to", "names beside all"),
        ({"reveal__to": []}, "reveal.to", "names nobody"),
        ({"reveal__metrics": []}, "reveal.metrics", "is empty"),
        ({"reveal__metrics": ["auc", "auc"]}, "reveal.metrics", "'auc' twice"),
        ({"reveal__metrics": ["r2"]}, "reveal.metrics[0]", "'r2' for a logistic_regression"),
        ({"reveal": None}, "reveal", "is empty. Give it a value or remove the line"),
        ({"data__rows": ["a b"]}, "data.rows[0]", "letters, digits"),
        ({"data__rows": ["a", "a"]}, "data.rows", "lists 'a' twice"),
        ({"data__rows": ...}, "data", "names no data set"),
        ({"data__rows": []}, "data.rows", "names no data set"),
        ({"data__columns": ["a"]}, "data", "both rows and columns"),
        ({"data__label": ""}, "data.label", "is empty"),
        ({"data__label": 3}, "data.label", "must be text, not 3"),
        ({"data__label": ...}, "data.label", "Add it, for example label: malignant"),
        ({"data__standardize": "yes"}, "data.standardize", "must be true or false, not 'yes'"),
        ({"data__holdout": 0.6}, "data.holdout", "at most 0.5, not 0.6"),
        ({"data__holdout": 0}, "data.holdout", "Add holdout: 0.2 to data"),
        ({"model__l2": float("nan")}, "model.l2", "finite number, not nan"),
        ({"model__l2": float("inf")}, "model.l2", "finite number"),
        ({"model__weight_bound": 1e9}, "model.weight_bound", "at most 65536"),
        ({"training__epochs": 0}, "training.epochs", "at least 1, not 0"),
        ({"training__epochs": 10_001}, "training.epochs", "at most 10000"),
        ({"training__epochs": 1.5}, "training.epochs", "must be a whole number, not 1.5"),
        ({"training__epochs": 2.0}, "training.epochs", "must be a whole number"),
        ({"training__epochs": True}, "training.epochs", "must be a whole number, not True"),
        ({"training__epochs": "30"}, "training.epochs", "must be a whole number, not '30'"),
        ({"training__batch_size": 0}, "training.batch_size", "at least 1"),
        ({"training__seed": -1}, "training.seed", "at least 0"),
        ({"training__seed": 2**63}, "training.seed", "at most 9223372036854775807"),
        ({"training__seed": 10**30}, "training.seed", "at most 9223372036854775807"),
        ({"training": 3}, "training", "must be a group of `key: value` lines, not 3"),
        ({"training": ...}, "training", "is missing. Add it, for example training: {"),
        (
            {"training__optimizer__learning_rate": 0},
            "training.optimizer.learning_rate",
            "more than 0, not 0",
        ),
        (
            {"training__optimizer__momentum": 1},
            "training.optimizer.momentum",
            "less than 1, not 1",
        ),
        ({"training__schedule": {"kind": "stp"}}, "training.schedule.kind", "mean 'step'?"),
        ({"training__schedule": {}}, "training.schedule", "has no kind. Known kinds: constant, st"),
        (
            {"training__schedule": {"kind": "step", "evry": 3}},
            "training.schedule.evry",
            "Did you mean 'every'?",
        ),
        (
            {"training__schedule": {"kind": "step"}},
            "training.schedule.every",
            "Add it, for example every: 10",
        ),
        (
            {"training__early_stop": {"metric": "squared_error"}},
            "training.early_stop.metric",
            "It can be log_loss",
        ),
        (
            {"training__early_stop": {"metric": "loss"}},
            "training.early_stop.metric",
            "Did you mean 'log_loss'?",
        ),
        ({"model_output": {}}, "model_output", "is empty. Give exactly one of"),
        (
            {"model_output__keep_shares": "m"},
            "model_output",
            "has sealed_to and keep_shares. Give exactly one",
        ),
        ({"model_output": {"open_to_all": False}}, "model_output.open_to_all", "cannot be False"),
        ({"model_output__sealed_to": []}, "model_output.sealed_to", "names nobody"),
        ({"model_output__sealed_to": ["all"]}, "model_output.sealed_to", "open_to_all: true"),
        ({"name": "x" * 65}, "name", "1 to 64 letters"),
        ({"name": "../etc"}, "name", "1 to 64 letters"),
        ({"name": "x\n"}, "name", "1 to 64 letters"),
    ],
)
def test_a_mistake_names_its_field_and_its_cure(
    changes: dict[str, Any], field: str, part: str
) -> None:
    where, text = only(values(**changes))
    assert where == field
    assert part in text


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    text = (
        MINIMAL.replace("standardize", "standardise")
        .replace("logistic_regression", "logistc_regression")
        .replace("learning_rate: 0.1", "learning_rate: -0.1")
        .replace("epochs", "epoch")
        .replace("model_output: {sealed_to: [analyst]}", "model_output: {}")
    )
    found = [(mistake["line"], mistake["field"]) for mistake in mistakes(text)]
    assert found == [
        (2, "data.standardise"),
        (3, "model.kind"),
        (5, "training.epoch"),
        (7, "training.optimizer.learning_rate"),
        (10, "model_output"),
    ]


def test_one_mistake_reads_as_one_sentence() -> None:
    with pytest.raises(SpecError) as caught:
        parse(MINIMAL.replace("auc", "acc"), "job.yaml")
    assert str(caught.value) == (
        "job.yaml, line 9: reveal.metrics[1] cannot be 'acc'. Did you mean 'auc'?"
    )
    assert caught.value.exit_code == 4
    assert caught.value.where["line"] == 9


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello", "[1, 2]", "---\n"])
def test_a_file_without_keys_says_what_it_needs(text: str) -> None:
    with pytest.raises(SpecError, match="It needs: name, data, model, training, model_output"):
        parse(text, "job.yaml")


def test_schedules() -> None:
    def rates(**schedule: Any) -> list[float]:
        training = job(training__schedule=schedule).training
        return [round(training.learning_rate(epoch), 12) for epoch in range(5)]

    assert rates(kind="constant") == [0.1] * 5
    assert rates(kind="step", every=2) == [0.1, 0.1, 0.05, 0.05, 0.025]
    assert rates(kind="exponential", factor=0.1) == [0.1, 0.01, 0.001, 0.0001, 0.00001]
    assert rates(kind="inverse_time", decay=1) == [0.1, 0.05, 0.033333333333, 0.025, 0.02]


def test_everybody_can_be_written_with_or_without_brackets() -> None:
    assert job(reveal__to="all") == job(reveal__to=["all"])
    assert job(reveal__to="all").recipients == ("analyst",)
    assert job(reveal__to="all", model_output={"open_to_all": True}).recipients == ()


@pytest.mark.parametrize("shuffled", [False, True])
def test_spelling_does_not_matter(shuffled: bool) -> None:
    text = yaml.safe_dump(VALUES, sort_keys=shuffled)
    respelt = text.replace("0.1\n", "1.0e-1  # a note\n").replace("0.2", "0.20")
    assert respelt != text
    assert parse(respelt) == job()


KEYS = st.sampled_from(
    "name data model training reveal model_output rows columns label kind l2 epochs to metrics "
    "optimizer schedule early_stop sealed_to keep_shares every factor holdout seed all x".split()
)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from("sgd step logistic_regression accuracy all constant analyst".split())
)
TREES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(TREES)
def test_no_values_raise_anything_but_spec_error(tree: Any) -> None:
    with suppress(SpecError):
        from_values(tree)


@given(st.data())
def test_no_change_of_a_good_job_raises_anything_but_spec_error(data: st.DataObject) -> None:
    changed = values()
    section: Any = changed
    while isinstance(section, dict) and section:
        key = data.draw(st.sampled_from(sorted(section)))
        if not isinstance(section[key], dict) or data.draw(st.booleans()):
            section[key] = data.draw(TREES)
            break
        section = section[key]
    text = json.dumps(changed)
    try:
        assert parse(text) == from_values(changed)
    except SpecError:
        with pytest.raises(SpecError):
            from_values(changed)


@given(st.dictionaries(st.text(), TREES, max_size=3))
def test_text_and_values_are_judged_alike(tree: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        parse(yaml.safe_dump(tree, allow_unicode=True), "job.yaml")


def test_many_mistakes_are_cut_short() -> None:
    with pytest.raises(SpecError) as caught:
        from_values(values(**{f"zzz{i}": 1 for i in range(100)}))
    assert str(caught.value).startswith("the job has 100 mistakes:")
    assert str(caught.value).endswith("and 80 more")
    assert len(str(caught.value).splitlines()) == 22


@pytest.mark.parametrize(
    "text",
    [
        '{"\\x1b[31mred": 1}',
        '{"name": "\\x1b[31mred"}',
        '{"reveal": {"to": "\\x1b[31mred"}}',
        '{"model": {"kind": "\\x1b[31m"}}',
        '{"training": {"schedule": {"kind": "\\x1b[31m"}}}',
        '{"a\\nb": {"\\u202e": 1}}',
    ],
)
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text, "job.yaml")
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    for mistake in caught.value.where["complaints"]:  # type: ignore[attr-defined]
        assert "".join(str(part) for part in mistake.values()).isprintable()


@pytest.mark.parametrize("value", [10**5000, -(10**5000)], ids=["plus", "minus"])
def test_numbers_of_thousands_of_digits(value: int) -> None:
    for path in ("training__seed", "training__epochs", "model__l2", "name", "data", "reveal__to"):
        with pytest.raises(SpecError):
            from_values(values(**{path: value}))


def test_endless_nesting() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    for path in ("training__seed", "model__l2", "name", "data", "reveal__to", "data__rows"):
        with pytest.raises(SpecError):
            from_values(values(**{path: nested}))
