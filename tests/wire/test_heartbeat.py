"""Signs of life while somebody waits: none is missing, none is too many, the answer comes last."""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from masque.errors import Refused
from masque.wire import tracing
from masque.wire.heartbeat import beating

SIGN = "."


def test_an_answer_that_is_there_needs_no_sign_of_life() -> None:
    assert list(beating(lambda: "done", lambda: SIGN, every=60.0)) == ["done"]


def test_signs_come_for_as_long_as_the_work_lasts() -> None:
    go = threading.Event()

    def work() -> str:
        assert go.wait(60)
        return "done"

    said = beating(work, lambda: SIGN, every=0.01)
    assert [next(said) for _ in range(3)] == [SIGN] * 3
    go.set()
    *signs, answer = said
    assert answer == "done" and set(signs) <= {SIGN}


@pytest.mark.parametrize("error", [Refused("no"), TimeoutError("the disk"), KeyError("ours")])
def test_what_the_work_raises_is_raised(error: Exception) -> None:
    def work() -> str:
        raise error

    with pytest.raises(type(error)) as caught:
        list(beating(work, lambda: SIGN, every=60.0))
    assert caught.value is error


class Sudden(Future[str]):
    """Ends at the very moment at which whoever waits for it loses patience."""

    def result(self, timeout: float | None = None) -> str:
        if self.done():
            return super().result()
        self.set_result("done")
        raise TimeoutError


def test_work_that_ends_as_we_lose_patience_has_ended_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *_: Sudden())
    assert list(beating(lambda: "done", lambda: SIGN, every=60.0)) == ["done"]


def test_a_caller_that_leaves_does_not_end_the_work() -> None:
    go, over = threading.Event(), threading.Event()

    def work() -> str:
        assert go.wait(60)
        over.set()
        return "done"

    said = beating(work, lambda: SIGN, every=0.01)
    assert next(said) == SIGN
    assert isinstance(said, Generator)
    said.close()
    go.set()
    assert over.wait(60)


def test_the_work_belongs_to_the_request_that_asked_for_it() -> None:
    tracing.adopt(tracing.fresh())
    assert list(beating(tracing.request, lambda: SIGN, every=60.0)) == [tracing.request()]
