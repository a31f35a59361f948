"""Files that hold shares: private, durable, and read without surprises."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from pathlib import Path
from typing import IO

from masque.errors import Conflict, MasqueError, Refused

BESIDE = ".new-"
"""What the names of files and folders begin with that a crash may leave behind, of no use."""


def tidy(directory: Path) -> None:
    """Remove what a crash has left `BESIDE` something, here and up to two folders below.

    Only while nobody writes here.
    """
    for folders in ("", "*/", "*/*/"):
        for left in directory.glob(f"{folders}{BESIDE}*"):
            shutil.rmtree(left, ignore_errors=True)
            with contextlib.suppress(OSError):  # it is gone, or is no more than in the way
                left.unlink()


def make_directory(path: Path) -> None:
    """`path` exists, durably, and is for its owner alone. Errors: MasqueError naming it."""
    try:
        fresh = not path.exists()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        if fresh:
            sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None


def lock(path: Path) -> IO[bytes]:
    """The open, locked file `path`; close it to let go. Errors: Conflict if another has it."""
    try:
        file = create(path, fresh=False)
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise Conflict(
            f"the store {path.parent} is in use by another process.",
            hint="Stop that one, or give this party a directory of its own.",
        ) from None
    return file


def create(path: Path, *, fresh: bool = True) -> IO[bytes]:
    """A file to write, mode 0600; if `fresh` it must not exist yet."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if fresh else 0)
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def replace(path: Path, content: bytes) -> None:
    """`path` has this content, mode 0600; a crash leaves what was there before. Errors: OSError."""
    beside = path.with_name(f"{BESIDE}{secrets.token_hex(8)}")
    try:
        with create(beside) as file:
            file.write(content)
            flush(file)
        os.replace(beside, path)
        sync(path.parent)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def flush(file: IO[bytes]) -> None:
    """What was written to `file` survives a power cut."""
    file.flush()
    os.fsync(file.fileno())


def sync(directory: Path) -> None:
    """Names created, renamed or removed in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def damaged(dataset: str) -> MasqueError:
    """The error for a data set whose files are not what was committed, under the store's key."""
    return MasqueError(
        f"the stored data set {dataset!r} is damaged, cut short, or was changed by somebody.",
        hint="Delete it, and share the data again.",
        dataset=dataset,
    )


def foreign(dataset: str, hint: str) -> Refused:
    """The error for a data set of somebody else."""
    text = f"the data set {dataset!r} belongs to somebody else."
    return Refused(text, hint=hint, dataset=dataset)


def unwritable(path: Path, error: OSError) -> MasqueError:
    """The error for a place on disk that cannot be used as the configuration says."""
    return MasqueError(
        f"{path} cannot be written: {error.strerror}.",
        hint="Mend its permissions, free space on its disk, or name another place.",
        file=str(path),
    )


def full(size: int, reason: str | None = None) -> Refused:
    """The error for shares that the disk does not take."""
    return Refused(
        f"this party cannot store {size} bytes of shares: {reason or 'its disk is full'}.",
        hint="Nothing was kept. Free space at the party, then share the data again.",
    )
