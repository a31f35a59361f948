"""What services read again of their own disks, each with valid samples of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from masque.data.checkpoints import Checkpoint, Checkpoints
from masque.data.chunks import checksum
from masque.data.deletions import Deletions
from masque.data.kept import KeptModels
from masque.data.keys import StoreKey
from masque.data.schema import loads
from masque.data.store import Store as Shares
from masque.jobs.conducting import Committed, ConductedJob
from masque.jobs.states import State
from services.coordinator.store import Store, StoredJob, bound_of
from tests.jobs import examples

KEY = StoreKey(bytes(range(32)))
SCHEMA = "columns: {x: {type: number, range: [0, 1]}}"

Parts = tuple[str, Callable[[bytes], object], list[bytes], int]


def decoders(folder: Path) -> Iterator[Parts]:
    """Name, decoder, samples, share of the inputs."""
    for make in (_kept, _checkpoints, _deletions, _rows, _database):
        yield make(folder / f"stores-{make.__name__}")


def _file(name: str, path: Path, read: Callable[[], object], share: int) -> Parts:
    def decode(raw: bytes) -> object:
        path.write_bytes(raw)
        return read()

    return name, decode, [path.read_bytes()], share


def _kept(folder: Path) -> Parts:
    kept = KeptModels(folder, KEY)
    kept.keep("model", json.dumps({"job_id": "j"}).encode(), {"w": bytes(64)})
    return _file("kept share", folder / "model" / "w.share", lambda: kept.share("model", "w"), 500)


def _checkpoints(folder: Path) -> Parts:
    kept = Checkpoints(folder, KEY)
    shares = {"w": np.arange(6, dtype=np.uint64).reshape(2, 3), "b": np.zeros(1, np.uint64)}
    kept.begin("j", 1)
    kept.write(Checkpoint("j", 1, 4, False, bytes(32), shares), b"{}", None)
    (path,) = (folder / "j").glob("1-4*")
    return _file("checkpoint", path, lambda: kept.read("j", 1, 4), 500)


def _deletions(folder: Path) -> Parts:
    """A description on its way out; `tell` removes it once it has been noted."""
    with Shares(folder) as store:
        with store.begin("gone", loads(SCHEMA).describe(1), "upload-1") as writer:
            writer.write(0, 1, bytes(8), checksum(bytes(8)))
            writer.commit()
        entry = store.entry("gone")
    path = folder / "deleted" / f"{entry.folder}.json"
    path.write_text(entry.model_dump_json())

    def read() -> list[str]:
        told: list[str] = []
        Deletions(path.parent).tell(lambda entry, replaced: told.append(entry.name), {})
        return told

    return _file("deletion", path, read, 500)


def _rows(folder: Path) -> Parts:
    """Columns of a job's row, as JSON: what a damaged file may hold instead of what was written."""
    store = Store(folder / "jobs.sqlite")
    bound = examples.bound()
    known = ConductedJob(
        bound.job_id,
        bound.parties,
        "dealer",
        state=State.WAITING,
        waiting=frozenset(bound.parties),
        program=bytes(32),
        resumed=Committed(1, 2, stopped=False),
        committed=Committed(2, 3, stopped=True),
    )
    store.add(StoredJob(bound.job_id, "j", "c", bytes(32), bound.canonical(), known, "", "", "t"))
    other = replace(known, job_id="other")
    store.add(StoredJob("other", "o", "c", bytes(32), bound.canonical(), other, "", "", "t"))
    database = sqlite3.connect(folder / "jobs.sqlite", isolation_level=None)
    row = "SELECT bound, conducted FROM jobs WHERE job_id=?"
    columns = database.execute(row, (bound.job_id,)).fetchone()
    sample = columns[0] + b"\n" + columns[1].encode()

    def decode(raw: bytes) -> object:
        first, _, second = raw.partition(b"\n")
        database.execute("PRAGMA synchronous=OFF")
        update = "UPDATE jobs SET bound=?, conducted=? WHERE job_id=?"
        database.execute(update, (first, second.decode("utf-8", "replace"), bound.job_id))
        names = [job.job_id for job in store.unfinished()]
        assert "other" in names and store.jobs(10), "one damaged record hides no other"
        found = store.job(bound.job_id)
        assert found is not None
        return bound_of(found)

    return "job row", decode, [sample], 500


def _database(folder: Path) -> Parts:
    """The coordinator's file itself."""
    path = folder / "jobs.sqlite"
    with Store(path) as store:
        bound = examples.bound()
        known = ConductedJob(bound.job_id, bound.parties, "dealer")
        row = StoredJob(bound.job_id, "j", "c", bytes(32), bound.canonical(), known, "", "", "t")
        store.add(row)

    def read() -> Mapping[str, object]:
        for beside in folder.glob("jobs.sqlite-*"):
            beside.unlink()
        with Store(path) as again:
            told = {"unfinished": again.unfinished(), "owed": again.owed()}
            return told | {"events": again.events(bound.job_id, 0)}

    return _file("job store", path, read, 200)
