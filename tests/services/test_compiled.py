"""Compiled jobs, no handmade ones, through real services: as the plain twin, and as planned."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from masque.data.table import LabelInfo
from masque.errors import JobFailed
from masque.jobs.bound import BoundJob
from masque.jobs.compile import compile_job
from masque.jobs.fit import SharedTable
from masque.mpc import sharing
from masque.mpc.cost import cost
from masque.mpc.plain import Plain
from masque.mpc.types import Ring
from tests.jobs.examples import table
from tests.services.village import CALL, Village, upload_messages

NAMES = ("age", "size", "dose")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    """A dealer and three parties that run what they compile."""
    names = ("party-a", "party-b", "party-c")
    village = Village(tmp_path_factory.mktemp("clinic"), names, handmade=False)
    try:
        village.start()
        yield village
    finally:
        village.stop()


def encoded(values: Any) -> Ring:
    return np.round(np.asarray(values) * 2**24).astype(np.int64).view(np.uint64)


def hospitals(village: Village) -> tuple[list[SharedTable], dict[str, Ring]]:
    """Two hospitals with the same columns, and what is in them."""
    random = np.random.default_rng(3)
    tables, clear = [], {}
    for name, rows in (("hospital-a", 90), ("hospital-b", 60)):
        x = random.uniform(-1, 1, (rows, 3))
        y = (x @ [1.0, -2.0, 0.5] > 0).astype(float)
        clear[name] = encoded(np.column_stack([x, y]))
        tables.append(village.share(clear[name], table(name, rows, *NAMES).info, name))
    return tables, clear


def test_a_compiled_job_is_its_plain_twin_at_the_planned_cost(clinic: Village) -> None:
    tables, clear = hospitals(clinic)
    job = clinic.bound(
        tables,
        training__epochs=4,
        data__holdout=0.2,
        reveal={"metrics": ["accuracy"], "to": ["analyst"]},
    )
    replies = clinic.run(job)
    program = compile_job(job)
    plain = Plain(program, lambda name, rows: clear[name][rows])
    plain.run_program()
    planned = cost(program)
    for index, name in enumerate(job.parties):
        traffic = replies[name].traffic
        assert traffic.exchanges == planned.rounds and traffic.sent == 2 * planned.sent
        assert traffic.corrections == planned.corrections[index]
    for name, output in program.outputs.items():
        found = clinic.result(job, name).view(np.int64) / 2.0**output.scale
        expected = plain.output(name).view(np.int64) / 2.0**output.scale
        assert np.allclose(found.reshape(expected.shape), expected, atol=2e-3), name


def joined(village: Village, digests: list[Ring]) -> BoundJob:
    """A bank and a shop with columns of the same people, if their digests are equal."""
    random = np.random.default_rng(4)
    label = LabelInfo(name="malignant", kind="binary", classes=("no", "yes"))
    tables = []
    for name, columns, has_label, digest in (
        ("bank", ("age", "size"), label, digests[0]),
        ("shop", ("dose",), None, digests[1]),
    ):
        info = table(name, 50, *columns, label=has_label, identifiers=True).info
        clear = random.uniform(-1, 1, (50, info.columns))
        if has_label:
            clear[:, -1] = clear[:, 0] > 0
        upload = f"upload-{os.urandom(4).hex()}"
        rows = sharing.split(encoded(clear), len(village.names), os.urandom)
        words = sharing.split(digest, len(village.names), os.urandom)
        for party, share, word in zip(village.names, rows, words, strict=True):
            messages = upload_messages(name, upload, info, share)
            messages[0].header.identifiers.extend(int(part) for part in word)
            with village.party(party, "client", "owner") as stub:
                stub.Upload(iter(messages), timeout=CALL)
        tables.append(SharedTable(name=name, upload=upload, info=info))
    early_stop = {"metric": "log_loss", "patience": 1, "validation": 0.2, "min_delta": 1.0}
    return village.bound(
        tables,
        data={"columns": ["bank", "shop"], "label": "malignant"},
        training__epochs=6,
        training__batch_size=16,
        training__early_stop=early_stop,
        model_output={"open_to_all": True},
        recipients=[],
    )


def test_joined_columns_stop_early_and_open_to_all(clinic: Village) -> None:
    digest = np.arange(4, dtype=np.uint64) << np.uint64(60)
    job = joined(clinic, [digest, digest])
    replies = clinic.run(job)
    assert all(reply.stopped for reply in replies.values())
    assert replies["party-a"].traffic.declared_openings >= 3  # match, a bit or more, the model


def test_columns_of_other_people_are_not_joined(clinic: Village) -> None:
    digest = np.arange(4, dtype=np.uint64)
    job = joined(clinic, [digest, digest + np.uint64(1)])
    with pytest.raises(JobFailed, match="identifiers"):
        clinic.run(job)
    tables, _ = hospitals(clinic)
    clinic.run(clinic.bound(tables, training__epochs=1))
