"""What a soak calls a leak: made-up histories of services, of which one leaves something behind."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.survival.soak import Taken, _judged

Histories = list[tuple[int, dict[str, Taken]]]

JOBS = (0, 8, 16, 24, 32, 40)
"""How many jobs are done at each look, as in `make soak` with 40."""

SERVICES = ("dealer", "party-1", "party-2", "coordinator")
BEGUN = Taken(memory=150 << 20, descriptors=40, sockets=12, threads=30, files=60, stored=4 << 20)
LEAKS = {
    "memory": 1 << 20,
    "descriptors": 1,
    "sockets": 1,
    "threads": 1,
    "files": 1,
    "stored": 1 << 20,
}
"""What somebody leaves behind with every job, beside what is noted of it for good."""


def quiet(seed: int) -> Histories:
    """Services that leave nothing: they fill up at first, come and go a little, and note jobs."""
    random = Random(seed)

    def look(done: int) -> Taken:
        full = min(done, 16) / 16
        return Taken(
            memory=BEGUN.memory + int(full * (20 << 20)) + random.randint(-(2 << 20), 2 << 20),
            descriptors=BEGUN.descriptors + int(full * 5) + random.randint(-2, 2),
            sockets=BEGUN.sockets + int(full * 3) + random.randint(-1, 1),
            threads=BEGUN.threads + int(full * 12) + random.randint(-2, 2),
            files=BEGUN.files + done * 5 // 4,
            stored=BEGUN.stored + done * random.randint(8 << 10, 16 << 10),
        )

    return [(done, {name: look(done) for name in SERVICES}) for done in JOBS]


@pytest.mark.parametrize("seed", range(20))
def test_who_leaves_nothing_is_not_accused(seed: int) -> None:
    lines = list(_judged(quiet(seed)))
    assert [line.partition(":")[0] for line in lines] == list(SERVICES)


@pytest.mark.parametrize("what", LEAKS)
@pytest.mark.parametrize("seed", range(5))
def test_what_a_job_leaves_behind_is_named_with_who_leaves_it(what: str, seed: int) -> None:
    history = quiet(seed)
    for done, found in history:
        more = getattr(found["party-2"], what) + done * LEAKS[what]
        found["party-2"] = replace(found["party-2"], **{what: more})
    with pytest.raises(AssertionError) as caught:
        list(_judged(history))
    accused = str(caught.value).partition("it leaks: ")[2].split("; ")
    assert len(accused) == 1
    assert accused[0].startswith(f"party-2: {what} ")
