"""The coordinator's store, its watchers, and whom it blames."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from masque.errors import (
    Conflict,
    JobFailed,
    MasqueError,
    Refused,
    Unavailable,
)
from masque.jobs.conducting import Committed, ConductedJob
from masque.jobs.record import Progress
from masque.jobs.states import State
from services.coordinator.blame import blame
from services.coordinator.board import Board
from services.coordinator.store import Sealed, Store, StoredJob


def conducted(job_id: str = "j-1", state: State = State.SUBMITTED) -> ConductedJob:
    return ConductedJob(job_id, ("a", "b"), "dealer", state=state)


def stored(job_id: str = "j-1") -> StoredJob:
    progress = Progress(job_id, 1, "submitted").to_json()
    job = conducted(job_id)
    return StoredJob(job_id, "name", "analyst", b"r", b"{}", job, progress, "", "2030-01-01")


# -- store ---------------------------------------------------------------------------------------


def test_a_job_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    job = replace(
        conducted(state=State.TRAINING),
        program=b"\x07" * 32,
        round_names=("prepare", "epoch 1"),
        round=1,
        waiting=frozenset({"b"}),
        stopping=frozenset({"a"}),
        resumed=Committed(1, 2, False),
        committed=Committed(2, 5, True),
        committing=frozenset({"b"}),
        begun=12.5,
    )
    with Store(path) as store:
        store.add(stored())
        sealed = (Sealed("a", "weights", "analyst", b"\x00\xff"),)
        store.update(job, "{}", sealed=sealed)
    with Store(path) as store:
        found = store.job("j-1")
        assert found is not None
        assert found.conducted == replace(job, round_names=()), (
            "these are known by the next attempt"
        )
        assert store.sealed("j-1", 1, "analyst") == list(sealed)
        assert store.sealed("j-1", 2, "analyst") == []
        assert [event.state for event in store.events("j-1", 0)] == ["submitted", "training"]
        assert [event.number for event in store.events("j-1", 1)] == [2]
        assert store.unfinished() == [found]
    assert path.stat().st_mode & 0o077 == 0


def test_an_id_belongs_to_one_job(tmp_path: Path) -> None:
    with Store(tmp_path / "jobs.sqlite") as store:
        store.add(stored())
        with pytest.raises(Conflict, match=r"There are two specs for one job id, j-1\."):
            store.add(stored())
        assert len(store.events("j-1", 0)) == 1, "nothing of the second was kept"


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"this is no database, and long enough to be taken for one" * 20)
    with pytest.raises(MasqueError, match=r"The job store .*jobs.sqlite cannot be used"):
        Store(path)
    other = tmp_path / "later.sqlite"
    Store(other).close()
    with sqlite3.connect(other) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(MasqueError, match="has format 99, this version of Masque reads 4"):
        Store(other)


def test_a_store_of_an_earlier_format_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with Store(path) as store:
        store.add(stored())
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript("ALTER TABLE jobs DROP COLUMN trace; PRAGMA user_version=1;")
    with Store(path) as store:
        store.add(replace(stored("j-2"), trace="00-..."))
        assert [job.trace for job in store.jobs(2)] == ["00-...", ""]
    with Store(path) as store:
        assert store.job("j-1") == stored()


def test_who_has_not_heard_of_an_end_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    job = stored().conducted
    with Store(path) as store:
        store.add(stored())
        store.update(replace(job, state=State.TRAINING), "{}")
        assert store.owed() == {}, "it has not ended"
        store.update(replace(job, state=State.FAILED), "{}", ended="now")
        store.heard(job.parties[0], "j-1")
    with Store(path) as store:
        assert store.owed() == {party: {"j-1": ""} for party in job.parties[1:]}
        store.heard(job.parties[1], "j-1")
        assert store.owed() == {}


def test_what_was_interrupted_in_an_earlier_format_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with Store(path) as store:
        store.add(stored())
        store.add(stored("j-2"))
    with contextlib.closing(sqlite3.connect(path)) as database:
        text = "UPDATE jobs SET conducted = json_set(conducted, '$.state', 'interrupted')"
        database.executescript(f"{text} WHERE job_id = 'j-1'; PRAGMA user_version=2;")
    with Store(path) as store:
        assert [job.conducted.state for job in store.jobs(2)] == [State.SUBMITTED, State.FAILED]


WRITER = """
import sys
from pathlib import Path
from tests.services.test_coordinator import stored
from services.coordinator.store import Store
store = Store(Path(sys.argv[1]))
for number in range(100000):
    store.add(stored(f"j-{number}"))
    print(number, flush=True)
"""


def test_what_was_stored_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    command = [sys.executable, "-c", WRITER, str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 20:
                break
        process.kill()
        told = int(line)
        rest = process.stdout.read().split()
        told = int(rest[-1]) if rest else told
    with Store(path) as store:
        for number in range(told + 1):
            assert store.job(f"j-{number}") is not None
            assert len(store.events(f"j-{number}", 0)) == 1


# -- watching ------------------------------------------------------------------------------------


def test_watchers_see_everything_once_and_in_order(tmp_path: Path) -> None:
    with Store(tmp_path / "jobs.sqlite") as store:
        board = Board(store)
        store.add(stored())
        seen: list[list[str]] = [[], []]

        def watch(index: int) -> None:
            seen[index] = [event.state for event in board.watch("j-1", lambda: True)]

        threads = [threading.Thread(target=watch, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for state in (State.PREPARING, State.TRAINING, State.FAILED):
            store.update(conducted(state=state), "{}", ended="now" if state is State.FAILED else "")
            board.notify("j-1", over=state is State.FAILED)
        for thread in threads:
            thread.join(5)
        assert seen == [["submitted", "preparing", "training", "failed"]] * 2


def test_a_board_that_closes_lets_watchers_go(tmp_path: Path) -> None:
    with Store(tmp_path / "jobs.sqlite") as store:
        board = Board(store)
        store.add(stored())
        events = board.watch("j-1", lambda: True)
        assert next(events).state == "submitted"
        threading.Timer(0.1, board.close).start()
        with pytest.raises(Unavailable, match="The coordinator is stopping"):
            next(events)


# -- blame ---------------------------------------------------------------------------------------

EVERYBODY = frozenset({"a", "b", "c", "dealer"})


@pytest.mark.parametrize(
    ("failures", "first", "culprit"),
    [
        ({"a": Unavailable("gone", service="party 'a'")}, "a", "a"),
        ({"a": Unavailable("b left", peer="b")}, "a", "b"),
        ({"a": JobFailed("x", service="dealer 'dealer'")}, "a", "dealer"),
        (
            {"a": Unavailable("b left", party="b"), "b": Unavailable("x", peer="dealer")},
            "a",
            "dealer",
        ),
        ({"a": Unavailable("b left", peer="b"), "b": Unavailable("a left", peer="a")}, "a", "a"),
        ({"a": Refused("no", party="a", service="party 'a'")}, "a", "a"),
        ({"a": Unavailable("stranger", peer="z")}, "a", "a"),
    ],
)
def test_blame_follows_the_accusations(
    failures: dict[str, MasqueError], first: str, culprit: str
) -> None:
    assert blame(first, failures, EVERYBODY)[0] == culprit
