"""What a party keeps of jobs under way, to go on after a crash: shares, encrypted, two a job.

<directory>/<job>/job.json                  the bound job: public
<directory>/<job>/<attempt>-<round>.share   this party's shares before training round `round`

Only an attempt that has begun and has not ended writes any (`Checkpoints.begin`, `end`): a worker
that is late harms no newer attempt, and what was forgotten stays so.

A checkpoint is sealed with the store's key to its place, which also tells whether it is whole, and
there at once or not at all. Beside the newest, the one before it stays: another party may not have
come as far. A checkpoint that cannot be read is lost, and no more: the job begins anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from threading import RLock

import numpy as np

from masque.data.disk import make_directory, replace, sync, tidy
from masque.data.kept import place
from masque.data.keys import StoreKey
from masque.data.sealed import key_of, seal, unseal
from masque.errors import MasqueError, NotFound
from masque.mpc.types import Ring

_SUFFIX = ".share"


@dataclass(frozen=True)
class Checkpoint:
    """Before training round `round`, as attempt `attempt` left it; `shares` by register.

    `subject`: of the job (32 bytes); `stopped`: whether training had stopped early.
    """

    job: str
    attempt: int
    round: int
    stopped: bool
    subject: bytes
    shares: Mapping[str, Ring] = field(repr=False)


class Checkpoints:
    """The checkpoints below `directory`, under the store's key. Safe in any thread."""

    def __init__(self, directory: Path, key: StoreKey) -> None:
        self._directory, self._key = directory, key
        self._lock = RLock()
        self._begun: dict[str, int] = {}  # of each job the attempt that may write
        make_directory(directory)
        tidy(directory)

    def begin(self, job: str, attempt: int) -> None:
        """From now on this attempt of `job` may write, and no earlier one."""
        with self._lock:
            self._begun[job] = max(attempt, self._begun.get(job, attempt))

    def end(self, job: str, attempt: int) -> None:
        """This attempt is over, and writes no more; what it has written stays."""
        with self._lock:
            if self._begun.get(job) == attempt:
                del self._begun[job]

    def write(self, checkpoint: Checkpoint, job: bytes, before: tuple[int, int] | None) -> bool:
        """Store a checkpoint of `job` (canonical JSON); returns once it is on disk.

        Of the others only that of `before`, an attempt and a round, is left. False, and nothing
        happens, if its attempt is not the one that has begun: it has ended, a newer one has begun,
        or the job was forgotten. Errors: MasqueError.
        """
        folder = self._directory / checkpoint.job
        name = _name(checkpoint.attempt, checkpoint.round)
        sealed = seal(_encoded(checkpoint), self._key, place(self._directory, folder.name, name))
        try:
            with self._lock:
                if self._begun.get(checkpoint.job) != checkpoint.attempt:
                    return False
                if not folder.exists():
                    folder.mkdir(mode=0o700)
                    sync(self._directory)
                if not (folder / "job.json").exists():
                    replace(folder / "job.json", job)
                replace(folder / name, sealed)
                left = {name, _name(*before) if before else name}
                for path in folder.glob(f"*{_SUFFIX}"):
                    if path.name not in left:
                        path.unlink(missing_ok=True)
        except OSError as error:
            raise MasqueError(
                f"a checkpoint of job {checkpoint.job} cannot be written: {error.strerror}.",
                hint="Free space at the party: the job goes on from the last one.",
                job=checkpoint.job,
            ) from None
        return True

    def read(self, job: str, attempt: int, round: int) -> Checkpoint:
        """A checkpoint. Errors: NotFound; MasqueError if it is damaged."""
        name = _name(attempt, round)
        try:
            stored = (self._directory / job / name).read_bytes()
        except OSError:
            raise NotFound(f"no checkpoint {name} of job {job} is kept here.", job=job) from None
        at = place(self._directory, job, name)
        return _decoded(unseal(stored, {self._key.name: self._key}, at), at)

    def jobs(self) -> dict[str, float]:
        """Jobs that have checkpoints, and when the newest was written, in Unix seconds."""
        found = {}
        for folder in self._directory.iterdir():
            times = [path.stat().st_mtime for path in (folder, *folder.glob("*"))]
            found[folder.name] = max(times)
        return found

    def job(self, job: str) -> bytes:
        """The bound job that a checkpoint is of, canonical JSON. Errors: NotFound."""
        try:
            return (self._directory / job / "job.json").read_bytes()
        except OSError:
            raise NotFound(f"no checkpoint of job {job} is kept here.", job=job) from None

    def forget(self, job: str) -> None:
        """Destroy the checkpoints of a job, if there are any; no attempt adds one."""
        with self._lock:
            self._begun.pop(job, None)
            self._remove(job)

    def sweep(self, keep: Callable[[bytes, float], bool]) -> list[str]:
        """Destroy the checkpoints of jobs that `keep(job, written)` does not want; which these are.

        `job`: canonical JSON, empty if there is none; `written`: see `jobs`.
        """
        gone = []
        with self._lock:
            for name, at in self.jobs().items():
                try:
                    job = self.job(name)
                except NotFound:
                    job = b""
                if not keep(job, at):
                    self._remove(name)
                    gone.append(name)
        return gone

    def _remove(self, job: str) -> None:
        folder = self._directory / job
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            sync(self._directory)


def change_key(directory: Path, old: StoreKey, new: StoreKey) -> None:
    """Encrypt every checkpoint below `directory` with `new`; those that cannot be read go.

    A crash leaves a mixture that doing it again completes. Errors: OSError.
    """
    for path in directory.glob(f"*/*{_SUFFIX}"):
        stored, at = path.read_bytes(), place(directory, path.parent.name, path.name)
        if key_of(stored) == new.name:
            continue
        try:
            content = unseal(stored, {old.name: old}, at)
        except MasqueError:
            path.unlink()
        else:
            replace(path, seal(content, new, at))


def _name(attempt: int, round: int) -> str:
    return f"{attempt}-{round}{_SUFFIX}"


def _encoded(checkpoint: Checkpoint) -> bytes:
    shares = [np.ascontiguousarray(share, "<u8") for share in checkpoint.shares.values()]
    header = {
        "job": checkpoint.job,
        "attempt": checkpoint.attempt,
        "round": checkpoint.round,
        "stopped": checkpoint.stopped,
        "subject": checkpoint.subject.hex(),
        "registers": {name: list(share.shape) for name, share in checkpoint.shares.items()},
    }
    parts = [json.dumps(header).encode(), b"\n", *(share.tobytes() for share in shares)]
    return b"".join(parts)


def _decoded(content: bytes, at: str) -> Checkpoint:
    try:
        head, _, words = content.partition(b"\n")
        header = json.loads(head)
        start, shares = 0, {}
        for name, shape in header["registers"].items():
            size = 8 * prod(shape)
            part = np.frombuffer(words[start : start + size], "<u8")
            shares[name] = part.astype(np.uint64).reshape(shape)
            start += size
        if start != len(words):
            raise ValueError
        return Checkpoint(
            str(header["job"]),
            int(header["attempt"]),
            int(header["round"]),
            bool(header["stopped"]),
            bytes.fromhex(header["subject"]),
            shares,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise MasqueError(
            f"{at} is not a checkpoint that this version of Masque can read.",
            hint="The job begins anew without it.",
            file=at,
        ) from None
