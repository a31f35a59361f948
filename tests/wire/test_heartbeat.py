"""Signs of life while somebody waits: none is missing, none is too many, the answer comes last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from masque.errors import Refused
from masque.wire import tracing
from masque.wire.heartbeat import Heartbeat, begin

SIGN = "."


def beating(work: Callable[[], str], sign: Callable[[], str], every: float) -> Iterator[str]:
    return Heartbeat().beating("work", work, lambda doing, moved: sign(), every)


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
    asked = Heartbeat().beating("work", tracing.request, lambda doing, moved: SIGN, every=60.0)
    assert list(asked) == [tracing.request()]


def told(doing: str, moved: int) -> tuple[str, int]:
    return doing, moved


def test_work_that_hangs_lives_and_does_not_move() -> None:
    go = threading.Event()

    def work() -> tuple[str, int]:
        begin("writes down the attempt")
        assert go.wait(60)
        return "done", 0

    said = Heartbeat().beating("work", work, told, every=0.2)
    next(said)
    signs = {next(said) for _ in range(5)}
    go.set()
    assert len(signs) == 1 and signs.pop()[0] == "writes down the attempt"
    assert list(said)[-1] == ("done", 0)


def test_work_that_computes_moves() -> None:
    over = threading.Event()

    def work() -> tuple[str, int]:
        begin("compiles the job")
        while not over.is_set():
            pass
        return "done", 0

    said = Heartbeat().beating("work", work, told, every=0.2)
    numbers = [next(said)[1] for _ in range(6)]
    over.set()
    assert numbers == sorted(numbers) and numbers[-1] > numbers[0] + 3


def test_a_new_step_is_a_move_and_other_threads_have_none() -> None:
    step, seen = threading.Event(), threading.Event()

    def work() -> tuple[str, int]:
        begin("one")
        assert step.wait(60)
        begin("two")
        assert seen.wait(60)
        return "done", 0

    said = Heartbeat().beating("work", work, told, every=0.2)
    begin("nobody waits for this thread")
    before = next(said)
    step.set()
    time.sleep(0.1)
    after = next(said)
    seen.set()
    assert (before[0], after[0]) == ("one", "two") and after[1] > before[1]


def test_who_waits_for_the_same_work_sees_it_move() -> None:
    heart, over = Heartbeat(), threading.Event()

    def first() -> tuple[str, int]:
        begin("compiles the job")
        while not over.is_set():
            pass
        return "done", 0

    def second() -> tuple[str, int]:
        assert over.wait(60)
        return "the same", 0

    one = heart.beating("job", first, told, every=0.1)
    next(one)
    two = heart.beating("job", second, told, every=0.2)
    signs = [next(two) for _ in range(5)]
    over.set()
    assert {doing for doing, _ in signs} == {"compiles the job"} and signs[-1][1] > signs[0][1]
    assert list(two)[-1] == ("the same", 0) and list(one)[-1] == ("done", 0)
    assert not heart._works
