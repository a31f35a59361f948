"""What a party has disclosed and deleted: an append-only file, hash-chained and signed.

The line is on disk before the opening happens (`record` returns after fsync), so a crash can leave
an entry for something not opened, never the reverse. Nothing is ever removed: a line torn by a
crash stays, and the next one says so (see `chain`). No line holds a value, only its name, its size
and who saw it.

What stands in the file and is no ledger of this format, such as one of an earlier version, is moved
aside, to `<name>.before-<n>`; the first line of the new ledger has its digest.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from masque.data.disk import sync
from masque.errors import MasqueError
from masque.jobs import chain
from masque.jobs.chain import Chain, Head, Line

Follower = Callable[[Mapping[str, Any]], None]
"""Hears of entries, one by one."""


class Signer(Protocol):
    """A certificate (DER), and what its key signs."""

    @property
    def certificate(self) -> bytes:
        """Who signs."""

    def sign(self, statement: bytes) -> bytes:
        """The signature."""


@dataclass(frozen=True)
class Disclosure:
    """One opening: when (seconds since 1970), in which job, what, how many bits, to whom."""

    time: float
    job: str
    attempt: int
    what: str
    bits: int
    to: tuple[str, ...]


class Ledger:
    """The ledger at `path`; `clock` gives seconds since 1970, `signer` who signs now. Thread-safe.

    Raises InputError naming the first bad line if what is there was changed: nothing is added to
    such a ledger.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float], signer: Callable[[], Signer]
    ) -> None:
        self._path, self._clock, self._signer = path, clock, signer
        self._lock = threading.Lock()
        self._followers: list[Follower] = []
        self._head: Head | None = None
        self._certificate = ""
        self._size: int | None = None
        with self._lock, self._disk():
            self._open()

    @property
    def head(self) -> Head:
        """The last line's name."""
        with self._lock:
            assert self._head is not None, "a ledger has a first line"
            return self._head

    def record(self, job: str, attempt: int, what: str, bits: int, to: Iterable[str]) -> Disclosure:
        """Write one disclosure and wait until it is on disk. Raises MasqueError if it cannot be."""
        found = Disclosure(float(self._clock()), job, attempt, what, bits, tuple(to))
        self._note({"kind": chain.OPENED, **vars(found), "to": list(found.to)})
        return found

    def note(self, kind: str, **content: Any) -> None:
        """Write an entry of another kind, in the same way."""
        self._note({"kind": kind, "time": float(self._clock()), **content})

    def follow(self, follower: Follower) -> None:
        """Tell `follower` of every entry that is there, and of each that comes, once it is on disk.

        It is called under the ledger's lock, and must not come back to it. Raises InputError if
        the file was changed.
        """
        with self._lock, self._disk():
            for line in self._read().lines:
                try:
                    follower(line.entry)
                except (KeyError, TypeError, ValueError, AttributeError):
                    problem = f"what it notes as {line.kind!r} cannot be read"
                    raise chain.broken(str(self._path), line.at, problem) from None
            self._followers.append(follower)

    def lines(self) -> tuple[Line, ...]:
        """All good lines. Raises InputError if the file was changed."""
        return self._read().lines

    def entries(self) -> list[Disclosure]:
        """All disclosures, oldest first."""
        return [disclosure(line) for line in self.lines() if line.kind == chain.OPENED]

    def of(self, job: str, attempt: int) -> list[Line]:
        """The lines with what an attempt of a job has disclosed."""
        return [line for line in self.lines() if discloses(line, job, (attempt,))]

    def before(self, job: str, attempt: int) -> list[Line]:
        """Those with what earlier attempts of the job have disclosed."""
        return [line for line in self.lines() if discloses(line, job, range(attempt))]

    def _note(self, entry: dict[str, Any]) -> None:
        with self._lock, self._disk():
            if self._size is None:  # the last line may be torn
                self._open()
            self._append(entry)

    def _disk(self) -> _Disk:
        return _Disk(self._path)

    def _read(self) -> Chain:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return Chain(())
        return chain.read_chain(raw, str(self._path))

    def _open(self) -> None:
        """Read what is there, and repair or move aside what must be."""
        found = self._read()
        if not found.lines:
            self._begin()
            return
        self._head = found.head
        self._certificate = _last_certificate(found)
        self._size = self._path.stat().st_size
        if found.torn:
            self._repair(found.torn)
        elif not self._path.read_bytes().endswith(b"\n"):
            self._write(b"\n")

    def _repair(self, torn: bytes) -> None:
        if not torn.endswith(b"\n"):
            self._write(b"\n")
            torn += b"\n"
        self._append(chain.torn_entry(torn, float(self._clock())))

    def _begin(self) -> None:
        if self._path.exists() and self._path.stat().st_size:
            self._path.rename(self._aside())
            sync(self._path.parent)
        before = [
            {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in sorted(self._path.parent.glob(f"{self._path.name}.before-*"))
        ]
        self._head, self._size = None, 0
        self._certificate = _encoded(self._signer().certificate)
        entry = {"kind": chain.BEGAN, "time": float(self._clock()), "before": before}
        self._append({**entry, "certificate": self._certificate})
        sync(self._path.parent)

    def _aside(self) -> Path:
        number = 1
        while (path := self._path.with_name(f"{self._path.name}.before-{number}")).exists():
            number += 1
        return path

    def _append(self, entry: dict[str, Any]) -> None:
        signer = self._signer()
        certificate = _encoded(signer.certificate)
        if certificate != self._certificate:
            renewed = {"kind": chain.CERTIFICATE, "time": float(self._clock())}
            self._put({**renewed, "certificate": certificate}, signer)
            self._certificate = certificate
        self._put(entry, signer)

    def _put(self, entry: dict[str, Any], signer: Signer) -> None:
        number, previous = (
            (self._head.number + 1, self._head.hash) if self._head else (0, chain.FIRST)
        )
        digest = chain.hash_of(number, previous, entry)
        signature = _encoded(signer.sign(chain.statement(digest)))
        line = Line(number, previous, entry, digest, signature)
        self._write(chain.written(line) + b"\n")
        self._head = line.head
        for follower in self._followers:
            follower(entry)

    def _write(self, content: bytes) -> None:
        assert self._size is not None, "opened before"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            if os.fstat(descriptor).st_size != self._size:
                raise MasqueError(
                    f"the ledger {self._path} was changed by somebody else.",
                    hint="Nothing is opened until this party has been started again.",
                    file=str(self._path),
                )
            expected, self._size = self._size, None  # unknown, should this fail
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._size = expected + len(content)


class _Disk:
    """Turns what the system says into an error that names the ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise MasqueError(
                f"the disclosure ledger {self._path} cannot be written: {error.strerror}.",
                hint="Nothing is opened until it can.",
                file=str(self._path),
            ) from None


def discloses(line: Line, job: str, attempts: Container[int]) -> bool:
    """Whether the line has something that one of these attempts of a job has opened."""
    entry = line.entry
    if line.kind != chain.OPENED or entry.get("job") != job:
        return False
    return entry.get("attempt") in attempts


def disclosure(line: Line) -> Disclosure:
    """The disclosure of a line of kind `opened`. Raises InputError if it is not written as one."""
    fields = {"time": float, "job": str, "attempt": int, "what": str, "bits": int, "to": list}
    entry = {key: value for key, value in line.entry.items() if key != "kind"}
    if entry.keys() != fields.keys() or not all(
        type(entry[key]) is kind for key, kind in fields.items()
    ):
        raise chain.broken("the ledger", line.at, "what it says was opened cannot be read")
    return Disclosure(**{**entry, "to": tuple(map(str, entry["to"]))})


def _last_certificate(found: Chain) -> str:
    for line in reversed(found.lines):
        if line.kind in (chain.BEGAN, chain.CERTIFICATE):
            return str(line.entry.get("certificate", ""))
    raise AssertionError("the first line has one")


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
