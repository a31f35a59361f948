"""The ledger grows line by line, through any crash, and nobody changes it unseen."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.data.table import canonical_json
from masque.errors import InputError, MasqueError
from masque.jobs import chain
from masque.jobs.chain import read_chain
from masque.jobs.ledger import Disclosure, Ledger

NAME = "disclosures.jsonl"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


@dataclass(frozen=True)
class Notary:
    """A signer whose signatures are digests: who may sign is not the ledger's business."""

    certificate: bytes = b"first certificate"

    def sign(self, statement: bytes) -> bytes:
        return hashlib.sha256(self.certificate + statement).digest()


def opened(folder: Path, certificate: bytes = Notary.certificate) -> Ledger:
    return Ledger(folder / NAME, Clock(), lambda: Notary(certificate))


def filled(folder: Path, lines: int = 3) -> tuple[Ledger, list[bytes]]:
    """A ledger with so many disclosures, and the lines of its file."""
    ledger = opened(folder)
    for number in range(lines):
        ledger.record("job-1", 1, f"metric {number}", 64, ["analyst"])
    return ledger, (folder / NAME).read_bytes().splitlines(keepends=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return opened(tmp_path)


def test_what_is_recorded_is_read_back(ledger: Ledger, tmp_path: Path) -> None:
    first = ledger.record("job-1", 1, "auc", 64, ["analyst"])
    second = ledger.record("job-1", 2, "stop at epoch 3", 1, ["party-0", "party-1"])
    assert first == Disclosure(1001.0, "job-1", 1, "auc", 64, ("analyst",))
    assert ledger.entries() == [first, second] == opened(tmp_path).entries()
    assert [line.entry["what"] for line in ledger.of("job-1", 2)] == ["stop at epoch 3"]
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    line = json.loads((tmp_path / NAME).read_text().splitlines()[1])
    assert line["entry"] == {
        "kind": "opened",
        "time": 1001.0,
        "job": "job-1",
        "attempt": 1,
        "what": "auc",
        "bits": 64,
        "to": ["analyst"],
    }
    assert line["number"] == 1
    signature = Notary().sign(chain.statement(line["hash"]))
    assert line["signature"] == base64.b64encode(signature).decode()


def test_a_new_ledger_says_who_writes_it(ledger: Ledger) -> None:
    (line,) = ledger.lines()
    assert line.kind == "began" and line.previous == chain.FIRST and line.entry["before"] == []
    assert base64.b64decode(line.entry["certificate"]) == b"first certificate"
    assert ledger.entries() == [] and ledger.head == line.head


def test_a_renewed_certificate_is_noted_before_it_signs(tmp_path: Path) -> None:
    opened(tmp_path).record("j", 1, "a", 1, [])
    again = opened(tmp_path, b"second certificate")
    assert len(again.lines()) == 2, "nothing is written until something happens"
    again.record("j", 1, "b", 1, [])
    assert [line.kind for line in again.lines()] == ["began", "opened", "certificate", "opened"]
    digest = again.lines()[2].hash
    expected = Notary(b"second certificate").sign(chain.statement(digest))
    assert base64.b64decode(again.lines()[2].signature) == expected


# -- crashes -------------------------------------------------------------------------------------


@given(cut=st.integers(1, 400))
def test_a_torn_line_loses_only_itself_and_is_noted(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger, lines = filled(folder, 2)
    first, second = ledger.entries()
    cut = min(cut, len(lines[-1]))
    os.truncate(folder / NAME, sum(map(len, lines)) - cut)
    torn = lines[-1][:-cut]
    again = opened(folder)
    left = [first, second] if cut == 1 else [first]
    assert again.entries() == left
    third = again.record("job-2", 1, "r2", 32, ["analyst"])
    assert opened(folder).entries() == [*left, third]
    repaired = [line for line in again.lines() if line.kind == "repaired"]
    if cut in (1, len(lines[-1])):
        assert not repaired
    else:
        (line,) = repaired
        assert line.entry["sha256"] == hashlib.sha256(torn + b"\n").hexdigest()
        assert torn + b"\n" in (folder / NAME).read_bytes(), "nothing is dropped"


def test_a_crash_in_the_middle_of_a_repair(tmp_path: Path) -> None:
    _, lines = filled(tmp_path)
    path = tmp_path / NAME
    whole = b"".join(lines)
    path.write_bytes(whole[:-40])
    opened(tmp_path)
    repaired = path.read_bytes()
    for size in range(len(whole) - 40, len(repaired)):
        path.write_bytes(repaired[:size])
        again = opened(tmp_path)
        assert [e.what for e in again.entries()] == ["metric 0", "metric 1"]
        assert path.read_bytes().startswith(repaired[:size]), "a ledger only grows"
        assert not read_chain(path.read_bytes(), "").torn


def test_a_write_that_fails_is_told_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, _ = filled(tmp_path)
    real = os.write

    def half(descriptor: int, content: Any) -> int:
        real(descriptor, bytes(content)[:50])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(MasqueError, match="cannot be written: No space left"):
            ledger.record("job-1", 1, "lost", 64, [])
    ledger.record("job-1", 1, "kept", 64, [])
    assert [e.what for e in ledger.entries()][-2:] == ["metric 2", "kept"]
    assert "repaired" in [line.kind for line in ledger.lines()]


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
        opened(tmp_path / "missing")


# -- changes -------------------------------------------------------------------------------------


def changes(lines: list[bytes]) -> Iterator[tuple[str, list[bytes], int]]:
    """What somebody might do to a ledger of four lines: name, result, first bad line."""
    more = lines[2].replace(b"64", b"65")
    yield "a changed number", [*lines[:2], more, lines[3]], 3
    other = json.loads(lines[2])
    other["entry"]["to"] = ["nobody"]
    other["hash"] = chain.hash_of(2, other["previous"], other["entry"])
    forged = canonical_json(other) + b"\n"
    yield "a changed line with its hash", [*lines[:2], forged, lines[3]], 4
    yield "a removed line", [*lines[:2], lines[3]], 3
    yield "two lines in the other order", [lines[0], lines[2], lines[1], lines[3]], 2
    yield "a line that is there twice", [*lines[:2], lines[1], *lines[2:]], 3
    yield "no first line", lines[1:], 1
    yield "a line that cannot be read", [lines[0], b"rubbish\n", *lines[1:]], 2
    yield "an empty line", [*lines[:2], b"\n", *lines[2:]], 3
    yield "another spelling", [lines[0], lines[1].replace(b":1,", b": 1,", 1), *lines[2:]], 2


@pytest.mark.parametrize("which", range(9))
def test_a_change_names_the_first_bad_line(tmp_path: Path, which: int) -> None:
    _, lines = filled(tmp_path)
    name, result, bad = list(changes(lines))[which]
    (tmp_path / NAME).write_bytes(b"".join(result))
    with pytest.raises(InputError, match=rf"line {bad}: ") as caught:
        opened(tmp_path)
    assert caught.value.where["line"] == bad, name
    assert (tmp_path / NAME).read_bytes() == b"".join(result), "nothing was added"


def test_a_running_party_notices_that_lines_were_removed(tmp_path: Path) -> None:
    ledger, lines = filled(tmp_path)
    (tmp_path / NAME).write_bytes(b"".join(lines[:-1]))
    for _ in range(2):
        with pytest.raises(MasqueError, match="was changed by somebody else"):
            ledger.record("job-1", 1, "x", 1, [])
    assert (tmp_path / NAME).read_bytes() == b"".join(lines[:-1]), "nothing was added"


# -- what was there before -----------------------------------------------------------------------

OLD = {"time": 1.0, "job": "j", "attempt": 1, "what": "w", "bits": 1, "to": ["a"]}


@pytest.mark.parametrize("content", [json.dumps(OLD).encode() + b"\n", b"\x00\x01rubbish", b"{"])
def test_an_older_ledger_is_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    ledger = opened(tmp_path)
    (line,) = ledger.lines()
    aside = {"file": f"{NAME}.before-1", "sha256": hashlib.sha256(content).hexdigest()}
    assert line.entry["before"] == [aside]
    assert (tmp_path / f"{NAME}.before-1").read_bytes() == content
    assert len(opened(tmp_path).lines()) == 1


def test_a_crash_after_an_older_ledger_was_moved_forgets_nothing(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.before-1").write_bytes(b"old")
    (tmp_path / NAME).write_bytes(b'{"entry":{"bef')  # the first line of the new one, torn
    (line,) = opened(tmp_path).lines()
    assert [part["file"][-1] for part in line.entry["before"]] == ["1", "2"]
