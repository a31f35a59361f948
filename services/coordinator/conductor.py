"""Jobs in their order: submitted, bound to what the parties hold, and run as there is room."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import structlog

from masque.errors import MasqueError, NotFound, Refused, Unavailable
from masque.jobs import spec as specs
from masque.jobs.bound import BoundJob, bind
from masque.jobs.conducting import Cancel, ConductedJob, step
from masque.jobs.held import agreed_tables
from masque.jobs.record import Progress
from masque.jobs.states import State
from masque.wire import tracing
from masque.wire.failures import pack
from masque.wire.metrics import Metric
from masque.wire.tls import Credentials
from services.coordinator.asking import tell
from services.coordinator.board import Board
from services.coordinator.course import Course
from services.coordinator.endings import ending
from services.coordinator.figures import Tally, figures
from services.coordinator.parting import Parting
from services.coordinator.peers import Peers
from services.coordinator.room import Room
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.store import Store, StoredJob, bound_of, two_specs
from services.coordinator.submitting import Submitted
from services.coordinator.times import now

MOST_WAITING = 1000
"""Jobs that may wait for their turn."""

READY = 16
"""Jobs that may wait for room, or for somebody, beside those that run."""

MOST_ASKING = 256
"""Jobs that may wait for people's approval, beside those."""

LOOK = 1.0
"""Seconds between two looks whether a job waits for people, and makes room for another."""

RETRY = 1.0
"""Seconds until we try again what we could not do ourselves, as on a disk that is full."""

_log = structlog.get_logger("masque.coordinator")


class Conductor:
    """Runs jobs, each in a thread of its own, from `start` to `close`."""

    def __init__(
        self, settings: CoordinatorSettings, credentials: Credentials, store: Store, board: Board
    ) -> None:
        self._settings, self._credentials = settings, credentials
        self._store, self._board = store, board
        self._change = threading.Condition()
        self._waiting: deque[str] = deque()
        self._running: dict[str, Course | None] = {}
        self._closed = False
        self._tally = Tally()
        self._room = Room(settings.jobs)
        self._thread = threading.Thread(target=self._run, name="conductor", daemon=True)
        self._parting = Parting(store, self._peers)

    def start(self) -> None:
        """Go on with what an earlier run of the coordinator left, and begin."""
        self._waiting.extend(job.job_id for job in self._store.unfinished())
        self._thread.start()
        threading.Thread(target=self._parting.run, name="parting", daemon=True).start()

    def drain(self, seconds: float) -> None:
        """Accept no job and begin none; those that run may end within `seconds`."""
        for course in self._close():
            course.drain(time.monotonic() + seconds)

    def close(self, patience: float = 1.0) -> None:
        """Park what runs, tell everybody, and end."""
        courses = self._close()
        self._parting.close()
        for course in courses:
            course.park()
        end = time.monotonic() + patience
        with self._change:
            self._change.wait_for(lambda: not self._running, max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            self._thread.join(max(0.0, end - time.monotonic()))

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        with self._change:
            return bool(self._running)

    def figures(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        with self._change:
            waiting, courses = len(self._waiting), list(self._running.values())
        states = [course.job.state for course in courses if course is not None]
        return figures(self._tally, waiting, states, self._board.watchers)

    @property
    def alive(self) -> bool:
        """Does it run jobs?"""
        return self._thread.is_alive()

    def _close(self) -> list[Course]:
        with self._change:
            self._closed = True
            self._change.notify_all()
            return [course for course in self._running.values() if course is not None]

    # -- what clients ask for --------------------------------------------------------------------

    def submit(self, what: Submitted) -> StoredJob:
        """Accept a job, or raise why not; the same submission again is accepted and not repeated.

        Raises SpecError, IdentityError for keys nobody vouches for, Refused for what its client
        has not signed, Unavailable for a party that does not answer, Conflict for another job under
        this id.
        """
        known = self._store.job(what.job_id)
        if known is None:
            known = self._bind(what)
        if known.request != what.fingerprint:
            raise two_specs(what.job_id)
        return known

    def cancel(self, job_id: str, client: str) -> State:
        """End a job that has not ended. Raises NotFound, Refused, Conflict."""
        job = self.job(job_id)
        if job.client != client:
            raise Refused(
                f"Job {job_id} was submitted by {job.client!r}; nobody else may cancel it.",
                hint=f"Ask {job.client!r}.",
                job=job_id,
            )
        event = Cancel(client)
        with self._change:
            course = self._running.get(job_id)
            if course is None:
                after, _ = step(self.job(job_id).conducted, event)
                self._end(job, after)
                return after.state
        return course.ask(event)

    def job(self, job_id: str) -> StoredJob:
        """The job of this id. Raises NotFound."""
        found = self._store.job(job_id)
        if found is None:
            raise NotFound(
                f"There is no job {job_id!r} at this coordinator.",
                hint="`masque jobs` lists them.",
                job=job_id,
            )
        return found

    # -- binding ---------------------------------------------------------------------------------

    def _bind(self, what: Submitted) -> StoredJob:
        if self._closed:
            raise Unavailable(
                "The coordinator is being stopped.", hint="Submit the job once it is back."
            )
        if len(self._waiting) >= MOST_WAITING:
            raise Refused(f"{MOST_WAITING} jobs wait already.", hint="Submit it again later.")
        spec, job_id, settings = specs.parse(what.text, "the job"), what.job_id, self._settings
        what.check(spec, settings, self._credentials.renewed().trust)
        bound = self._bound(spec, what)
        everybody = tuple(party.name for party in settings.parties)
        conducted = ConductedJob(job_id, everybody, settings.dealer.name)
        progress = Progress(job_id, 1, State.SUBMITTED.value).to_json()
        trace = str(tracing.current() or tracing.fresh())
        job = StoredJob(
            job_id,
            spec.name,
            what.client,
            what.fingerprint,
            bound.canonical(),
            conducted,
            progress,
            "",
            now(),
            trace=trace,
        )
        with self._change:
            known = self._store.job(job_id)
            if known is not None:  # the same, submitted twice at the same time
                return known
            self._store.add(job)
            self._waiting.append(job_id)
            self._change.notify_all()
        self._board.notify(job_id, over=False)
        _log.info("submitted", job=job_id, name=spec.name, client=what.client)
        return job

    def _bound(self, spec: specs.JobSpec, what: Submitted) -> BoundJob:
        settings = self._settings
        threads = ThreadPoolExecutor(len(settings.parties))
        with Peers(settings, self._credentials) as peers, threads:
            held = dict(zip(peers.names, threads.map(peers.tables, peers.names), strict=True))
        agreed, problems = agreed_tables(held)
        named = [p for p in problems if any(repr(name) in p for name in spec.shared)]
        if named:
            raise Refused(
                f"The parties do not hold the same data: {'; '.join(named)}.",
                hint="Share it again, to all parties: `masque share --replace`.",
                job=what.job_id,
            )
        bound = bind(
            spec,
            agreed,
            [party.name for party in settings.parties],
            what.recipients,
            job_id=what.job_id,
            attempt=1,
            dealer=settings.dealer.name,
            coordinator=settings.name,
            client=what.client,
            submission=what.signed,
        )
        threads = ThreadPoolExecutor(len(settings.parties))
        try:
            with self._peers() as peers, threads:
                list(threads.map(lambda party: peers.review(party, bound), peers.names))
        except MasqueError:
            # Others may have put it before people, and it may be submitted again under this id.
            parties = frozenset(bound.parties)
            with self._peers() as peers:
                tell(parties, lambda p: peers.forget(p, what.job_id, refused=True), "end")
            raise
        return bound

    def _peers(self) -> Peers:
        return Peers(self._settings, self._credentials)

    # -- running ---------------------------------------------------------------------------------

    def _run(self) -> None:
        """Start the job at the head of the queue as soon as there is room for it."""
        while True:
            with self._change:
                may = self._change.wait_for(lambda: self._closed or self._next_may(), LOOK)
                if self._closed:
                    return
                if not may:
                    continue
                job_id = self._waiting.popleft()
                self._running[job_id] = None
            work = partial(self._conduct, job_id)
            threading.Thread(target=work, name=f"job-{job_id}", daemon=True).start()

    def _next_may(self) -> bool:
        """More than may run get ready: one that waits for somebody does not stop the others."""
        asking = sum(course is not None and course.asks_people for course in self._running.values())
        ready = len(self._running) - min(asking, MOST_ASKING)
        return bool(self._waiting) and ready < self._settings.jobs + READY

    def _conduct(self, job_id: str) -> None:
        """In a thread of its own: a job to its end, whatever happens to us on the way."""
        broken = ""
        try:
            while not self._closed:
                try:
                    job = self._store.job(job_id)
                    if job is None or job.conducted.ended:
                        return
                    self._follow(job, broken)
                except Exception as error:  # the disk, or a mistake of ours
                    _log.error("incident", job=job_id, exc_info=error)
                    known = error.message.rstrip(".") if isinstance(error, MasqueError) else ""
                    broken = known or "the coordinator failed on its own account"
                    self._pause()
        finally:
            with self._change:
                del self._running[job_id]
                self._change.notify_all()
            self._parting.soon()

    def _follow(self, job: StoredJob, broken: str) -> None:
        """Run a job as a step of the request by which it was submitted."""
        try:
            bound = bound_of(job)
        except MasqueError as error:
            reason = error.message.rstrip(".")
            gone = replace(job.conducted, state=State.FAILED, reason=reason, waiting=frozenset())
            self._end(job, gone)
            return
        course = Course(
            self._store,
            self._board,
            self._peers,
            bound,
            job.conducted,
            self._settings,
            self._tally,
            self._room,
        )
        with self._change:
            if self._closed:
                return
            if self._store.job(job.job_id) != job:
                return  # cancelled just now: look again
            self._running[job.job_id] = course

        def follow() -> None:
            tracing.adopt(tracing.parse(job.trace) or tracing.fresh())
            structlog.contextvars.bind_contextvars(job=job.job_id)
            with tracing.span("job", job=job.job_id, attempt=job.conducted.attempt):
                course.run(broken)

        try:
            tracing.inherit(follow)()
        finally:
            with self._change:
                self._running[job.job_id] = None

    def _pause(self) -> None:
        with self._change:
            self._change.wait_for(lambda: self._closed, RETRY)

    def _end(self, job: StoredJob, after: ConductedJob) -> None:
        progress = Progress(
            job.job_id,
            after.attempt,
            after.state.value,
            of=len(after.round_names),
            reason=after.reason,
            culprit=after.culprit,
        )
        trace = tracing.parse(job.trace)
        error = pack(ending(after), trace.trace_id if trace is not None else None).decode()
        self._store.update(after, progress.to_json(), error=error, ended=now())
        self._tally.end(after.state)
        self._board.notify(job.job_id, over=True)
        self._parting.soon()
        _log.info("job", job=job.job_id, state=after.state.value, reason=after.reason)
