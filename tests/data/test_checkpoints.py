"""Checkpoints at rest: whole or lost, sealed to their place, two a job, gone when unwanted."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.data import checkpoints as module
from masque.data.checkpoints import Checkpoint, Checkpoints
from masque.data.keys import StoreKey, load_key, next_key
from masque.data.rotation import rotate
from masque.data.store import Store
from masque.errors import MasqueError, NotFound

KEY = StoreKey(bytes(range(32)))
SUBJECT = bytes(range(32, 64))
JOB = b'{"job_id":"job-1"}'
SHARES = {
    "weights": np.arange(12, dtype=np.uint64).reshape(3, 4) << np.uint64(40),
    "none": np.zeros((0, 2), np.uint64),
    "best loss": np.array([[2**64 - 1]], np.uint64),
}


def checkpoint(attempt: int = 1, round: int = 2, job: str = "job-1", **changes: Any) -> Checkpoint:
    fields: dict[str, Any] = {"stopped": False, "subject": SUBJECT, "shares": SHARES} | changes
    return Checkpoint(job, attempt, round, **fields)


def write(kept: Checkpoints, found: Checkpoint, job: bytes, before: tuple[int, int] | None) -> None:
    """As its attempt."""
    kept.begin(found.job, found.attempt)
    assert kept.write(found, job, before)


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    assert (found.job, found.attempt, found.round) == (
        expected.job,
        expected.attempt,
        expected.round,
    )
    assert (found.stopped, found.subject) == (expected.stopped, expected.subject)
    assert found.shares.keys() == expected.shares.keys()
    for name, share in expected.shares.items():
        assert found.shares[name].dtype == np.uint64
        assert np.array_equal(found.shares[name], share)


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", KEY)


def files(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("stopped", [False, True])
def test_a_checkpoint_comes_back_as_it_was_kept(
    kept: Checkpoints, tmp_path: Path, stopped: bool
) -> None:
    write(kept, checkpoint(stopped=stopped), JOB, None)
    again = Checkpoints(tmp_path / "checkpoints", KEY)
    assert_same(again.read("job-1", 1, 2), checkpoint(stopped=stopped))
    assert again.job("job-1") == JOB
    folder = tmp_path / "checkpoints" / "job-1"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = (folder / "1-2.share").read_bytes()
    assert SHARES["weights"].tobytes()[8:32] not in content and b"weights" not in content
    assert "weights" not in repr(checkpoint())


def test_what_is_not_there_is_not_found(kept: Checkpoints) -> None:
    write(kept, checkpoint(), JOB, None)
    for job, attempt, round in (("job-1", 1, 3), ("job-1", 2, 2), ("job-2", 1, 2)):
        with pytest.raises(NotFound, match=f"no checkpoint {attempt}-{round}.share of job {job}"):
            kept.read(job, attempt, round)
    with pytest.raises(NotFound):
        kept.job("job-2")


@pytest.mark.parametrize("size", [0, 1, 19, 20, 35, 36, 51, 52, 60, -17, -1])
def test_a_torn_checkpoint_is_an_error_and_never_a_number(
    kept: Checkpoints, tmp_path: Path, size: int
) -> None:
    """Cut at the places where a part of it ends, and beside them."""
    write(kept, checkpoint(), JOB, None)
    path = tmp_path / "checkpoints" / "job-1" / "1-2.share"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(MasqueError, match=r"checkpoints/job-1/1-2.share"):
        kept.read("job-1", 1, 2)
    with pytest.raises(MasqueError):
        Checkpoints(tmp_path / "checkpoints", KEY).read("job-1", 1, 2)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    directory = tmp_path_factory.mktemp("flipped")
    kept = Checkpoints(directory, KEY)
    write(kept, checkpoint(), JOB, None)
    path = directory / "job-1" / "1-2.share"
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(MasqueError):
        kept.read("job-1", 1, 2)


@pytest.mark.parametrize("place", [("job-1", "1-3"), ("job-1", "2-2"), ("job-2", "1-2")])
def test_a_checkpoint_in_anothers_place_is_refused(
    kept: Checkpoints, tmp_path: Path, place: tuple[str, str]
) -> None:
    write(kept, checkpoint(), JOB, None)
    write(kept, checkpoint(job="job-2", round=7), JOB, None)
    folder, name = place
    directory = tmp_path / "checkpoints"
    shutil.copy(directory / "job-1" / "1-2.share", directory / folder / f"{name}.share")
    attempt, round = map(int, name.split("-"))
    with pytest.raises(MasqueError, match="is damaged, or was moved there from elsewhere"):
        kept.read(folder, attempt, round)


def test_another_key_opens_nothing_and_keeps_nobody_from_starting(
    kept: Checkpoints, tmp_path: Path
) -> None:
    """What is lost is begun anew: no party stays down for it."""
    write(kept, checkpoint(), JOB, None)
    other = Checkpoints(tmp_path / "checkpoints", StoreKey(os.urandom(32)))
    with pytest.raises(MasqueError, match="under another key"):
        other.read("job-1", 1, 2)
    write(other, checkpoint(2, 3), JOB, (1, 2))
    assert_same(other.read("job-1", 2, 3), checkpoint(2, 3))
    assert_same(kept.read("job-1", 1, 2), checkpoint())


def test_what_nobody_has_sealed_is_never_taken_for_a_checkpoint(
    kept: Checkpoints, tmp_path: Path
) -> None:
    """Who can write to the disk and has no key cannot put shares of his own there."""
    write(kept, checkpoint(), JOB, None)
    forged = tmp_path / "checkpoints" / "job-1" / "1-2.share"
    forged.write_bytes(module._encoded(checkpoint()))
    for opened in (kept, Checkpoints(tmp_path / "checkpoints", KEY)):
        with pytest.raises(MasqueError, match="under another key"):
            opened.read("job-1", 1, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b'{"job": "job-1"}\n',
        b"\xff\n",
        module._encoded(checkpoint())[:-1],
        module._encoded(checkpoint()) + b"\0",
        module._encoded(checkpoint()).replace(b"[3, 4]", b"[3,-4]"),
        module._encoded(checkpoint()).replace(b"[3, 4]", b'["3"] '),
    ],
)
def test_a_checkpoint_of_another_version_is_lost(
    kept: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(module, "_encoded", lambda _: content)
    write(kept, checkpoint(), JOB, None)
    with pytest.raises(MasqueError, match=r"1-2.share is not a checkpoint that this version"):
        kept.read("job-1", 1, 2)


def test_beside_the_newest_the_one_that_others_may_need_stays(
    kept: Checkpoints, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    before = None
    for round in range(1, 6):
        write(kept, checkpoint(1, round), JOB, before)
        before = (1, round)
    assert files(folder) == {"job-1/job.json", "job-1/1-4.share", "job-1/1-5.share"}
    write(kept, checkpoint(3, 5), JOB, (1, 4))
    assert files(folder) == {"job-1/job.json", "job-1/1-4.share", "job-1/3-5.share"}
    write(kept, checkpoint(4, 2), JOB, None)
    assert files(folder) == {"job-1/job.json", "job-1/4-2.share"}, "it has begun anew"


def test_a_checkpoint_is_there_at_once_or_not_at_all(
    kept: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses at any step leaves the one before; a crash leaves no litter for long."""
    write(kept, checkpoint(1, 1), JOB, None)

    def refusing(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real = os.replace
    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(MasqueError, match="checkpoint of job job-1 cannot be written: No space"):
        write(kept, checkpoint(1, 2), JOB, (1, 1))
    monkeypatch.setattr(os, "replace", real)
    assert files(tmp_path / "checkpoints") == {"job-1/job.json", "job-1/1-1.share"}
    assert_same(kept.read("job-1", 1, 1), checkpoint(1, 1))
    with pytest.raises(NotFound):
        kept.read("job-1", 1, 2)
    (tmp_path / "checkpoints" / "job-1" / ".new-0123").write_bytes(b"half of one")
    Checkpoints(tmp_path / "checkpoints", KEY)
    assert files(tmp_path / "checkpoints") == {"job-1/job.json", "job-1/1-1.share"}


def test_what_is_forgotten_is_gone_and_nothing_else(kept: Checkpoints, tmp_path: Path) -> None:
    write(kept, checkpoint(), JOB, None)
    write(kept, checkpoint(job="job-2"), JOB, None)
    kept.forget("job-1")
    kept.forget("job-1")
    kept.forget("never")
    assert files(tmp_path / "checkpoints") == {"job-2/job.json", "job-2/1-2.share"}


def test_a_worker_that_is_late_harms_no_newer_attempt(kept: Checkpoints, tmp_path: Path) -> None:
    """It was about to write as its attempt was given up, and the next has gone on meanwhile."""
    write(kept, checkpoint(1, 1), JOB, None)
    write(kept, checkpoint(2, 2), JOB, (1, 1))
    write(kept, checkpoint(2, 3), JOB, (2, 2))
    left = files(tmp_path / "checkpoints")
    assert not kept.write(checkpoint(1, 2), JOB, (1, 1))
    kept.begin("job-1", 1)
    assert not kept.write(checkpoint(1, 2), JOB, (1, 1)), "nor if it begins late"
    kept.end("job-1", 1)
    assert files(tmp_path / "checkpoints") == left
    assert kept.write(checkpoint(2, 4), JOB, (2, 3)), "the newer one goes on"
    kept.end("job-1", 2)
    assert not kept.write(checkpoint(2, 5), JOB, (2, 4))
    assert_same(kept.read("job-1", 2, 4), checkpoint(2, 4))


def test_what_was_forgotten_stays_so(kept: Checkpoints, tmp_path: Path) -> None:
    write(kept, checkpoint(1, 1), JOB, None)
    kept.forget("job-1")
    assert not kept.write(checkpoint(1, 2), JOB, (1, 1))
    assert not list((tmp_path / "checkpoints").iterdir()), "not even the job"
    assert not Checkpoints(tmp_path / "checkpoints", KEY).write(checkpoint(1, 2), JOB, None)


def test_an_attempt_whose_checkpoints_were_too_old_goes_on(kept: Checkpoints) -> None:
    write(kept, checkpoint(1, 1), JOB, None)
    assert kept.sweep(lambda job, at: False) == ["job-1"]
    assert kept.write(checkpoint(1, 2), JOB, (1, 1))
    assert_same(kept.read("job-1", 1, 2), checkpoint(1, 2))


@pytest.mark.parametrize("wanted", [True, False])
def test_a_sweep_asks_with_the_job_and_its_age(
    kept: Checkpoints, tmp_path: Path, wanted: bool
) -> None:
    write(kept, checkpoint(), JOB, None)
    (tmp_path / "checkpoints" / "job-2").mkdir()
    for path in (tmp_path / "checkpoints" / "job-1", *tmp_path.glob("checkpoints/job-1/*")):
        os.utime(path, (1000, 1000))
    os.utime(tmp_path / "checkpoints" / "job-1" / "1-2.share", (2000, 2000))
    asked = []

    def keep(job: bytes, written: float) -> bool:
        asked.append((job, written if job else None))
        return wanted and job == JOB

    gone = kept.sweep(keep)
    assert sorted(asked) == [(b"", None), (JOB, 2000.0)]
    assert sorted(gone) == ["job-2"] if wanted else ["job-1", "job-2"]
    assert kept.jobs().keys() == ({"job-1"} if wanted else set())


# -- rotation of the store's key -----------------------------------------------------------------


def stores(directory: Path) -> Checkpoints:
    with Store(directory) as store:
        return Checkpoints(directory / "checkpoints", store.key)


def test_a_rotated_key_opens_them_and_the_old_one_does_not(tmp_path: Path) -> None:
    write(stores(tmp_path), checkpoint(), JOB, None)
    write(stores(tmp_path), checkpoint(job="job-2", round=9), JOB, None)
    old = load_key(tmp_path / "key", create_if_missing=False)
    rotate(tmp_path)
    assert_same(stores(tmp_path).read("job-1", 1, 2), checkpoint())
    assert_same(stores(tmp_path).read("job-2", 1, 9), checkpoint(job="job-2", round=9))
    with pytest.raises(MasqueError, match="another key"):
        Checkpoints(tmp_path / "checkpoints", old).read("job-1", 1, 2)


def test_a_rotation_that_was_broken_off_is_completed(tmp_path: Path) -> None:
    write(stores(tmp_path), checkpoint(), JOB, None)
    new = load_key(next_key(tmp_path / "key"), create_if_missing=True)
    half_way = Checkpoints(tmp_path / "checkpoints", new)
    write(half_way, checkpoint(job="job-2"), JOB, None)
    rotate(tmp_path)
    for job in ("job-1", "job-2"):
        assert_same(stores(tmp_path).read(job, 1, 2), checkpoint(job=job))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def forge(path: Path) -> None:
    path.write_bytes(module._encoded(checkpoint()))


@pytest.mark.parametrize("damage", [cut, flip, forge])
def test_damage_does_not_keep_a_key_from_being_rotated(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """And is not sealed as if it were whole."""
    write(stores(tmp_path), checkpoint(), JOB, None)
    write(stores(tmp_path), checkpoint(job="job-2"), JOB, None)
    damage(tmp_path / "checkpoints" / "job-1" / "1-2.share")
    rotate(tmp_path)
    with pytest.raises(NotFound):
        stores(tmp_path).read("job-1", 1, 2)
    assert_same(stores(tmp_path).read("job-2", 1, 2), checkpoint(job="job-2"))


def test_a_store_without_checkpoints_is_rotated(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        old = store.key.name
    assert rotate(tmp_path).old == old
