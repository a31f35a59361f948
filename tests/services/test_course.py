"""The course of one job, with services that are not there and a disk in the test's hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from masque.client.ports import free_ports
from masque.errors import Conflict, MasqueError, Unavailable
from masque.jobs.bound import BoundJob
from masque.jobs.conducting import Cancel, ConductedJob, Stopped
from masque.jobs.record import Progress
from masque.jobs.states import State
from masque.wire.authority import create_authority
from masque.wire.identity import Identity, Role
from masque.wire.settings import PeerSettings, TlsSettings
from masque.wire.tls import find_credentials
from services.coordinator.board import Board
from services.coordinator.course import Course
from services.coordinator.figures import Tally
from services.coordinator.peers import Peers
from services.coordinator.room import Lent, Room
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.store import Store, StoredJob
from tests.jobs.examples import bound

PATIENCE = 60.0


class Disk(Store):
    """A store that, once a job has ended, first waits for the test, and may be full."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writing, self.go, self.full = threading.Event(), threading.Event(), False

    def update(self, job: ConductedJob, *arguments: Any, **more: Any) -> None:
        if job.ended:
            self.writing.set()
            assert self.go.wait(PATIENCE)
            if self.full:
                raise MasqueError("the coordinator's job store cannot be written: it is full.")
        super().update(job, *arguments, **more)


@contextmanager
def a_course(
    folder: Path, open_peers: Callable[[], Peers] | None = None, room: Room | None = None
) -> Iterator[tuple[Course, Disk, threading.Thread]]:
    """Of a job whose dealer and parties nobody has started, run in a thread."""
    authority = create_authority(folder / "authority", "demo")
    authority.issue(Identity("demo", Role.COORDINATOR, "coordinator"), folder / "own")
    credentials = find_credentials(folder / "own")
    names = ("dealer", "party-0", "party-1")
    dealer, *parties = (
        PeerSettings(name=name, address=f"127.0.0.1:{port}")
        for name, port in zip(names, free_ports(3), strict=True)
    )
    settings = CoordinatorSettings(
        name="coordinator",
        project="demo",
        listen="127.0.0.1:0",
        tls=TlsSettings(directory=folder / "own"),
        store=folder / "jobs.sqlite",
        dealer=dealer,
        parties=tuple(parties),
    )
    job, begun = bound(), ConductedJob("job-1", ("party-0", "party-1"), "dealer")
    progress = Progress("job-1", 1, "submitted").to_json()
    with closing(Disk(settings.store)) as disk:
        disk.add(StoredJob("job-1", "n", "a", b"r", job.canonical(), begun, progress, "", "now"))
        course = Course(
            disk,
            Board(disk),
            open_peers or (lambda: Peers(settings, credentials)),
            job,
            begun,
            settings,
            Tally(),
            room or Room(1),
        )
        thread = threading.Thread(target=_run, args=(course,))
        thread.start()
        try:
            yield course, disk, thread
        finally:
            disk.go.set()
            course.park()
            thread.join(PATIENCE)


class Glances(Peers):
    """Services that answer, and take their time over a review."""

    def __init__(self) -> None:
        self.looked_at, self.go, self.closed = threading.Event(), threading.Event(), False

    def absent(self) -> None:
        return None

    def review(self, party: str, job: BoundJob) -> list[str]:
        self.looked_at.set()
        assert self.go.wait(PATIENCE)
        return []

    def lent(self) -> dict[str, Lent]:
        return {"dealer": Lent(8)}

    def heed(self) -> None:
        return None

    def cancel(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True


def test_a_job_that_is_cancelled_while_it_looks_for_room_takes_none(tmp_path: Path) -> None:
    """The look ends after the job: the room that it finds was never given back."""
    glances, room = Glances(), Room(1)
    with a_course(tmp_path, lambda: glances, room) as (course, disk, thread):
        assert glances.looked_at.wait(PATIENCE)
        disk.go.set()
        assert course.ask(Cancel("analyst"), PATIENCE) is State.CANCELLED
        thread.join(PATIENCE)
        glances.go.set()
        end = time.monotonic() + PATIENCE
        while not glances.closed and time.monotonic() < end:
            time.sleep(0.01)
        assert glances.closed, "nothing stays open"
        assert room.claim("job-2", lambda: 0, glances.lent()) is None
        assert room.crowded("job-3") is not None, "job-2 alone has room now"


def test_a_cancel_that_is_not_stored_in_time_is_not_promised(tmp_path: Path) -> None:
    """The disk has hung: the client hears neither yes nor no, and nothing has ended yet."""
    with a_course(tmp_path) as (course, disk, _):
        with pytest.raises(Unavailable, match="could not do it just now"):
            course.ask(Cancel("analyst"), 0.3)
        assert disk.writing.is_set() and not course.job.ended
        disk.full = True


def _run(course: Course) -> None:
    try:
        course.run()
    except MasqueError as error:
        assert "it is full" in str(error)  # noqa: PT017 - in a thread


class Asked(threading.Thread):
    """A client's request, in a thread of its own."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self._course = course
        self.state: State | None = None
        self.error: MasqueError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.state = self._course.ask(Cancel("analyst"), PATIENCE)
        except MasqueError as error:
            self.error = error


def test_who_cancels_hears_that_it_is_done_however_slow_the_disk(tmp_path: Path) -> None:
    with a_course(tmp_path) as (course, disk, _):
        asked = Asked(course)
        assert disk.writing.wait(PATIENCE)
        time.sleep(0.5)  # the job has ended, and nobody has been told
        disk.go.set()
        asked.join(PATIENCE)
        assert (asked.state, asked.error) == (State.CANCELLED, None)
        with pytest.raises(Conflict, match="job-1 cannot be cancelled: it is cancelled"):
            course.ask(Cancel("analyst"))


def test_who_cancels_what_cannot_be_stored_hears_that_it_is_not_done(tmp_path: Path) -> None:
    with a_course(tmp_path) as (course, disk, thread):
        disk.full = True
        asked = Asked(course)
        disk.go.set()
        asked.join(PATIENCE)
        thread.join(PATIENCE)
        assert isinstance(asked.error, Unavailable)
        found = disk.job("job-1")
        assert found is not None and found.conducted.state is State.SUBMITTED


def test_who_cancels_as_the_coordinator_stops_is_told_to_try_again(tmp_path: Path) -> None:
    with a_course(tmp_path) as (course, disk, thread):
        assert course.ask(Stopped(), PATIENCE) is State.SUBMITTED
        thread.join(PATIENCE)
        with pytest.raises(Unavailable, match="could not do it just now"):
            course.ask(Cancel("analyst"))
        found = disk.job("job-1")
        assert found is not None and found.conducted.state is State.SUBMITTED
