"""Keys and certificates on disk: private ones readable by their owner alone, none overwritten."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from masque.errors import Conflict, IdentityError, NotFound

PRIVATE, PUBLIC = 0o600, 0o644


def make_private_directory(directory: Path) -> None:
    """Make `directory` with mode 0700; one that exists keeps its mode."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(
            f"Cannot make the directory {directory}: {error.strerror}.",
            hint="Choose another place, or mend its permissions.",
            file=str(directory),
        ) from error


def write_files(files: Mapping[Path, tuple[bytes, int]], *, replace: bool = False) -> None:
    """Write each path's (content, mode), all or none of them if one exists already.

    A file is written beside its final name and then moved there, so that nobody ever reads half a
    key or a key with the wrong mode. Raises `Conflict` unless `replace`.
    """
    existing = [path for path in files if path.exists()]
    if existing and not replace:
        raise Conflict(
            f"{existing[0]} exists already.",
            hint="Choose another directory or name, or replace it with --replace.",
            file=str(existing[0]),
        )
    for path, (content, mode) in files.items():
        make_private_directory(path.parent)
        _write(path, content, mode)


def _write(path: Path, content: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except OSError as error:
        raise IdentityError(
            f"Cannot write {path}: {error.strerror}.",
            hint="Mend the permissions of its directory or free some space.",
            file=str(path),
        ) from error


def read_file(path: Path, what: str) -> bytes:
    """The content of the file that holds `what` (for the error text)."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"There is no {what} at {path}.",
            hint="Issue one with `masque pki`, or point to the right directory.",
            file=str(path),
        ) from None
    except OSError as error:
        raise IdentityError(
            f"Cannot read the {what} at {path}: {error.strerror}.", file=str(path)
        ) from error


def read_private_file(path: Path, what: str) -> bytes:
    """The same for a secret; refuses one that other users of the machine can read."""
    content = read_file(path, what)
    status = path.stat()
    if exposed(status.st_mode, status.st_uid, os.geteuid()):
        raise IdentityError(
            f"Other users of this machine can read the {what} at {path}.",
            hint=f"Run: chmod 600 {path}",
            file=str(path),
        )
    return content


def exposed(mode: int, owner: int, user: int) -> bool:
    """Whether a private file of `owner` with these permissions is open to others than `user`.

    What root lends to another user may be readable by a group: Kubernetes mounts secrets so, and
    who is in the group is for root to say.
    """
    lent = owner == 0 and user != 0
    return bool(mode & (0o037 if lent else 0o077))
