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

from masque.errors import Conflict, MasqueError
from masque.jobs.conducting import ConductedJob
from masque.jobs.states import State

SCHEMA_VERSION = 2
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


_FROM_1 = "ALTER TABLE jobs ADD COLUMN trace TEXT NOT NULL DEFAULT '';"
"""What a store of format 1 lacks."""


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
        except (OSError, sqlite3.Error) as error:
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

    def job(self, job_id: str) -> StoredJob | None:
        """The job of this id."""
        found = self._jobs("WHERE job_id=?", (job_id,))
        return found[0] if found else None

    def jobs(self, limit: int) -> list[StoredJob]:
        """The latest jobs, the newest first."""
        return self._jobs("ORDER BY number DESC LIMIT ?", (limit,))

    def unfinished(self) -> list[StoredJob]:
        """Jobs that have not ended, the oldest first."""
        return self._jobs("WHERE ended='' ORDER BY number", ())

    def events(self, job_id: str, after: int) -> list[StoredEvent]:
        """Events of a job with numbers above `after`, in order."""
        with self._lock:
            rows = self._database.execute(
                "SELECT number, state, progress, error, ended FROM events"
                " WHERE job_id=? AND number>? ORDER BY number",
                (job_id, after),
            ).fetchall()
        return [StoredEvent(n, state, text, error, bool(e)) for n, state, text, error, e in rows]

    def sealed(self, job_id: str, attempt: int, recipient: str) -> list[Sealed]:
        """What an attempt of a job sealed for a recipient, by party and output."""
        with self._lock:
            rows = self._database.execute(
                "SELECT party, output, recipient, content FROM sealed"
                " WHERE job_id=? AND attempt=? AND recipient=? ORDER BY party, output",
                (job_id, attempt, recipient),
            ).fetchall()
        return [Sealed(*row) for row in rows]

    def _jobs(self, where: str, values: tuple[Any, ...]) -> list[StoredJob]:
        with self._lock:
            rows = self._database.execute(
                "SELECT job_id, name, client, request, bound, conducted, progress, error,"
                f" submitted, ended, trace FROM jobs {where}",
                values,
            ).fetchall()
        return [_stored(row) for row in rows]

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
            except sqlite3.Error as error:
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
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version in (0, 1):
            change = _SCHEMA if version == 0 else _FROM_1
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


def two_specs(job_id: str) -> Conflict:
    """The error for an id that belongs to another job already."""
    return Conflict(
        f"There are two specs for one job id, {job_id}.",
        hint="Submit the job again under an id of its own.",
        job=job_id,
    )


def _stored(row: tuple[Any, ...]) -> StoredJob:
    job_id, name, client, request, bound, conducted, *rest = row
    return StoredJob(job_id, name, client, request, bound, _conducted(conducted), *rest)


def _conducted_json(job: ConductedJob) -> str:
    record = asdict(job)
    record["state"] = job.state.value
    record["program"] = job.program.hex()
    record["waiting"], record["stopping"] = sorted(job.waiting), sorted(job.stopping)
    return json.dumps(record, sort_keys=True)


def _conducted(text: str) -> ConductedJob:
    record = json.loads(text)
    record["state"] = State(record["state"])
    record["program"] = bytes.fromhex(record["program"])
    for key in ("waiting", "stopping"):
        record[key] = frozenset(record[key])
    for key in ("parties", "round_names"):
        record[key] = tuple(record[key])
    return ConductedJob(**record)
