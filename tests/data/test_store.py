"""The store holds whole data sets or nothing, whatever happens to it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.data.chunks import checksum
from masque.data.store import Store
from masque.errors import (
    Conflict,
    InputError,
    MasqueError,
    NotFound,
    ProtocolError,
    Refused,
)
from tests.data.stores import SCHEMA, WITH_IDENTIFIERS, files, send, stored, table


def test_what_was_sent_is_what_is_read(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        words = stored(store, owner="clinic")
        assert np.array_equal(store.rows("a"), words)
        entry = store.entry("a")
        assert (entry.name, entry.owner, entry.upload_id) == ("a", "clinic", "upload-1")
        assert store.info("a") == SCHEMA.describe(10)
        assert store.size == entry.size == 160
    with Store(tmp_path) as again:
        assert again.list() == [entry]
        assert np.array_equal(again.rows("a"), words)


@given(st.integers(0, 12), st.integers(0, 12))
def test_any_slice_of_rows_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, start: int, stop: int
) -> None:
    with Store(tmp_path_factory.mktemp("store")) as store:
        words = stored(store)
        assert np.array_equal(store.rows("a", slice(start, stop)), words[start:stop])
        assert store.rows("a", slice(start, stop)).shape == words[start:stop].shape


def test_rows_are_fresh_arrays(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        words = stored(store)
        store.rows("a")[:] = 0
        assert np.array_equal(store.rows("a"), words)


def test_nothing_shows_before_commit_or_after_abort(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        before = files(tmp_path)
        info, words = table()
        with store.begin("a", info, "u") as writer:
            send(writer, words)
            assert store.list() == []
            with pytest.raises(NotFound):
                store.rows("a")
        assert store.list() == []
        assert files(tmp_path) == before
        with pytest.raises(ProtocolError, match="is over"):
            writer.commit()


CHUNKS = [
    ((4, 4, 64, 0), "begins at row 4 where row 0 is due"),
    ((0, 4, 63, 0), "has 63 bytes, not 64"),
    ((0, 5, 64, 0), "has 64 bytes, not 80"),
    ((0, 0, 0, 0), "a chunk of 0 rows"),
    ((0, -1, 0, 0), "a chunk of -1 rows"),
    ((0, 11, 176, 0), "a chunk of 11 rows at row 0 of 10"),
    ((0, 4, 64, 1), "does not match its checksum"),
]


@pytest.mark.parametrize(("chunk", "said"), CHUNKS)
def test_a_wrong_chunk_ends_the_upload(
    tmp_path: Path, chunk: tuple[int, int, int, int], said: str
) -> None:
    first, rows, size, wrong = chunk
    with Store(tmp_path) as store:
        before = files(tmp_path)
        writer = store.begin("a", table()[0], "u")
        payload = bytes(size)
        with pytest.raises(ProtocolError, match=said):
            writer.write(first, rows, payload, checksum(payload) ^ wrong)
        assert files(tmp_path) == before
        with pytest.raises(ProtocolError, match="is over"):
            send(writer, table()[1])


def test_a_chunk_may_not_be_huge(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        info, words = table(2**18)
        writer = store.begin("a", info, "u")
        with pytest.raises(ProtocolError, match="larger than"):
            send(writer, words, 2**18)


def test_an_upload_that_ends_early_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        info, words = table()
        writer = store.begin("a", info, "u")
        send(writer, words[:8])
        with pytest.raises(ProtocolError, match="ended after 8 of 10 rows"):
            writer.commit()
        assert store.list() == []


def test_identifier_digests_belong_to_tables_that_have_them(tmp_path: Path) -> None:
    info = WITH_IDENTIFIERS.describe(1)
    words = np.arange(4, dtype=np.uint64)
    row = bytes(8)
    with Store(tmp_path) as store:
        with store.begin("a", info, "u") as writer:
            writer.write(0, 1, row, checksum(row))
            writer.write_identifiers(words.tobytes())
            writer.commit()
        assert store.identifiers("a").tolist() == [0, 1, 2, 3]
        with store.begin("b", info, "u") as writer:
            writer.write(0, 1, row, checksum(row))
            with pytest.raises(ProtocolError, match="without its identifier digest"):
                writer.commit()
        with store.begin("b", info, "u") as writer, pytest.raises(ProtocolError):
            writer.write_identifiers(bytes(31))
        with store.begin("b", info, "u") as writer:
            writer.write_identifiers(bytes(32))
            with pytest.raises(ProtocolError, match="twice"):
                writer.write_identifiers(bytes(32))
        with store.begin("b", table()[0], "u") as writer, pytest.raises(ProtocolError):
            writer.write_identifiers(bytes(32))
        stored(store, "c")
        with pytest.raises(NotFound, match="no identifiers"):
            store.identifiers("c")


BAD_NAMES = [
    "",
    ".",
    "..",
    "../a",
    "a/b",
    "/etc/passwd",
    "a\x00b",
    ".a",
    "-a",
    "a" * 65,
    "ä",
    "a\n",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_cannot_leave_the_directory(tmp_path: Path, name: str) -> None:
    with Store(tmp_path / "store") as store:
        for use in (store.info, store.rows, store.delete, store.identifiers):
            with pytest.raises(InputError, match="cannot be the name"):
                use(name)
        with pytest.raises(InputError, match="cannot be the name"):
            store.begin(name, table()[0], "u")
    assert files(tmp_path) == [
        "store",
        "store/datasets",
        "store/deleted",
        "store/key",
        "store/lock",
        "store/shares",
    ]


def test_upload_ids_are_plain(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for upload_id in ("", "a/b", "a" * 65, "a b"):
            with pytest.raises(InputError, match="upload id"):
                store.begin("a", table()[0], upload_id)


def test_a_name_that_exists_needs_replace_and_its_owner(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        words = stored(store, owner="one")
        info, _ = table()
        with pytest.raises(Conflict, match="--replace"):
            store.begin("a", info, "u", owner="one")
        with pytest.raises(Refused, match="somebody else"):
            store.begin("a", info, "u", owner="two", replace=True)
        with pytest.raises(Refused, match="somebody else"):
            store.delete("a", owner="two")
        assert np.array_equal(store.rows("a"), words)
        replaced = stored(store, rows=7, owner="one", replace=True)
        assert np.array_equal(store.rows("a"), replaced)
        assert len(list((tmp_path / "shares").iterdir())) == 1


def test_two_uploads_of_one_name_cannot_both_win(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        info, words = table()
        writers = [store.begin("a", info, f"u{index}") for index in range(2)]
        for writer in writers:
            send(writer, words)
        writers[1].commit()
        with pytest.raises(Conflict):
            writers[0].commit()
        assert store.entry("a").upload_id == "u1"
        assert len(list((tmp_path / "shares").iterdir())) == 1


def test_deleting_removes_the_shares(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.on_deletion(lambda *_: None)
        before = files(tmp_path)
        stored(store)
        store.delete("a")
        assert files(tmp_path) == before
        with pytest.raises(NotFound, match="masque datasets"):
            store.delete("a")


def test_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with Store(tmp_path / "store") as store:
            stored(store)
    finally:
        os.umask(old)
    for path in (tmp_path / "store").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(Conflict, match="in use"):
        Store(tmp_path)
    Store(tmp_path).close()


def test_many_threads_may_use_it(tmp_path: Path) -> None:
    problems: list[BaseException] = []

    def work(store: Store, index: int) -> None:
        try:
            words = stored(store, f"set-{index}", rows=50 + index)
            assert np.array_equal(store.rows(f"set-{index}"), words)
            if index % 2:
                store.delete(f"set-{index}")
        except BaseException as problem:
            problems.append(problem)

    with Store(tmp_path) as store:
        threads = [threading.Thread(target=work, args=(store, index)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert [entry.name for entry in store.list()] == ["set-0", "set-2", "set-4", "set-6"]


def test_closing_gives_up_unfinished_uploads(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = store.begin("a", table()[0], "u")
    store.close()
    assert list((tmp_path / "shares").iterdir()) == []
    with pytest.raises(ProtocolError, match="is over"):
        send(writer, table()[1])


def test_no_share_shows_in_reprs_or_errors(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        info, words = table()
        writer = store.begin("a", info, "u")
        assert str(words[0, 0]) not in repr(writer)
        payload = words.tobytes()
        with pytest.raises(ProtocolError) as caught:
            writer.write(0, 10, payload, 0)
        assert repr(payload)[2:20] not in str(caught.value)


def test_an_opened_data_set_stays_the_same(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        words = stored(store)
        with store.open("a") as dataset:
            stored(store, rows=7, replace=True)
            assert np.array_equal(dataset.rows(slice(2, 9)), words[2:9])
            store.delete("a")
            assert np.array_equal(dataset.rows(), words)
            assert dataset.entry.info.rows == 10
        assert os.listdir(tmp_path / "shares") == []


def test_shares_are_encrypted_and_files_never_alike(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        words = stored(store, "a", rows=20_000)
        stored(store, "b", rows=20_000)
        one, other = (
            (tmp_path / "shares" / store.entry(name).folder / "rows.u64").read_bytes()
            for name in ("a", "b")
        )
    content = words.tobytes()
    assert len(one) == len(content) + 16 * 5
    for start in range(0, len(content), 4096):
        assert content[start : start + 32] not in one
        assert one[start : start + 32] not in other


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        words = stored(store, rows=20_000)
        path = tmp_path / "shares" / store.entry("a").folder / "rows.u64"
        content = bytearray(path.read_bytes())
        for at in (0, 70_000, len(content) - 1):
            content[at] ^= 1
            path.write_bytes(content)
            with pytest.raises(MasqueError, match="damaged"):
                store.rows("a")
            content[at] ^= 1
        swapped = content[65_552:131_104] + content[:65_552] + content[131_104:]
        path.write_bytes(swapped)
        with pytest.raises(MasqueError, match="damaged"):
            store.rows("a", slice(0, 5))
        path.write_bytes(content)
        assert np.array_equal(store.rows("a"), words)
        assert np.array_equal(store.rows("a", slice(4000, 13_000)), words[4000:13_000])


def test_the_key_may_lie_elsewhere_and_must_be_the_right_one(tmp_path: Path) -> None:
    where, key = tmp_path / "store", tmp_path / "key"
    with Store(where, key_file=key) as store:
        words = stored(store)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not (where / "key").exists()
    with pytest.raises(MasqueError, match="is missing"):
        Store(where)
    secret = key.read_bytes()
    for wrong, said in ((secret[:-1], "is not the key"), (bytes(32), "under another key")):
        key.write_bytes(wrong)
        with pytest.raises(MasqueError, match=said):
            Store(where, key_file=key)
    key.write_bytes(secret)
    with Store(where, key_file=key) as store:
        assert np.array_equal(store.rows("a"), words)
        assert secret.hex() not in repr(store._key) and "key" not in repr(store.entry("a")).split()
    secret_pieces = [secret[start : start + 8] for start in range(0, 32, 8)]
    for path in where.rglob("*"):
        if path.is_file():
            assert not any(piece in path.read_bytes() for piece in secret_pieces)
