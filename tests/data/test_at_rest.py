"""What lies on a party's disk: encrypted, rotated, deleted with a note, counted."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masque.data import disk
from masque.data.commitments import Commitment
from masque.data.kept import KeptModels, rekey
from masque.data.keys import StoreKey, load_key, next_key
from masque.data.quota import Quota
from masque.data.rotation import rotate
from masque.data.schema import loads
from masque.data.store import Store
from masque.data.upload import COMMITMENT
from masque.errors import Conflict, MasqueError, NotFound, Refused
from tests.data.stores import send, stored

SHARE = bytes(range(256)) * 300


class Crash(BaseException):
    """The process ends here."""


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[list[int]]:
    """Die at step `after` of what makes changes visible: renaming, and making names durable."""
    steps = [0]

    def wrapped(name: str, module: Any) -> None:
        real = getattr(module, name)

        def step(*arguments: Any, **named: Any) -> Any:
            steps[0] += 1
            if steps[0] == after:
                monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # nothing runs now
                raise Crash
            return real(*arguments, **named)

        monkeypatch.setattr(module, name, step)

    for name in ("replace", "rename", "link", "fsync"):
        wrapped(name, os)
    yield steps


# -- kept models ---------------------------------------------------------------------------------


def test_kept_shares_are_sealed_to_their_place(tmp_path: Path) -> None:
    key = StoreKey(os.urandom(32))
    kept = KeptModels(tmp_path / "kept", key)
    kept.keep("model", b"{}", {"weights": SHARE, "a/b": b""})
    kept.keep("other", b"{}", {"weights": SHARE})
    assert kept.share("model", "weights") == SHARE and kept.share("model", "a/b") == b""
    assert "model" in kept and "absent" not in kept
    path, other = (tmp_path / "kept" / name / "weights.share" for name in ("model", "other"))
    assert SHARE[:64] not in path.read_bytes() and path.read_bytes() != other.read_bytes()
    with pytest.raises(NotFound):
        kept.share("model", "intercept")
    shutil.copy(other, path)
    with pytest.raises(MasqueError, match=r"kept/model/weights.share is damaged, or was moved"):
        kept.share("model", "weights")
    for at in (25, 40, 70, 1000, -1):
        content = bytearray(other.read_bytes())
        content[at] ^= 1
        other.write_bytes(content)
        with pytest.raises(MasqueError):
            kept.share("other", "weights")
        content[at] ^= 1
        other.write_bytes(content)
    assert kept.share("other", "weights") == SHARE
    with pytest.raises(MasqueError, match="another key"):
        KeptModels(tmp_path / "kept", StoreKey(os.urandom(32)))


def test_a_share_that_nobody_has_sealed_is_not_believed(tmp_path: Path) -> None:
    """Who can write the disk, and has no key, plants no model; neither does a rotation."""
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "weights.share").write_bytes(SHARE)
    (tmp_path / "planted" / ".new-1").write_bytes(b"left by a crash")
    first, second = StoreKey(os.urandom(32)), StoreKey(os.urandom(32))
    for key, known in ((first, first), (second, first)):
        assert rekey(tmp_path, [known], key) == 0
        with pytest.raises(MasqueError, match=r"weights\.share was stored under another key"):
            KeptModels(tmp_path, key).share("planted", "weights")
    assert [path.name for path in (tmp_path / "planted").iterdir()] == ["weights.share"]


# -- rotation ------------------------------------------------------------------------------------


def filled(directory: Path) -> dict[str, Any]:
    """A store with data sets and a kept model; what is in them."""
    with Store(directory) as store:
        words = {name: stored(store, name, rows) for name, rows in (("a", 10), ("b", 20_000))}
        identified = loads("columns: {id: identifier, x: {type: number, range: [0, 1]}}")
        with store.begin("c", identified.describe(3), "upload-3") as writer:
            digest = np.arange(4, dtype=np.uint64)
            writer.write_identifiers(digest.tobytes())
            words["c"] = np.arange(3, dtype=np.uint64).reshape(3, 1)
            send(writer, words["c"])
            writer.commit()
        KeptModels(directory / "kept", store.key).keep("m", b"{}", {"weights": SHARE})
    return words


def assert_holds(directory: Path, words: dict[str, Any], key_command: tuple[str, ...] = ()) -> str:
    """All of it can be read, and holds the commitments; the name of the key."""
    with Store(directory, key_command=key_command) as store:
        for name, expected in words.items():
            assert np.array_equal(store.rows(name), expected)
            with store.open(name) as dataset:
                assert dataset.commitment() == dataset.entry.commitment != ""
        assert np.array_equal(store.identifiers("c"), np.arange(4))
        assert KeptModels(directory / "kept", store.key).share("m", "weights") == SHARE
        assert len(list((directory / "shares").iterdir())) == len(words)
        return store.key.name


def test_after_a_rotation_the_old_key_opens_nothing(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "store", tmp_path / "elsewhere.key"
    words = filled(directory)
    shutil.copy(directory / "key", elsewhere)
    done = rotate(directory)
    assert (done.datasets, done.kept_shares) == (("a", "b", "c"), 1)
    assert assert_holds(directory, words) == done.new != done.old
    shutil.copy(elsewhere, directory / "key")
    with pytest.raises(MasqueError, match="another key"):
        Store(directory)
    with pytest.raises(MasqueError, match="another key"):
        rekey(
            directory / "kept",
            [load_key(elsewhere, create_if_missing=False)],
            load_key(tmp_path / "third", create_if_missing=True),
        )


def test_a_rotation_that_is_killed_anywhere_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tmp_path / "original"
    words = filled(original)
    after, broken_off = 0, 0
    while True:
        after += 1
        directory = tmp_path / str(after)
        shutil.copytree(original, directory)
        with monkeypatch.context() as patch, dying(patch, after):
            try:
                rotate(directory)
                break
            except Crash:
                pass
        if next_key(directory / "key").exists():
            broken_off += 1
            with pytest.raises(MasqueError, match=r"rotation of the key .* was broken off"):
                Store(directory)
            rotate(directory)
        assert_holds(directory, words)
    assert broken_off > 10, "it was killed at many steps"


def test_a_model_that_was_not_kept_to_its_end_hinders_no_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = filled(tmp_path)
    with monkeypatch.context() as patch, Store(tmp_path) as store, suppress(Crash):
        kept = KeptModels(tmp_path / "kept", store.key)
        with dying(patch, 3):
            kept.keep("late", b"{}", {"weights": SHARE})
    assert len(list((tmp_path / "kept").iterdir())) == 2, "it was killed after writing the share"
    assert rotate(tmp_path).kept_shares == 1
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["m"]
    assert_holds(tmp_path, words)


def test_a_store_in_use_is_not_rotated(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(Conflict, match="in use"):
        rotate(tmp_path)
    with pytest.raises(MasqueError, match=r"missing|in use"):
        rotate(tmp_path, tmp_path / "no.key")


def test_a_damaged_data_set_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    filled(tmp_path)
    with Store(tmp_path) as store:
        folder = tmp_path / "shares" / store.entry("b").folder
    content = bytearray((folder / "rows.u64").read_bytes())
    content[70_000] ^= 1
    (folder / "rows.u64").write_bytes(content)
    with pytest.raises(MasqueError, match="'b' is damaged"):
        rotate(tmp_path)
    content[70_000] ^= 1
    (folder / "rows.u64").write_bytes(content)
    assert rotate(tmp_path).datasets == ("b", "c"), "a was rotated before"


# -- commitments ---------------------------------------------------------------------------------


def test_a_commitment_binds_the_share_and_its_key(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        words = stored(store)
        again = store.begin("b", store.info("a"), "upload-2")
        send(again, words, each=3)
        assert again.commit().commitment != store.entry("a").commitment, "keys differ"
        with store.open("a") as dataset:
            key = b"".join(dataset.content(COMMITMENT))
            info, expected = dataset.entry.info, dataset.entry.commitment
    assert len(set(key)) > 8
    whole, other = Commitment(key, info), Commitment(key, info)
    whole.update(words.tobytes())
    other.update(words.tobytes()[:-1] + b"\x00")
    assert whole.value() == expected != other.value()
    assert key not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


# -- deletions -----------------------------------------------------------------------------------


def test_every_deletion_is_noted_once(tmp_path: Path) -> None:
    heard: list[tuple[str, bool]] = []
    with Store(tmp_path) as store:
        store.on_deletion(lambda entry, replaced: heard.append((entry.name, replaced)))
        stored(store, owner="o")
        stored(store, owner="o", replace=True)
        assert heard == [("a", True)]
        store.delete("a", owner="o")
        assert heard == [("a", True), ("a", False)]
    with Store(tmp_path) as store:
        store.on_deletion(lambda entry, replaced: heard.append((entry.name, replaced)))
    assert len(heard) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("replace", [True, False])
def test_a_crash_neither_hides_nor_invents_a_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    with Store(tmp_path / "original") as store:
        stored(store, owner="o")
        first = store.entry("a").folder
    for after in range(1, 100):
        directory, heard = tmp_path / str(after), list[str]()
        shutil.copytree(tmp_path / "original", directory)
        with monkeypatch.context() as patch, Store(directory) as store:
            store.on_deletion(lambda entry, _: heard.append(entry.folder))  # noqa: B023
            with dying(patch, after) as steps, suppress(Crash):
                stored(store, owner="o", replace=True) if replace else store.delete("a")
        with Store(directory) as store:
            store.on_deletion(lambda entry, _: heard.append(entry.folder))  # noqa: B023
            there = first in [entry.folder for entry in store.list()]
            assert heard == ([] if there else [first]), f"killed at step {after}"
            assert list((directory / "deleted").iterdir()) == []
        if steps[0] < after:
            return
    raise AssertionError("it goes on and on")


def test_what_could_not_be_replaced_can_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    heard: list[tuple[str, bool]] = []
    with Store(tmp_path) as store:
        store.on_deletion(lambda entry, replaced: heard.append((entry.name, replaced)))
        stored(store, owner="o")
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refuse)
            with pytest.raises((MasqueError, OSError)):
                stored(store, owner="o", replace=True)
        store.delete("a", owner="o")
    assert heard == [("a", False)]
    with Store(tmp_path) as store:
        assert store.list() == [] and store.damaged == ()


def test_a_note_that_cannot_be_written_waits(tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise MasqueError("the ledger cannot be written.")

    heard: list[str] = []
    with Store(tmp_path) as store:
        stored(store, owner="o")
        store.on_deletion(refuse)
        stored(store, owner="o", replace=True)
        assert store.entry("a").name == "a", "the upload is there"
        with pytest.raises(MasqueError, match="ledger"):
            store.delete("a")
        store.on_deletion(lambda entry, _: heard.append(entry.name))
    assert heard == ["a", "a"]


# -- quotas --------------------------------------------------------------------------------------


def test_what_a_job_spools_counts(tmp_path: Path) -> None:
    with Store(tmp_path, quota=Quota(1000)) as store:
        rows = store.spool((10, 8))
        with pytest.raises(Refused, match=r"may hold 1000 bytes; 800 bytes that a job needs"):
            store.spool((10, 10))
        with pytest.raises(Refused, match="this upload does not fit"):
            stored(store, rows=30)
        assert rows.shape == (10, 8) and store.size == 0
        del rows
        gc.collect()
        stored(store, rows=30)
        store.spool((5, 10))


def test_room_is_given_back_if_the_disk_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, os.strerror(28))

    with Store(tmp_path, quota=Quota(1000)) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            with pytest.raises(Refused, match="no room on its disk"):
                store.spool((10, 10))
        store.spool((10, 10))
    assert disk.BESIDE.startswith(".")
