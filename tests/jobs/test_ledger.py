from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import MasqueError
from masque.jobs.ledger import Disclosure, Ledger


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "disclosures.jsonl", Clock())


def test_what_is_recorded_is_read_back(ledger: Ledger, tmp_path: Path) -> None:
    first = ledger.record("job-1", 1, "auc", 64, ["analyst"])
    second = ledger.record("job-1", 2, "stop at epoch 3", 1, ["party-0", "party-1"])
    assert first == Disclosure(1000.5, "job-1", 1, "auc", 64, ("analyst",))
    assert ledger.entries() == [first, second]
    again = Ledger(tmp_path / "disclosures.jsonl", Clock())
    assert again.entries() == [first, second]
    assert stat.S_IMODE((tmp_path / "disclosures.jsonl").stat().st_mode) == 0o600
    assert json.loads((tmp_path / "disclosures.jsonl").read_text().splitlines()[0]) == {
        "time": 1000.5,
        "job": "job-1",
        "attempt": 1,
        "what": "auc",
        "bits": 64,
        "to": ["analyst"],
    }


def test_a_ledger_that_is_not_there_is_empty(ledger: Ledger) -> None:
    assert ledger.entries() == []


@given(cut=st.integers(1, 200))
def test_a_torn_line_loses_only_itself(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("ledger") / "disclosures.jsonl"
    ledger = Ledger(path, Clock())
    first = ledger.record("job-1", 1, "accuracy", 32, ["analyst"])
    whole = path.stat().st_size
    second = ledger.record("job-1", 1, "auc", 64, ["analyst"])
    size = path.stat().st_size
    cut = min(cut, size - whole)
    os.truncate(path, size - cut)
    left = [first, second] if cut == 1 else [first]
    assert ledger.entries() == left
    third = ledger.record("job-2", 1, "r2", 32, ["analyst"])
    assert ledger.entries() == [*left, third]


@given(st.binary(max_size=200))
def test_any_rubbish_in_the_file_is_skipped(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "disclosures.jsonl"
    path.write_bytes(rubbish)
    ledger = Ledger(path, Clock())
    entry = ledger.record("job", 1, "x", 1, [])
    assert ledger.entries() == [entry]


@pytest.mark.parametrize(
    "change",
    [{"bits": "1"}, {"bits": True}, {"to": [1]}, {"to": "x"}, {"more": 1}, {"time": None}],
)
def test_a_line_of_another_shape_is_no_disclosure(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "disclosures.jsonl"
    good = {"time": 1.0, "job": "j", "attempt": 1, "what": "w", "bits": 1, "to": ["a"]}
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
    assert len(Ledger(path, Clock()).entries()) == 1


def test_threads_do_not_mix_their_lines(ledger: Ledger) -> None:
    def write(job: str) -> None:
        for number in range(20):
            ledger.record(job, 1, "x" * 50, number, [])

    threads = [threading.Thread(target=write, args=(f"job-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = ledger.entries()
    for i in range(4):
        assert [e.bits for e in entries if e.job == f"job-{i}"] == list(range(20))


def test_a_ledger_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(MasqueError, match=r"missing.* cannot be written: No such file"):
        Ledger(tmp_path / "missing" / "d.jsonl", Clock()).record("j", 1, "x", 1, [])
