"""The coordinator's memory: jobs, their events and sealed results, in one SQLite file.

Every change is one transaction, on disk before anybody acts on it (write-ahead log, synchronous
FULL). The database holds specs, progress and sealed bytes; nothing in it is secret.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter

from masque.errors import Conflict, MasqueError
from masque.jobs.bound import BoundJob, Resume
from masque.jobs.conducting import ConductedJob

SCHEMA_VERSION = 4
_SCHEMA = """
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  client TEXT NOT NULL,
  request BLOB NOT NULL,       -- SHA-256 of what was submitted
  bound BLOB NOT NULL,         -- canonical JSON of the bound job
  conducted TEXT NOT NULL,     -- ConductedJob
  progress TEXT NOT NULL,      -- Progress
  error TEXT NOT NULL,         -- packed MasqueError, or empty
  submitted TEXT NOT NULL,     -- RFC 3339
  ended TEXT NOT NULL,
  trace TEXT NOT NULL DEFAULT ''  -- the request by which it was submitted: W3C traceparent
) STRICT;
CREATE TABLE events (
  job_id TEXT NOT NULL REFERENCES jobs(job_id),
  number INTEGER NOT NULL,
  state TEXT NOT NULL,
  progress TEXT NOT NULL,
  error TEXT NOT NULL,
  ended INTEGER NOT NULL,
  PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE sealed (
  job_id TEXT NOT NULL REFERENCES jobs(job_id),
  attempt INTEGER NOT NULL,
  party TEXT NOT NULL,
  output TEXT NOT NULL,
  recipient TEXT NOT NULL,
  content BLOB NOT NULL,
  PRIMARY KEY (job_id, attempt, party, output, recipient)
) STRICT;
"""

_OWED = """
CREATE TABLE IF NOT EXISTS owed (  -- who has not heard yet that a job has ended
  party TEXT NOT NULL,
  job_id TEXT NOT NULL REFERENCES jobs(job_id),
  PRIMARY KEY (party, job_id)
) STRICT, WITHOUT ROWID;
"""
"""What a store of format 3 lacks."""


_FROM_1 = "ALTER TABLE jobs ADD COLUMN trace TEXT NOT NULL DEFAULT '';"
"""What a store of format 1 lacks."""

_FROM_2 = "UPDATE jobs SET conducted = json_set(conducted, '$.state', 'failed')\
 WHERE json_extract(conducted, '$.state') = 'interrupted';"
"""Jobs that were interrupted ended so, in format 2."""


Row = tuple[Any, ...]

_log: Any = structlog.get_logger("masque.coordinator")

_CONDUCTED = TypeAdapter(ConductedJob)

_BROKEN = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite says of a file that it cannot use; the latter when it quotes what is damaged."""

_SETS = ("waiting", "stopping", "committing", "due")


@dataclass(frozen=True)
class StoredJob:
    """A row of `jobs`. `bound` is canonical JSON, `error` a packed error or empty."""

    job_id: str
    name: str
    client: str
    request: bytes
    bound: bytes
    conducted: ConductedJob
    progress: str
    error: str
    submitted: str
    ended: str = ""
    trace: str = ""


@dataclass(frozen=True)
class StoredEvent:
    """What watchers are told, in the order of `number`."""

    number: int
    state: str
    progress: str
    error: str
    ended: bool


@dataclass(frozen=True)
class Sealed:
    """What a party sealed for a recipient: bytes that nobody else can read."""

    party: str
    output: str
    recipient: str
    content: bytes


class Store:
    """Thread-safe: one connection, one lock. Use as a context manager, or `close`."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._prepare(path)
        except (OSError, *_BROKEN) as error:
            raise MasqueError(
                f"The job store {path} cannot be used: {error}.",
                hint="Check its permissions and the disk; move it away to begin an empty one.",
                file=str(path),
            ) from None

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, job: StoredJob) -> None:
        """A new job with its first event. Raises Conflict if the id is taken."""
        with self._transaction() as database:
            try:
                database.execute(
                    "INSERT INTO jobs (job_id, name, client, request, bound, conducted, progress,"
                    " error, submitted, ended, trace) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                    (
                        job.job_id,
                        job.name,
                        job.client,
                        job.request,
                        job.bound,
                        _conducted_json(job.conducted),
                        job.progress,
                        job.error,
                        job.submitted,
                        job.ended,
                        job.trace,
                    ),
                )
            except sqlite3.IntegrityError:
                raise two_specs(job.job_id) from None
            self._event(job.job_id, job.conducted, job.progress, job.error)

    def update(
        self,
        job: ConductedJob,
        progress: str,
        *,
        error: str = "",
        ended: str = "",
        sealed: tuple[Sealed, ...] = (),
        tell: bool = True,
    ) -> None:
        """A job after a step, with the results that came with it; `tell` adds an event."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET conducted=?, progress=?, error=?, ended=? WHERE job_id=?",
                (_conducted_json(job), progress, error, ended, job.job_id),
            )
            for item in sealed:
                database.execute(
                    "INSERT OR REPLACE INTO sealed VALUES (?,?,?,?,?,?)",
                    (
                        job.job_id,
                        job.attempt,
                        item.party,
                        item.output,
                        item.recipient,
                        item.content,
                    ),
                )
            if tell:
                self._event(job.job_id, job, progress, error)
            if job.ended:
                for party in job.parties:
                    owed = (party, job.job_id)
                    database.execute("INSERT OR IGNORE INTO owed VALUES (?,?)", owed)

    def owed(self) -> dict[str, dict[str, str]]:
        """Jobs that have ended, with their traces, by the parties that have not heard it."""
        found: dict[str, dict[str, str]] = {}
        query = "SELECT party, job_id, trace FROM owed JOIN jobs USING (job_id)"
        for party, job_id, trace in self._rows(query):
            found.setdefault(party, {})[job_id] = trace
        return found

    def heard(self, party: str, job_id: str) -> None:
        """A party knows that a job has ended."""
        with self._transaction() as database:
            database.execute("DELETE FROM owed WHERE party=? AND job_id=?", (party, job_id))

    def job(self, job_id: str) -> StoredJob | None:
        """The job of this id. Raises MasqueError if its record is damaged."""
        found = self._jobs("WHERE job_id=?", (job_id,))
        return _stored(found[0]) if found else None

    def jobs(self, limit: int) -> list[StoredJob]:
        """The latest jobs, the newest first, without those whose records are damaged."""
        return _readable(self._jobs("ORDER BY number DESC LIMIT ?", (limit,)))

    def unfinished(self) -> list[StoredJob]:
        """Jobs that have not ended, the oldest first, without those whose records are damaged."""
        return _readable(self._jobs("WHERE ended='' ORDER BY number", ()))

    def events(self, job_id: str, after: int) -> list[StoredEvent]:
        """Events of a job with numbers above `after`, in order."""
        rows = self._rows(
            "SELECT number, state, progress, error, ended FROM events"
            " WHERE job_id=? AND number>? ORDER BY number",
            (job_id, after),
        )
        return [StoredEvent(n, state, text, error, bool(e)) for n, state, text, error, e in rows]

    def sealed(self, job_id: str, attempt: int, recipient: str) -> list[Sealed]:
        """What an attempt of a job sealed for a recipient, by party and output."""
        rows = self._rows(
            "SELECT party, output, recipient, content FROM sealed"
            " WHERE job_id=? AND attempt=? AND recipient=? ORDER BY party, output",
            (job_id, attempt, recipient),
        )
        return [Sealed(*row) for row in rows]

    def _jobs(self, where: str, values: Row) -> list[Row]:
        return self._rows(
            "SELECT job_id, name, client, request, bound, conducted, progress, error,"
            f" submitted, ended, trace FROM jobs {where}",
            values,
        )

    def _rows(self, query: str, values: Row = ()) -> list[Row]:
        """Raises MasqueError if the file cannot be read."""
        try:
            with self._lock:
                return self._database.execute(query, values).fetchall()
        except _BROKEN as error:
            raise MasqueError(
                f"the coordinator's job store cannot be read: {error}.",
                hint="Mend the disk of the coordinator, or put back a copy of the file.",
            ) from None

    def _event(self, job_id: str, job: ConductedJob, progress: str, error: str) -> None:
        self._database.execute(
            "INSERT INTO events VALUES (?, (SELECT COALESCE(MAX(number), 0) + 1 FROM events"
            " WHERE job_id=?), ?, ?, ?, ?)",
            (job_id, job_id, job.state.value, progress, error, int(job.ended)),
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Raises MasqueError if it cannot be stored, as on a full disk; then nothing changed."""
        database = self._database
        with self._lock:
            try:
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            except _BROKEN as error:
                raise MasqueError(
                    f"the coordinator's job store cannot be written: {error}.",
                    hint="Free space on the disk of the coordinator, or mend its permissions.",
                ) from None
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

    def _prepare(self, path: Path) -> None:
        database = self._database
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA foreign_keys=ON")
        database.execute("PRAGMA wal_autocheckpoint=256")  # pages: the log stays near 1 MiB
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version < SCHEMA_VERSION:
            changes = {0: _SCHEMA, 1: _FROM_1 + _FROM_2, 2: _FROM_2, 3: ""}
            change = changes[version] + _OWED
            database.executescript(
                f"BEGIN IMMEDIATE; {change} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )
        elif version != SCHEMA_VERSION:
            raise MasqueError(
                f"The job store {path} has format {version}, this version of Masque reads"
                f" {SCHEMA_VERSION}.",
                hint="Use the version of Masque that wrote it, or begin an empty store.",
                file=str(path),
            )


def bound_of(job: StoredJob) -> BoundJob:
    """The bound job of a row. Raises MasqueError if another version of Masque wrote it."""
    try:
        return BoundJob.model_validate_json(job.bound)
    except ValueError:
        raise MasqueError(
            f"Job {job.job_id} was submitted to another version of Masque, or its record is"
            " damaged.",
            hint="Submit it again.",
            job=job.job_id,
        ) from None


def attempt_of(whole: BoundJob, job: ConductedJob) -> BoundJob:
    """A bound job as its present attempt."""
    here = job.resumed
    if here is None:
        return whole.at_attempt(job.attempt)
    resume = Resume(attempt=here.attempt, round=here.round, stopped=here.stopped)
    return whole.at_attempt(job.attempt, resume)


def two_specs(job_id: str) -> Conflict:
    """The error for an id that belongs to another job already."""
    return Conflict(
        f"There are two specs for one job id, {job_id}.",
        hint="Submit the job again under an id of its own.",
        job=job_id,
    )


def _readable(rows: list[Row]) -> list[StoredJob]:
    """One damaged record stops neither the coordinator nor the other jobs."""
    found = []
    for row in rows:
        try:
            found.append(_stored(row))
        except MasqueError as error:
            _log.error("damaged record", job=row[0], error=error.message)
    return found


def _stored(row: Row) -> StoredJob:
    job_id, name, client, request, bound, conducted, *rest = row
    try:
        known = _conducted(conducted)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MasqueError(
            f"The record of job {job_id} in the coordinator's job store is damaged.",
            hint="Put back a copy of the store, or submit the job again.",
            job=job_id,
        ) from None
    return StoredJob(job_id, name, client, request, bound, known, *rest)


def _conducted_json(job: ConductedJob) -> str:
    record = dict(vars(job))
    record["state"] = job.state.value
    for key in ("resumed", "committed"):
        record[key] = asdict(record[key]) if record[key] is not None else None
    record["program"] = job.program.hex()
    del record["round_names"]  # known again once the next attempt is prepared; there may be many
    for key in _SETS:
        record[key] = sorted(record[key])
    return json.dumps(record, sort_keys=True)


def _conducted(text: str) -> ConductedJob:
    record = json.loads(text)
    return _CONDUCTED.validate_python(record | {"program": bytes.fromhex(record["program"])})
