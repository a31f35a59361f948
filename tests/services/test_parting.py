"""Telling parties that jobs have ended: what one of them cannot forget hinders no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from structlog.testing import capture_logs

from masque.errors import MasqueError, Unavailable
from masque.jobs.conducting import ConductedJob
from masque.jobs.record import Progress
from masque.jobs.states import State
from services.coordinator.parting import Parting
from services.coordinator.store import Store, StoredJob
from tests.jobs.examples import bound

JOBS = ("job-1", "job-2", "job-3")


class Parties:
    """Two parties, of which one has something against some jobs."""

    names = ("party-0", "party-1")

    def __init__(self) -> None:
        self.against: dict[str, MasqueError] = {}
        self.told: list[tuple[str, str]] = []

    def forget(self, party: str, job_id: str) -> None:
        self.told.append((party, job_id))
        if party == "party-1" and job_id in self.against:
            raise self.against[job_id]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """With three jobs that have ended, and nobody knows."""
    with closing(Store(tmp_path / "jobs.sqlite")) as made:
        for job_id in JOBS:
            job, begun = bound(job_id=job_id), ConductedJob(job_id, Parties.names, "dealer")
            progress = Progress(job_id, 1, "submitted").to_json()
            made.add(
                StoredJob(
                    job_id, "n", "a", job_id.encode(), job.canonical(), begun, progress, "", "now"
                )
            )
            ended = replace(begun, state=State.CANCELLED)
            made.update(ended, progress, error="", ended="now", sealed=(), tell=True)
        yield made


def parting(store: Store, parties: Parties) -> Parting:
    peers: Any = parties
    return Parting(store, lambda: peers)


def test_a_job_that_a_party_cannot_forget_does_not_hide_the_others(store: Store) -> None:
    parties = Parties()
    parties.against["job-1"] = MasqueError("what this party remembers of it cannot be read.")
    telling = parting(store, parties)
    with capture_logs() as logs:
        assert not telling._tell_all()
        assert store.owed() == {"party-1": {"job-1": store.owed()["party-1"]["job-1"]}}
        assert not telling._tell_all()
    assert parties.told.count(("party-1", "job-1")) == 2
    assert [line["job"] for line in logs if line["event"] == "end not heard"] == ["job-1"]
    parties.against.clear()
    assert telling._tell_all() and store.owed() == {}


def test_a_party_that_is_away_is_not_asked_for_every_job(store: Store) -> None:
    parties = Parties()
    parties.against = dict.fromkeys(JOBS, Unavailable("it does not answer."))
    assert not parting(store, parties)._tell_all()
    assert len([job for party, job in parties.told if party == "party-1"]) == 1
    assert list(store.owed()) == ["party-1"] and len(store.owed()["party-1"]) == 3
