"""Membership inference: a model that learned rows by heart is told, a private one is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from masque.client import audit, export
from masque.client.model import Model
from masque.client.predictor import Target
from masque.ml.privacy import advantage_bound
from masque.ml.task import Privacy, Task
from masque.ml.training import build
from masque.mpc import prg
from masque.mpc.gaussian import discrete_gaussian
from masque.mpc.plain import Plain
from tests.client.shell import Shell
from tests.ml.examples import encoded, real, task_on

Reals = NDArray[np.float64]
ROWS, FEATURES = 120, 100


def population(seed: int, rows: int = ROWS) -> Reals:
    """Rows with labels that follow from nothing: whatever is learned is learned by heart."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (rows, FEATURES))
    return np.hstack([x, rng.integers(0, 2, (rows, 1)).astype(np.float64)])


def trained(table: Reals, task: Task, seed: int = 0) -> Model:
    """The model of a task, trained in the clear, with the noise of one party if there is any."""
    program, clear = build(task), encoded(task, table)
    read = prg.reader(prg.derive(bytes(32), "tests of audits", seed))
    plain = Plain(
        program,
        lambda name, rows: clear[name][rows],
        lambda sigma, shape: discrete_gaussian(sigma, shape, lambda n: bytes(read(n))),
    )
    plain.run_program()
    found = {name: real(program, name, plain.output(name)) for name in program.outputs}
    names = tuple(f"f{i}" for i in range(FEATURES))
    return Model(
        "logistic_regression", names, "y", ("no", "yes"), found["weights"], found["intercept"]
    )


def by_heart(table: Reals) -> Model:
    rates = (2.0,) * 60
    return trained(table, task_on(table, "logistic", 1, learning_rates=rates, batch_size=ROWS))


def privately(table: Reals, seed: int) -> Model:
    task = task_on(
        table,
        "logistic",
        1,
        learning_rates=(0.03,) * 20,
        batch_size=ROWS,
        l2=0.1,
        privacy=Privacy(1.0, 1e-6, FEATURES**0.5),
    )
    return trained(table, task, seed)


def written(path: Path, table: Reals) -> Path:
    head = ",".join([*(f"f{i}" for i in range(FEATURES)), "y"])
    lines = [
        ",".join([*(repr(float(v)) for v in row[:-1]), "yes" if row[-1] else "no"]) for row in table
    ]
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A schema, members, non-members, and what was learned of the members by heart."""
    folder = tmp_path_factory.mktemp("audit")
    columns = "\n".join(f"  f{i}: {{type: number, range: [-1, 1]}}" for i in range(FEATURES))
    (folder / "schema.yaml").write_text(
        f"table: t\ncolumns:\n{columns}\n"
        "label: {column: y, type: binary, classes: [no, yes], positive: yes}\n"
    )
    written(folder / "members.csv", population(1))
    written(folder / "others.csv", population(2, 200))
    export.write(by_heart(population(1)), folder / "by-heart.json")
    return folder


def audited(place: Path, model: Model, members: str = "members.csv") -> audit.Audit:
    return audit.audit(model, place / members, place / "others.csv", place / "schema.yaml")


def test_a_model_that_learned_by_heart_is_told(place: Path) -> None:
    found = audited(place, by_heart(population(1)))
    assert (found.members, found.nonmembers, found.in_both) == (120, 200, 0)
    assert found.member_loss < 0.2 < found.nonmember_loss
    assert found.leaks and {attack.name for attack in found.attacks} == {"loss", "loss by label"}
    for attack in found.attacks:
        assert attack.advantage.low > 0.4 and attack.auc.low > 0.7
        for figure in (attack.advantage, attack.auc, attack.tpr_at_1_percent_fpr):
            assert figure.low <= figure.value <= figure.high


def test_rows_that_were_not_trained_on_are_not_told_apart(place: Path) -> None:
    written(place / "strangers.csv", population(3))
    found = audited(place, by_heart(population(1)), "strangers.csv")
    assert not found.leaks and found.strongest.advantage.value < found.chance


def test_private_models_keep_the_promise_of_their_noise(place: Path) -> None:
    """The same rows, which not one of ten private models gives away."""
    advantages = [
        audited(place, privately(population(1), seed)).attacks[0].advantage.value
        for seed in range(10)
    ]
    assert np.mean(advantages) < 0.2 < advantage_bound(1.0, 1e-6)


def test_the_same_rows_twice_are_told_of(place: Path) -> None:
    written(place / "mixed.csv", np.vstack([population(1)[:60], population(2)[:30]]))
    assert audited(place, by_heart(population(1)), "mixed.csv").in_both == 30


def test_figures_of_losses_that_are_known() -> None:
    apart = np.arange(100.0), np.arange(100.0) + 1000
    assert (audit.advantage(*apart), audit.auc(*apart), audit.found_at(*apart)) == (1.0, 1.0, 1.0)
    same = np.arange(200.0), np.arange(200.0)
    assert (audit.advantage(*same), audit.auc(*same)) == (0.0, 0.5)
    assert audit.found_at(*same) == 0.01
    turned = apart[1], apart[0]
    assert (audit.advantage(*turned), audit.auc(*turned), audit.found_at(*turned)) == (
        0.0,
        0.0,
        0.0,
    )
    tied = np.zeros(50), np.zeros(70)
    assert (audit.advantage(*tied), audit.auc(*tied), audit.found_at(*tied)) == (0.0, 0.5, 0.0)


def test_chance_is_exceeded_as_rarely_as_it_is_said() -> None:
    rng, over = np.random.default_rng(4), 0
    for _ in range(1000):
        inside, outside = rng.normal(size=90), rng.normal(size=150)
        over += audit.advantage(inside, outside) > audit.CHANCE * (1 / 90 + 1 / 150) ** 0.5
    assert over <= 40, "one in 40 at most, 25 expected"


def test_labels_that_are_harder_than_others_are_seen_through() -> None:
    """Members lose less than others of their label, and more than others of the easy label."""
    rng = np.random.default_rng(5)
    hard = np.tile([0, 1], 200)
    inside = rng.uniform(0, 1, 400) + 10 * hard
    outside = rng.uniform(0.5, 1.5, 400) + 10 * hard
    assert audit.advantage(inside, outside) < 0.35
    assert audit.advantage(*audit.ranked(inside, outside, hard, hard, 0)) > 0.4


@pytest.mark.parametrize(
    ("kind", "target", "classes", "loss"),
    [
        ("linear_regression", "number", (), [4.0, 0.0]),
        ("logistic_regression", "binary", ("no", "yes"), [np.log1p(np.exp(-2.0)), np.log(2.0)]),
    ],
)
def test_losses(kind: str, target: Target, classes: tuple[str, ...], loss: list[float]) -> None:
    model = Model(kind, ("x",), "y", classes, np.array([[1.0]]), np.zeros(1))
    assert model.target == target
    labels = np.array([0.0, 0.0] if target == "number" else ["yes", "no"])
    rows = np.array([[2.0], [0.0]])
    np.testing.assert_allclose(audit.losses(model, rows, labels), loss)


def test_losses_of_classes() -> None:
    weights = np.array([[1.0, 0.0, -1.0]])
    model = Model("softmax_regression", ("x",), "y", ("a", "b", "c"), weights, np.zeros(3))
    found = audit.losses(model, np.array([[1000.0], [1.0]]), np.array(["c", "a"]))
    np.testing.assert_allclose(found, [2000.0, np.log(1 + np.exp(-1) + np.exp(-2))])


def test_the_command(masque: Shell, place: Path) -> None:
    files = ("--members", place / "members.csv", "--nonmembers", place / "others.csv")
    given = ("audit-model", place / "by-heart.json", *files, "--schema", place / "schema.yaml")
    answer = masque(*given)
    assert answer.code == 0 and "learns whether that person was in the data" in answer.out
    assert "1 % of 200 non-members is next to nobody" in answer.err
    content = masque(*given, "--json").json
    assert content["leaks"] and content["members"] == 120 and len(content["attacks"]) == 2
    assert masque(*given, "--json").json == content, "the same seed, the same figures"
    swapped = masque(*given[:2], "--members", files[3], *files[2:], *given[-2:])
    assert "tell no more than chance" in swapped.out and "are in both files" in swapped.err


def test_what_cannot_be_audited(masque: Shell, place: Path) -> None:
    written(place / "few.csv", population(1, 19))
    given = ("--nonmembers", place / "others.csv", "--schema", place / "schema.yaml")
    answer = masque("audit-model", place / "by-heart.json", "--members", place / "few.csv", *given)
    assert answer.code == 3 and "few.csv has 19 rows" in answer.error


@pytest.mark.parametrize(
    "label", ["type: binary, classes: [sick, well], positive: sick", "type: number, range: [0, 1]"]
)
def test_a_schema_with_another_label_is_told(masque: Shell, place: Path, label: str) -> None:
    schema, rows = place / "other.yaml", place / "other.csv"
    text = (place / "schema.yaml").read_text()
    schema.write_text(text.replace("type: binary, classes: [no, yes], positive: yes", label))
    told = (place / "members.csv").read_text().replace("yes", "1" if "number" in label else "sick")
    rows.write_text(told.replace(",no", ",0" if "number" in label else ",well"))
    given = ("--members", rows, "--nonmembers", rows, "--schema", schema)
    answer = masque("audit-model", place / "by-heart.json", *given)
    assert answer.code == 3, answer.err
    assert answer.error == f"The label 'y' of {schema} is not what the model predicts: no, yes."
