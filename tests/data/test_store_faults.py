"""What a crash, a full disk or a damaged file does to a store."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masque.data.chunks import checksum
from masque.data.disk import BESIDE, sync
from masque.data.quota import Quota
from masque.data.rotation import rotate
from masque.data.store import Store
from masque.errors import (
    Conflict,
    MasqueError,
    Refused,
)
from tests.data.stores import files, send, stored, table


def crashed(directory: Path, copy: Path) -> Store:
    """The store as a process would find it that starts after the other was killed here."""
    shutil.copytree(directory, copy)
    return Store(copy)


def test_a_crash_at_any_moment_of_an_upload_loses_only_that_upload(tmp_path: Path) -> None:
    live = tmp_path / "live"
    with Store(live) as store:
        old = stored(store, "kept")
        info, words = table(7)
        moments = 0

        def crash_here() -> None:
            nonlocal moments
            moments += 1
            with crashed(live, tmp_path / f"crash{moments}") as found:
                assert [entry.name for entry in found.list()] == ["kept"]
                assert np.array_equal(found.rows("kept"), old)
                assert len(list((tmp_path / f"crash{moments}/shares").iterdir())) == 1

        writer = store.begin("new", info, "u")
        crash_here()
        for start in range(0, 7, 2):
            part = words[start : start + 2]
            payload = part.tobytes()
            writer.write(start, len(part), payload, checksum(payload))
            crash_here()
        writer.commit()
        with crashed(live, tmp_path / "after") as found:
            assert np.array_equal(found.rows("new"), words)


def test_a_crash_at_any_moment_of_a_replacement_keeps_one_whole_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "live"
    copies: list[Path] = []

    def snapshot(then: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            for moment in ("before", "after"):
                if moment == "after":
                    result = then(*arguments, **options)
                copies.append(tmp_path / f"copy{len(copies)}")
                shutil.copytree(live, copies[-1])
            return result

        return wrapped

    with Store(live) as store:
        old = stored(store)
        for module, name in ((os, "fsync"), (os, "replace"), (shutil, "rmtree")):
            monkeypatch.setattr(module, name, snapshot(getattr(module, name)))
        new = stored(store, rows=7, replace=True)
    monkeypatch.undo()
    assert len(copies) >= 10
    seen = set()
    for copy in copies:
        with Store(copy) as found:
            rows = found.rows("a")
            assert np.array_equal(rows, old) or np.array_equal(rows, new)
            assert found.damaged == ()
            assert len(list((copy / "shares").iterdir())) == 1
            seen.add(len(rows))
    assert seen == {10, 7}


def test_truncated_shares_are_reported_and_nothing_else_suffers(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        stored(store, "a")
        kept = stored(store, "b")
        rows = tmp_path / "shares" / store.entry("a").folder / "rows.u64"
        os.truncate(rows, 100)
        with pytest.raises(MasqueError, match="damaged"):
            store.rows("a")
    with Store(tmp_path) as store:
        assert store.damaged == ("a",)
        assert [entry.name for entry in store.list()] == ["b"]
        assert np.array_equal(store.rows("b"), kept)
        with pytest.raises(MasqueError, match="damaged"):
            store.info("a")
        with pytest.raises(Conflict):
            store.begin("a", table()[0], "u")
        store.delete("a")
        assert list(store.damaged) == []
        stored(store, "a")
    with Store(tmp_path) as store:
        assert len(store.list()) == 2


def test_an_unreadable_description_removes_nobody_elses_shares(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        stored(store, "a")
    description = tmp_path / "datasets" / "a.json"
    content = description.read_text()
    description.write_text(content[:-5])
    with Store(tmp_path) as store:
        assert store.damaged == ("a",)
    description.write_text(content)
    with Store(tmp_path) as store:
        assert np.array_equal(store.rows("a"), table()[1])


@pytest.mark.parametrize("moment", ["write", "flush", "create"])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Store(tmp_path) as store, open("/dev/full", "wb", buffering=0) as no_room:
        before = files(tmp_path)
        info, words = table()
        with monkeypatch.context() as patch:
            if moment != "write":
                module = "pages" if moment == "flush" else "upload"
                patch.setattr(f"masque.data.{module}.{moment}", fail)
            with pytest.raises(Refused, match="No space left on device"):  # noqa: PT012
                writer = store.begin("a", info, "u")
                if moment == "write":
                    patch.setattr(writer._pages, "_file", no_room)
                send(writer, words)
                writer.commit()
        assert files(tmp_path) == before
        assert store.size == 0
        stored(store)


def test_uploads_that_cannot_fit_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "small", quota=Quota(200)) as store:
        stored(store)
        with pytest.raises(Refused, match="may hold 200 bytes"):
            store.begin("b", table()[0], "u")
        store.delete("a")
        stored(store, "b")
    with Store(tmp_path / "full") as store:
        usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
        with pytest.raises(Refused, match="its disk is full"):
            store.begin("a", table()[0], "u")


def test_an_owner_deletes_and_replaces_what_is_damaged(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for name in ("gone", "again", "nobodys"):
            stored(store, name, owner="o")
            os.truncate(tmp_path / "shares" / store.entry(name).folder / "rows.u64", 100)
    (tmp_path / "datasets" / "nobodys.json").write_text("{")
    heard: list[tuple[str, bool]] = []
    with Store(tmp_path) as store:
        store.on_deletion(lambda entry, replaced: heard.append((entry.name, replaced)))
        assert store.damaged == ("again", "gone", "nobodys")
        for name in ("gone", "again"):
            with pytest.raises(Refused, match="belongs to somebody else"):
                store.delete(name, owner="other")
        with pytest.raises(Conflict, match="exists already"):
            stored(store, "again", owner="o")
        with pytest.raises(MasqueError, match="damaged"):
            store.delete("nobodys", owner="o")
        store.delete("gone", owner="o")
        words = stored(store, "again", rows=7, owner="o", replace=True)
        assert heard == [("gone", False), ("again", True)]
    with Store(tmp_path) as store:
        assert store.damaged == ("nobodys",)
        assert np.array_equal(store.rows("again"), words)


def test_an_owner_has_its_share_of_the_store(tmp_path: Path) -> None:
    """What others hold is no concern of its quota; what it is uploading is."""
    (info, _), (small, _) = table(10), table(5)
    most = 5 * info.share_bytes // 2
    there = info.share_bytes + small.share_bytes
    with Store(tmp_path, quota=Quota(None, most)) as store:
        stored(store, "a", 10, owner="clinic")
        stored(store, "b", 20, owner="lab")
        with store.begin("c", small, "upload-2", owner="clinic"):
            told = rf"'clinic' may have {most} bytes .*; {there} are there"
            with pytest.raises(Refused, match=told) as raised:
                store.begin("d", table(11)[0], "upload-3", owner="clinic")
        assert "limits.owner_bytes" in raised.value.hint and raised.value.where["owner"] == "clinic"
        stored(store, "d", 11, owner="clinic")
        store.delete("a")
        stored(store, "a", 10, owner="clinic")


class Failing:
    """A disk that fails to make names durable, for as long as `fails`."""

    def __init__(self, real: Callable[[Path], None]) -> None:
        self.real, self.fails = real, True

    def __call__(self, directory: Path) -> None:
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        self.real(directory)


@pytest.mark.parametrize("then", ["delete", "replace"])
def test_a_delete_that_the_disk_breaks_off_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    disk = Failing(sync)
    monkeypatch.setattr("masque.data.deletions.sync", disk)
    heard: list[tuple[str, bool]] = []
    with Store(tmp_path) as store:
        store.on_deletion(lambda entry, replaced: heard.append((entry.name, replaced)))
        stored(store)
        for _ in range(2):
            with pytest.raises(MasqueError, match="Input/output error"):
                store.delete("a")
        assert heard == []
        disk.fails = False
        if then == "delete":
            store.delete("a")
        words = stored(store, rows=7, replace=then == "replace")
        assert heard == [("a", then == "replace")]
        assert len(list((tmp_path / "shares").iterdir())) == 1
    with Store(tmp_path) as store:
        assert np.array_equal(store.rows("a"), words) and store.damaged == ()
    assert list((tmp_path / "deleted").iterdir()) == []


@pytest.mark.parametrize("before", [0, 10])
def test_an_upload_that_may_not_last_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    disk = Failing(sync)
    with Store(tmp_path) as store:
        if before:
            stored(store, rows=before)
        monkeypatch.setattr("masque.data.store.sync", disk)
        with pytest.raises(MasqueError, match="may not last: Input/output error") as raised:
            stored(store, rows=7, replace=bool(before))
        assert "--replace" in raised.value.hint
        assert np.array_equal(store.rows("a"), table(7)[1])
        assert len(list((tmp_path / "shares").iterdir())) == 1 + bool(before)
        disk.fails = False
        words = stored(store, rows=8, replace=True)
    with Store(tmp_path) as store:
        assert np.array_equal(store.rows("a"), words) and store.damaged == ()
        assert len(list((tmp_path / "shares").iterdir())) == 1


def test_what_a_crash_left_half_written_is_gone_after_the_next_start(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        stored(store)
    for folder in ("", "jobs", "approvals", "opened", "datasets", "kept", "checkpoints/job-1"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{BESIDE}0123").write_bytes(b"half")
    (tmp_path / "kept" / f"{BESIDE}4567").mkdir()
    (tmp_path / "kept" / f"{BESIDE}4567" / "job.json").write_bytes(b"half")
    with Store(tmp_path) as store:
        assert not [path for path in files(tmp_path) if BESIDE in path]
        assert np.array_equal(store.rows("a"), table()[1])


# -- who can write the disk, and has no key --------------------------------------------------------

FORGERIES: dict[str, dict[str, Any]] = {
    "no conditions": {"conditions": ""},
    "no conditions and no seal": {"conditions": "", "seal": ""},
    "other conditions": {"conditions": "forged"},
    "other conditions and no seal": {"conditions": "forged", "seal": ""},
    "another owner": {"owner": "mallory"},
    "another owner and no seal": {"owner": "mallory", "seal": ""},
    "another seal": {"seal": "0" * 64},
    "as of an old version": {"owner": "mallory", "seal": ..., "conditions": ...},
}


def forge(directory: Path, changes: dict[str, Any]) -> None:
    """In `a`; and nothing is left that could tell that there were seals before."""
    path = directory / "datasets" / "a.json"
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not ...}))
    for other in directory.iterdir():
        if other.name not in ("key", "key.next", "datasets", "shares"):
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    for left in (directory / "datasets").glob(".*"):
        left.unlink()


@pytest.mark.parametrize("changes", FORGERIES.values(), ids=FORGERIES)
def test_nobody_without_the_key_says_whose_data_it_is_or_what_for(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with Store(tmp_path) as store:
        stored(store, "a", owner="clinic", conditions="what clinic has signed")
        stored(store, "b", owner="clinic")
    whole = (tmp_path / "datasets" / "a.json").read_bytes()
    forge(tmp_path, changes)
    for _ in range(2):
        with Store(tmp_path) as store:
            assert store.damaged == ("a",)
            assert [entry.name for entry in store.list()] == ["b"]
            with pytest.raises(MasqueError, match="damaged"):
                store.entry("a")
    with pytest.raises(MasqueError, match="damaged"):
        rotate(tmp_path)
    (tmp_path / "datasets" / "a.json").write_bytes(whole)
    rotate(tmp_path)
    with Store(tmp_path) as store:
        entry = store.entry("a")
        assert (entry.owner, entry.conditions) == ("clinic", "what clinic has signed")
        assert store.damaged == ()


@pytest.mark.parametrize("changes", FORGERIES.values(), ids=FORGERIES)
def test_a_rotation_that_was_broken_off_seals_no_forgery(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Neither of what was changed over before it broke off, nor of what is still to come."""
    with Store(tmp_path) as store:
        stored(store, "a", owner="clinic", conditions="what clinic has signed")
    old = (tmp_path / "key").read_bytes()
    rotate(tmp_path)
    os.rename(tmp_path / "key", tmp_path / "key.next")
    (tmp_path / "key").write_bytes(old)
    forge(tmp_path, changes)
    with pytest.raises(MasqueError, match="damaged"):
        rotate(tmp_path)


@pytest.mark.parametrize("rotated", [False, True])
def test_a_deletion_that_waits_to_be_noted_is_told_as_it_was(tmp_path: Path, rotated: bool) -> None:
    with Store(tmp_path) as store:
        for name in ("a", "b"):
            stored(store, name, owner="clinic")
            store.delete(name)
    path = next(path for path in (tmp_path / "deleted").iterdir() if b'"a"' in path.read_bytes())
    path.write_text(path.read_text().replace("clinic", "mallory"))
    if rotated:
        rotate(tmp_path)
    told: dict[str, bool] = {}
    with Store(tmp_path) as store:
        store.on_deletion(lambda entry, _: told.update({entry.name: entry.intact(store.key)}))
    assert told == {"a": False, "b": True}
