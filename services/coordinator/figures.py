"""What a coordinator tells Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock

from masque.jobs.conducting import ENDED, STATES
from masque.jobs.states import State
from masque.wire.metrics import Metric, counter, gauge, jobs

RUNNING = (State.WAITING, State.PREPARING, State.TRAINING, State.FINISHING)


@dataclass
class Tally:
    """What the coordinator has done since its start. Safe in any thread."""

    rounds: int = 0
    _ended: Counter[State] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def count(self, *, rounds: int) -> None:
        """So many training rounds more have been run."""
        with self._lock:
            self.rounds += rounds

    def end(self, state: State) -> None:
        """A job has ended so."""
        with self._lock:
            self._ended[state] += 1

    def ended(self) -> dict[str, float]:
        """How many jobs ended how."""
        with self._lock:
            return {state.value: self._ended[state] for state in STATES if state in ENDED}


def figures(tally: Tally, waiting: int, states: Sequence[State], watchers: int) -> Iterator[Metric]:
    """All metrics: from the tally, how many jobs wait, and the states of those that run."""
    yield gauge("masque_jobs_waiting", "Jobs in the queue, waiting for their turn.", waiting)
    yield from jobs({each.value: states.count(each) for each in RUNNING}, tally.ended())
    yield counter(
        "masque_training_rounds_total", "Training rounds that have been run.", tally.rounds
    )
    yield gauge("masque_watchers", "Clients that watch a job.", watchers)
