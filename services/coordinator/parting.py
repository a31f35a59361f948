"""Telling parties that jobs have ended: each until it has heard it, restarts or not.

What a party keeps of a job, to go on with it, it destroys when it hears that. Who must still hear
it is stored together with the end itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from masque.errors import MasqueError, Unavailable
from masque.wire import tracing
from services.coordinator.peers import Peers
from services.coordinator.store import Store

AGAIN = 5.0
"""Seconds until those that did not hear it are told again."""

_log = structlog.get_logger("masque.coordinator")


class Parting:
    """Run it in a thread of its own."""

    def __init__(self, store: Store, open_peers: Callable[[], Peers]) -> None:
        self._store, self._open = store, open_peers
        self._woken = threading.Event()
        self._closed = False
        self._unheard: set[tuple[str, str]] = set()

    def run(self) -> None:
        """Until it is closed."""
        while not self._closed:
            try:
                done = self._tell_all()
            except Exception as error:  # the disk, or a mistake of ours: next time it may go well
                if not self._closed:
                    _log.error("incident", exc_info=error)
                done = False
            self._woken.wait(None if done else AGAIN)
            self._woken.clear()

    def soon(self) -> None:
        """A job has ended."""
        self._woken.set()

    def close(self) -> None:
        """End; what is owed is told after the next start."""
        self._closed = True
        self._woken.set()

    def _tell_all(self) -> bool:
        """Tell every party what it has not heard; does each know all of it now?"""
        owed = self._store.owed()
        if not owed:
            return True
        with self._open() as peers, ThreadPoolExecutor(len(owed), "parting") as threads:
            told = threads.map(lambda item: self._tell(peers, *item), owed.items())
            return all([*told])

    def _tell(self, peers: Peers, party: str, jobs: dict[str, str]) -> bool:
        if party not in peers.names:
            return True  # it has left the project; it hears it if it comes back
        heard = True
        for job_id, trace in jobs.items():
            try:
                with tracing.use(tracing.parse(trace) or tracing.fresh()):
                    peers.forget(party, job_id)
                self._store.heard(party, job_id)
            except MasqueError as error:
                heard = False
                if (party, job_id) not in self._unheard:
                    _log.warning("end not heard", peer=party, job=job_id, error=error)
                self._unheard.add((party, job_id))
                if isinstance(error, Unavailable):
                    break  # it is away: it hears of the others when it is back
            else:
                self._unheard.discard((party, job_id))
        return heard
