"""Jobs one after the other: submitted, bound to what the parties hold, and run."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog
from pydantic import ValidationError

from masque.errors import IdentityError, MasqueError, NotFound, Refused, SpecError, Unavailable
from masque.jobs import spec as specs
from masque.jobs.bound import BoundJob, Recipient, bind
from masque.jobs.conducting import (
    AskAbort,
    AskPrepare,
    AskRound,
    Cancel,
    ConductedJob,
    Effect,
    Restarted,
    Stopped,
    step,
)
from masque.jobs.held import agreed_tables
from masque.jobs.record import Progress
from masque.jobs.states import State
from masque.wire import tracing
from masque.wire.failures import pack
from masque.wire.metrics import Metric
from masque.wire.recipients import parse_recipient
from masque.wire.tls import Credentials
from services.coordinator.attempt import Attempt, abort_everywhere
from services.coordinator.board import Board
from services.coordinator.endings import ending
from services.coordinator.figures import Tally, figures
from services.coordinator.peers import Peers
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.store import Store, StoredJob, two_specs
from services.coordinator.times import now

MOST_WAITING = 1000
"""Jobs that may wait for their turn."""

RETRY = 1.0
"""Seconds between attempts at storing how a job ended, on a disk that is full."""

MARGIN = 5.0
"""Seconds by which our own deadline is later than that of the calls, which name the service."""

_log = structlog.get_logger("masque.coordinator")


class Conductor:
    """Runs jobs in a thread of its own, from `start` to `close`."""

    def __init__(
        self, settings: CoordinatorSettings, credentials: Credentials, store: Store, board: Board
    ) -> None:
        self._settings, self._credentials = settings, credentials
        self._store, self._board = store, board
        self._change = threading.Condition()
        self._waiting: deque[str] = deque()
        self._current: Attempt | None = None
        self._closed = False
        self._tally = Tally()
        self._thread = threading.Thread(target=self._run, name="conductor", daemon=True)

    def start(self) -> None:
        """Settle what an earlier run of the coordinator left, and begin."""
        for job in self._store.unfinished():
            if job.conducted.state is State.SUBMITTED:
                self._waiting.append(job.job_id)
            else:
                self._interrupt(job)
        self._thread.start()

    def drain(self, seconds: float) -> None:
        """Accept no job and begin none; the one that runs may end within `seconds`."""
        with self._change:
            self._closed = True
            current = self._current
            self._change.notify_all()
        if current is not None:
            current.drain(time.monotonic() + seconds)

    def close(self, patience: float = 1.0) -> None:
        """Interrupt what runs, tell everybody, and end."""
        with self._change:
            self._closed = True
            current = self._current
            self._change.notify_all()
        if current is not None:
            current.ask(Stopped(), patience)
        if self._thread.is_alive():
            self._thread.join(patience)

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self._current is not None

    def figures(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        with self._change:
            waiting, current = len(self._waiting), self._current
        state = current.job.state if current is not None else None
        return figures(self._tally, waiting, state, self._board.watchers)

    @property
    def alive(self) -> bool:
        """Does it run jobs?"""
        return self._thread.is_alive()

    # -- what clients ask for --------------------------------------------------------------------

    def submit(
        self, job_id: str, text: str, recipients: Sequence[Recipient], client: str
    ) -> StoredJob:
        """Accept a job, or raise why not; the same submission again is accepted and not repeated.

        Raises SpecError, IdentityError for keys nobody vouches for, Unavailable for a party that
        does not answer, Conflict for another job under this id.
        """
        request = _fingerprint(job_id, text, recipients, client)
        known = self._store.job(job_id)
        if known is None:
            known = self._bind(job_id, text, recipients, client, request)
        if known.request != request:
            raise two_specs(job_id)
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
            current = self._current
            if current is None or current.job.job_id != job_id:
                after, _ = step(self.job(job_id).conducted, event)
                self._end(job, after)
                return after.state
        return current.ask(event)

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

    def _bind(
        self,
        job_id: str,
        text: str,
        recipients: Sequence[Recipient],
        client: str,
        request: bytes,
    ) -> StoredJob:
        if self._closed:
            raise Unavailable(
                "The coordinator is being stopped.", hint="Submit the job once it is back."
            )
        if len(self._waiting) >= MOST_WAITING:
            raise Refused(f"{MOST_WAITING} jobs wait already.", hint="Submit it again later.")
        spec = specs.parse(text, "the job")
        for recipient in recipients:
            self._check_recipient(recipient)
        settings = self._settings
        bound = self._bound(spec, recipients, job_id, client)
        everybody = tuple(party.name for party in settings.parties)
        conducted = ConductedJob(job_id, everybody, settings.dealer.name)
        progress = Progress(job_id, 1, State.SUBMITTED.value).to_json()
        trace = str(tracing.current() or tracing.fresh())
        content = bound.canonical()
        job = StoredJob(
            job_id, spec.name, client, request, content, conducted, progress, "", now(), trace=trace
        )
        with self._change:
            known = self._store.job(job_id)
            if known is not None:  # the same, submitted twice at the same time
                return known
            self._store.add(job)
            self._waiting.append(job_id)
            self._change.notify_all()
        self._board.notify(job_id, over=False)
        _log.info("submitted", job=job_id, name=spec.name, client=client)
        return job

    def _bound(
        self, spec: specs.JobSpec, recipients: Sequence[Recipient], job_id: str, client: str
    ) -> BoundJob:
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
                job=job_id,
            )
        return bind(
            spec,
            agreed,
            [party.name for party in settings.parties],
            recipients,
            job_id=job_id,
            attempt=1,
            dealer=settings.dealer.name,
            coordinator=settings.name,
            client=client,
        )

    def _check_recipient(self, recipient: Recipient) -> None:
        found = parse_recipient(recipient.proof, self._credentials.renewed().trust)
        if (found.identity.name, found.key.public_bytes_raw().hex()) != (
            recipient.name,
            recipient.key,
        ):
            raise IdentityError(
                f"The proof of the recipient {recipient.name!r} is that of another name or key.",
                hint="Submit the content of its .recipient.pub file.",
                recipient=recipient.name,
            )

    # -- running ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                job = self._store.job(self._waiting.popleft())
                if job is None or job.conducted.ended:
                    continue
                peers = Peers(self._settings, self._credentials)
                bound = BoundJob.model_validate_json(job.bound)
                current = Attempt(
                    self._store,
                    self._board,
                    peers,
                    bound,
                    job.conducted,
                    self._patience,
                    self._tally,
                )
                self._current = current
            try:
                tracing.inherit(partial(_conduct, job, current, peers))()
            except Exception as error:  # the disk, or a mistake of ours; the next job may go well
                _log.error("incident", job=job.job_id, exc_info=error)
                self._give_up(job.job_id, error)
            finally:
                with self._change:
                    self._current = None

    def _patience(self, effect: Effect) -> float:
        settings = self._settings
        if isinstance(effect, AskPrepare):
            return settings.prepare_seconds + MARGIN
        return MARGIN + (
            settings.round_seconds if isinstance(effect, AskRound) else settings.fetch_seconds
        )

    def _give_up(self, job_id: str, error: Exception) -> None:
        """End a job that cannot be conducted, or put it back; waits until that can be stored."""
        known = error.message.rstrip(".") if isinstance(error, MasqueError) else ""
        reason = Restarted(known or "the coordinator failed on its own account")
        told = False
        while not self._closed:
            try:
                job = self._store.job(job_id)
                if job is None or job.conducted.ended:
                    return
                if job.conducted.state is State.SUBMITTED:
                    self._pause()
                    self._waiting.appendleft(job_id)
                    return
                if not told:
                    self._tell_everybody(job, reason)
                told = True
                self._end(job, step(job.conducted, reason)[0])
            except Exception as again:
                _log.error("cannot store how a job ended", job=job_id, error=str(again))
                self._pause()

    def _pause(self) -> None:
        with self._change:
            self._change.wait_for(lambda: self._closed, RETRY)

    def _interrupt(self, job: StoredJob) -> None:
        """A job that was running when the coordinator broke off: nobody waits for it any more."""
        self._tell_everybody(job, Restarted())
        self._end(job, step(job.conducted, Restarted())[0])

    def _tell_everybody(self, job: StoredJob, event: Restarted) -> None:
        for effect in step(job.conducted, event)[1]:
            if isinstance(effect, AskAbort):
                threading.Thread(target=self._abort, args=(job, effect), daemon=True).start()

    def _abort(self, job: StoredJob, effect: AskAbort) -> None:
        with Peers(self._settings, self._credentials) as peers:
            abort_everywhere(peers, BoundJob.model_validate_json(job.bound), effect)

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
        _log.info("job", job=job.job_id, state=after.state.value, reason=after.reason)


def _conduct(job: StoredJob, current: Attempt, peers: Peers) -> None:
    """Run a job as a step of the request by which it was submitted."""
    tracing.adopt(tracing.parse(job.trace) or tracing.fresh())
    structlog.contextvars.bind_contextvars(job=job.job_id)
    attempt = job.conducted.attempt
    with peers, tracing.span("job", job=job.job_id, attempt=attempt):
        current.run()


def recipient_of(name: str, key: str, proof: str) -> Recipient:
    """A recipient as submitted. Raises SpecError if it is not written as one."""
    try:
        return Recipient(name=name, key=key, proof=proof)
    except ValidationError:
        raise SpecError(
            f"{name[:64]!r} with its key is not a recipient.",
            hint="Submit the content of its .recipient.pub file.",
            field="recipients",
        ) from None


def _fingerprint(job_id: str, text: str, recipients: Sequence[Recipient], client: str) -> bytes:
    digest = hashlib.sha256()
    parts = [job_id, client, text]
    for recipient in sorted(recipients, key=lambda r: r.name):
        parts += [recipient.name, recipient.key]
    for part in parts:
        raw = part.encode("utf-8", "replace")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()
