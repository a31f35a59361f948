"""`kill -9` at random instants while jobs run: all of them end, and end right.

Victims, moments and pauses follow from a seed; what they hit depends on the machine as well.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from masque.client import jobs
from masque.data.disk import BESIDE
from tests.survival import traces
from tests.survival.villages import KINDS, Outputs, Village, until, village

EPOCHS = {"logistic": 150, "stopping": 150, "network": 50, "open": 150, "kept": 150}
"""So that a job takes some seconds."""

MOST_IN_A_ROW = 5
"""Times that kills fall on jobs that have committed nothing since the last: a job is given up after
twenty attempts in a row that commit nothing.
"""

PREPARE = 3
"""Training rounds at the beginning of these jobs that prepare, at most."""

RECOVERY = 300.0
"""Seconds in which all jobs have committed something again."""

MOMENTS = ("anywhere", "anywhere", "preparing", "checkpoint", "results", "recovery")
"""Where a kill falls, each as often as the others: see `Killer._await`."""


@dataclass
class Report:
    """What was done to one network, and what came of it."""

    seed: int
    parties: int
    kills: int = 0
    victims: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    suspensions: int = 0
    attempts: list[int] = field(default_factory=list)
    repeated: int = 0
    rounds: int = 0
    seconds_to_recover: list[float] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For people."""
        recover = sorted(self.seconds_to_recover)
        median = statistics.median(recover) if recover else 0.0
        return [
            f"seed {self.seed}, {self.parties} parties: {self.kills} kills"
            f" ({_listed(self.victims)}; {_listed(self.moments)}), {self.suspensions} suspensions",
            f"{len(self.attempts)} jobs, all succeeded, in {sum(self.attempts)} attempts (at most"
            f" {max(self.attempts, default=0)} for one); {self.repeated} of {self.rounds} training"
            " rounds were run again",
            "from the start of what was killed until all jobs trained again: "
            f"{median:.1f} s (median of {len(recover)}), at most {max(recover, default=0):.1f} s",
            "furthest from an uninterrupted run: "
            + ", ".join(f"{kind} {worst:.1e}" for kind, worst in sorted(self.worst.items())),
        ]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def run(
    directory: Path,
    kills: int,
    seed: int,
    parties: int = 2,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    at_once: int = 3,
    scale: float = 1.0,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Kill `kills` times; AssertionError naming what is wrong. `scale`: of the jobs' epochs.

    `at_once` clients run jobs one after the other for as long as there are kills; every one of
    `kinds` is run without any, before.
    """
    report = Report(seed, parties)
    with village(directory, parties) as place, ThreadPoolExecutor(at_once + 1) as threads:
        epochs = {kind: max(2, round(scale * EPOCHS[kind])) for kind in kinds}
        whole = threads.map(lambda kind: _whole(place, kind, epochs[kind]), kinds)
        expected = dict(zip(kinds, whole, strict=True))
        say(f"{parties} parties: {', '.join(kinds)} have run without kills")
        killer = Killer(place, random.Random(seed), report, kills, say)
        clients = [
            threads.submit(_client, place, _turned(kinds, number), epochs, killer)
            for number in range(at_once)
        ]
        try:
            killer.run(clients)
        finally:
            killer.over = True
        done = [job for client in clients for job in client.result()]
        for kind, job_id in done:
            _check(place, kind, job_id, expected[kind], report)
        traces.check(place, [job_id for _, job_id in done])
    return report


def distance(got: Outputs, expected: Outputs) -> float:
    """The largest difference of any number."""
    assert got.keys() == expected.keys()
    return max(float(np.abs(np.asarray(got[n]) - expected[n]).max()) for n in expected)


class Killer:
    """Kills until `most` were killed, then everything runs again; `over` once that is so."""

    def __init__(
        self,
        place: Village,
        chance: random.Random,
        report: Report,
        most: int,
        say: Callable[[str], None],
    ) -> None:
        self._place, self._chance, self._report = place, chance, report
        self._most, self._say = most, say
        self._in_a_row = 0
        self.over = False

    def run(self, clients: Sequence[Future[list[tuple[str, str]]]]) -> None:
        """Until enough were killed, or a client has found something wrong."""
        report = self._report
        while report.kills < self._most and not any(client.done() for client in clients):
            moment = self._chance.choice(MOMENTS)
            victims = self._victims()
            suspended, pause = self._chance.random() < 0.1, self._chance.uniform(0.0, 1.0)
            hit = self._await(moment) or victims
            if suspended:
                report.suspensions += len(self._place.kill(victims[:1], signal.SIGSTOP))
                time.sleep(2 * pause)
                self._place.kill(victims[:1], signal.SIGCONT)
                continue
            before = self._running()
            hit = self._place.kill(hit)
            report.kills += len(hit)
            report.victims.update(hit)
            report.moments[moment] += len(hit)
            time.sleep(pause)
            self._revive(victims + hit, before)
            self._say(f"{report.kills} kills: {', '.join(hit)} ({moment})")
        self._place.await_ready()

    def _victims(self) -> list[str]:
        """One service, sometimes two, sometimes all."""
        names, draw = self._place.names, self._chance.random()
        if draw < 0.75:
            return [self._chance.choice(names)]
        return self._chance.sample(names, 2) if draw < 0.9 else list(names)

    def _await(self, moment: str) -> list[str]:
        """Wait for a moment, in vain at times; who must die now, if that matters."""
        instant = self._chance.uniform(0.0, 1.5)
        if moment == "recovery":  # of what was killed before: it is only just starting
            time.sleep(instant / 3)
            return []
        self._place.await_ready()
        if moment == "checkpoint":
            end = time.monotonic() + 4.0
            while not (writing := self._writing()) and time.monotonic() < end:
                time.sleep(0.0005)
            return writing[:1]
        if moment == "preparing":
            until(partial(self._any, lambda view: view.state == "preparing"), 4.0, tick=0.01)
        elif moment == "results":
            until(partial(self._any, _nearly_over), 8.0, tick=0.01)
        else:
            time.sleep(instant)
        return []

    def _writing(self) -> list[str]:
        """Parties that write a checkpoint just now."""
        place = self._place
        folders = {party: place.file(party, "checkpoints") for party in self._parties}
        return [party for party, folder in folders.items() if _has_unfinished(folder)]

    @property
    def _parties(self) -> Sequence[str]:
        return self._place.net.network.party_names

    def _any(self, true: Callable[[jobs.JobView], bool]) -> bool:
        return any(true(view) for view in self._place.states() or ())

    def _running(self) -> dict[str, int]:
        """The attempts of jobs that run."""
        views = self._place.states() or ()
        return {view.job_id: view.attempt for view in views if view.state in _RUNNING}

    def _revive(self, names: Sequence[str], before: dict[str, int]) -> None:
        """Start services again; mostly, wait until jobs go on, of which `before` ran before."""
        at = time.monotonic()
        self._place.start(list(dict.fromkeys(names)))
        self._in_a_row += 1
        if self._chance.random() < 0.3 and self._in_a_row < MOST_IN_A_ROW:
            return
        self._place.await_ready()
        if before and until(partial(self._trains_again, before), RECOVERY):
            self._report.seconds_to_recover.append(time.monotonic() - at)
        first: dict[tuple[str, int], int] = {}
        go_on = partial(self._have_committed, first)
        assert until(go_on, RECOVERY), f"jobs hang: {self._place.states()}"
        self._in_a_row = 0

    def _have_committed(self, first: dict[tuple[str, int], int]) -> bool:
        """Has every job that has begun committed something, since the `first` rounds that we saw?

        The one that is restored is committed already; and what prepares never is.
        """
        views = self._place.states()
        for view in views or ():
            if view.state == "training" and view.progress.round > PREPARE:
                first.setdefault((view.job_id, view.attempt), view.progress.round)
        return views is not None and all(
            view.ended
            or view.state in {"submitted", "finishing"}
            or view.progress.round > first.get((view.job_id, view.attempt), 1 << 30) + 1
            for view in views
        )

    def _trains_again(self, before: dict[str, int]) -> bool:
        views = self._place.states()
        return views is not None and all(
            view.ended or (view.attempt > before[view.job_id] and view.state in _TRAINED)
            for view in views
            if view.job_id in before
        )


_TRAINED = frozenset({"training", "finishing"})
_RUNNING = _TRAINED | {"preparing"}


def _nearly_over(view: jobs.JobView) -> bool:
    here = view.progress
    return view.state == "finishing" or (view.state == "training" and here.round + 2 > here.of)


def _has_unfinished(folder: Path) -> bool:
    try:
        names = [name for job in os.listdir(folder) for name in os.listdir(folder / job)]
    except FileNotFoundError:  # it has gone just now
        return False
    return any(name.startswith(BESIDE) for name in names)


def _turned(kinds: Sequence[str], by: int) -> Sequence[str]:
    return list(islice(cycle(kinds), by, by + len(kinds)))


def _whole(place: Village, kind: str, epochs: int) -> Outputs:
    job_id = place.submit(kind, epochs)
    assert place.ended(job_id).state == "succeeded", kind
    return place.outputs(job_id)


def _client(
    place: Village, kinds: Sequence[str], epochs: dict[str, int], killer: Killer
) -> list[tuple[str, str]]:
    """Jobs one after the other until the killing is over; all of them succeed."""
    done: list[tuple[str, str]] = []
    kills_go_on = lambda: not killer.over  # noqa: E731
    for kind in cycle(kinds):
        job_id = place.submit(kind, epochs[kind], kills_go_on)
        view = place.ended(job_id, persist=kills_go_on)
        assert view.state == "succeeded", f"{kind} {job_id}: {view.error}"
        done.append((kind, job_id))
        if killer.over:
            return done
    raise AssertionError("there are kinds of jobs")


def _check(place: Village, kind: str, job_id: str, expected: Outputs, report: Report) -> None:
    """The result of a job, and its history."""
    far = distance(place.outputs(job_id), expected)
    assert far < KINDS[kind][1], f"{kind} {job_id} is {far} off"
    report.worst[kind] = max(report.worst.get(kind, 0.0), far)
    events = list(jobs.watch(place.net.services, job_id))
    attempts = [event.progress.attempt for event in events]
    assert attempts == sorted(attempts), f"{kind} {job_id}: attempts {attempts}"
    rounds = [event.progress.round for event in events if event.state == "training"]
    report.attempts.append(attempts[-1])
    report.rounds += len(rounds)
    report.repeated += len(rounds) - len(set(rounds))
