"""What a person reads of a job under way: that it waits, for whom and why, is no end of it."""

from __future__ import annotations

import io
from typing import Any

import pytest

from masque.client.display import describe, following, waiting
from masque.client.jobs import JobEvent
from masque.errors import JobFailed
from masque.jobs.record import Progress


def event(state: str, *, ended: bool = False, **known: Any) -> JobEvent:
    error = JobFailed("over") if ended and state != "succeeded" else None
    progress = Progress("job-1", known.pop("attempt", 1), state, **known)
    return JobEvent(state, progress, ended, error)


SILENT: dict[str, Any] = {"culprit": "party-2", "reason": "preparing: no sign of life for 60 s"}


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (
            SILENT | {"round": 3, "of": 10},
            "waiting for party-2: preparing: no sign of life for 60 s;"
            " then it goes on after round 3 of 10",
        ),
        (
            SILENT | {"round": 3},
            "waiting for party-2: preparing: no sign of life for 60 s;"
            " then it goes on after round 3",
        ),
        (
            {"culprit": "party-2", "reason": "party-2 was stopped"},
            "waiting: party-2 was stopped; then it begins anew",
        ),
        (
            {"reason": "the coordinator was restarted", "round": 1, "of": 4},
            "waiting: the coordinator was restarted; then it goes on after round 1 of 4",
        ),
    ],
)
def test_a_job_that_waits_says_for_whom_and_where_it_goes_on(
    known: dict[str, Any], text: str
) -> None:
    found = event("waiting", **known)
    assert describe(found) == text
    assert text.endswith(waiting(found.progress))


def test_a_job_that_waits_for_its_turn_says_why() -> None:
    room = "waits for room: it needs 100 MiB, and 80 are free"
    found = event("submitted", culprit="party-2", reason=room)
    assert describe(found) == f"submitted for party-2: {room}"
    assert describe(event("submitted")) == "submitted"


def test_lines_tell_every_attempt_from_its_first_round() -> None:
    def training(attempt: int, number: int) -> JobEvent:
        name = f"epoch {number}"
        return event("training", attempt=attempt, round=number, of=40, round_name=name)

    told = io.StringIO()
    with following(quiet=False, stream=told) as show:
        for number in range(1, 8):
            show(training(1, number))
        for _ in range(3):
            show(event("waiting", round=6, of=40, **SILENT))
        show(event("preparing", attempt=2))
        for number in (6, 7, 8):
            show(training(2, number))
        show(event("succeeded", attempt=2, ended=True, of=40, stopped=True))
    lines = [line.strip() for line in told.getvalue().splitlines()]
    assert lines == [
        "training, round 1 of 40 (epoch 1)",
        "training, round 4 of 40 (epoch 4)",
        "waiting for party-2: preparing: no sign of life for 60 s;"
        " then it goes on after round 6 of 40",
        "preparing, attempt 2",
        "training, round 6 of 40 (epoch 6)",
        "training, round 8 of 40 (epoch 8)",
        "succeeded, stopped early",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_says_why_it_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    shown = Terminal()
    with following(quiet=False, stream=shown) as show:
        show(event("training", round=6, of=40, round_name="epoch 6"))
        show(event("waiting", round=5, of=40, **SILENT))
    last = shown.getvalue()
    assert "waiting" in last
    assert "for party-2: preparing: no sign of life for 60 s" in last
