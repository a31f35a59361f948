"""Exchanges that are being opened: cut, aborted, opened twice, or by nobody else."""

from __future__ import annotations

import threading
import time

import pytest

from masque.errors import Conflict, JobFailed, MasqueError, Unavailable
from masque.wire.links import Link
from tests.wire.conftest import Project
from tests.wire.parties import Ring, ring


def test_an_attempt_is_used_once(pair: Ring) -> None:
    pair.run(lambda index, exchange: exchange.swap(b"x"))
    for error in pair.run(lambda index, exchange: exchange.swap(b"x")):
        assert isinstance(error, Conflict)
        assert "Attempt 1 of job 'job'" in str(error)
        assert "next attempt 2" in str(error)


def test_a_connection_cut_while_it_opens_is_no_attempt_used_twice(
    pair: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, cut = Link.receive, threading.Event()

    def cut_once(link: Link) -> bytes:
        found = receive(link)
        if link.peer == "ben" and not cut.is_set():
            cut.set()
            link.hang_up()
            raise Unavailable("Party 'ben' does not answer.")
        return found

    monkeypatch.setattr(Link, "receive", cut_once)
    for error in pair.run(lambda index, exchange: exchange.swap(b"x")):
        assert isinstance(error, MasqueError) and not isinstance(error, Conflict)
        assert "does not answer" in str(error)


def test_a_party_that_never_opens_is_named(three: Ring) -> None:
    results = three.run(lambda index, exchange: None, [0, 1], opening=1.0)
    assert all(isinstance(error, MasqueError) for error in results)
    assert any(isinstance(e, Unavailable) and e.where["party"] == "cyd" for e in results)
    for error in results:
        assert "cyd" in str(error)


def test_nobody_listens_where_the_peer_should_be(project: Project) -> None:
    with ring(project, 2) as two:
        two.sites[1].server.stop(0).wait()
        (error,) = two.run(lambda index, exchange: None, [0], opening=1.0)
    assert isinstance(error, Unavailable)
    assert "arty 'ben' does not answer" in str(error)
    assert "Job 'job', opening" in str(error)


def test_an_abort_before_opening_is_final(pair: Ring) -> None:
    with pair.exchange(0) as exchange:
        exchange.abort("Too many jobs.")
        with pytest.raises(JobFailed, match="Too many jobs"):
            exchange.open()
    assert not pair.sites[0].hub._open


def test_an_abort_ends_the_opening(pair: Ring) -> None:
    with pair.exchange(0, opening=20.0) as exchange:
        threading.Timer(0.4, exchange.abort, ("The job was cancelled.",)).start()
        began = time.monotonic()
        with pytest.raises(JobFailed, match="The job was cancelled"):
            exchange.open()
        assert time.monotonic() - began < 5
    assert not pair.sites[0].hub._open
