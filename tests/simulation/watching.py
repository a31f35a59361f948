"""`os` while a world runs: what is done below a disk's root is told to that disk."""

from __future__ import annotations

import errno
import io
import os
import random as randoms
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from greenlet import getcurrent

from tests.simulation.disks import Disk
from tests.simulation.worlds import EPOCH, Task, World

SYNC = 0.003
"""Seconds that a sync takes at most; until it is over, nothing of it is promised."""

_real = SimpleNamespace(**{name: getattr(os, name) for name in dir(os) if name.islower()})
_disks: dict[str, Disk] = {}
_files: dict[int, tuple[Disk, str]] = {}
_depth = [0]


def attach(disk: Disk) -> None:
    """From now on, `disk` hears what is done below its root; what is there is dated now."""
    for folder, _, files in os.walk(disk.root):
        for name in files:
            _date(os.path.join(folder, name))
    _disks[str(disk.root)] = disk
    _depth[:] = [len(disk.root.parts) - 1]


def detach() -> None:
    """No disk is used any more."""
    _disks.clear()
    _files.clear()


def _found(path: Any) -> tuple[Disk, str] | None:
    """The disk of a path, and the path from its root."""
    if not _disks or isinstance(path, int):
        return None
    text = os.fspath(path)
    if isinstance(text, bytes) or not text.startswith("/"):
        return None
    parts = text.split("/", _depth[0] + 1)
    disk = _disks.get("/".join(parts[: _depth[0] + 1]))
    if disk is None or disk.retired:
        return None
    return disk, parts[-1] if len(parts) > _depth[0] + 1 else ""


def _ask(disk: Disk, kind: str) -> None:
    fault = disk.fault(kind)
    if fault is not None:
        fault()


def no_space() -> OSError:
    """What a full disk says."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def bad_disk() -> OSError:
    """What a bad disk says."""
    return OSError(errno.EIO, os.strerror(errno.EIO))


class _Raw(io.FileIO):
    """What a buffered writer writes to."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb")

    def write(self, content: Any) -> int:
        return _write(self.fileno(), content)

    def close(self) -> None:
        if not self.closed:
            _files.pop(self.fileno(), None)
        super().close()


def _open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    found = _found(path) if dir_fd is None else None
    if found is None or flags & os.O_TMPFILE == os.O_TMPFILE:
        descriptor: int = _real.open(path, flags, mode, dir_fd=dir_fd)
        _files.pop(descriptor, None)
        return descriptor
    disk, place = found
    fresh = bool(flags & os.O_CREAT) and not os.path.lexists(path)
    if fresh:
        _ask(disk, "create")
    descriptor = _real.open(path, flags, mode)
    if fresh:
        disk.created(place)
        _date(path)
    _files[descriptor] = disk, place
    return descriptor


def _date(path: Any) -> None:
    """When a file was written is told by the world's clock."""
    now = EPOCH + World.current.now
    os.utime(path, (now, now))


def _close(descriptor: int) -> None:
    _files.pop(descriptor, None)
    _real.close(descriptor)


def _write(descriptor: int, content: Any) -> int:
    found = _files.get(descriptor)
    if found is not None and not found[0].retired:
        fault = found[0].fault("write")
        if fault is not None:
            part = memoryview(content).cast("B")
            cut = int(found[0].random.random() * len(part))
            _real.write(descriptor, part[:cut])
            fault()
    written: int = _real.write(descriptor, content)
    return written


def _fdopen(descriptor: int, mode: str = "r", *more: Any, **options: Any) -> Any:
    if mode == "wb" and descriptor in _files:
        return io.BufferedWriter(_Raw(descriptor))
    return open(descriptor, mode, *more, **options)


def _fsync(descriptor: int) -> None:
    found = _files.get(descriptor)
    if found is None or found[0].retired:
        return
    disk, place = found
    _ask(disk, "sync")
    if isinstance(getcurrent(), Task):
        World.current.sleep(SYNC * disk.random.random())
    disk.synced(place)


def _mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    found = _found(path)
    if found is not None and not os.path.lexists(path):
        _ask(found[0], "create")
    _real.mkdir(path, mode, dir_fd=dir_fd)
    if found is not None:
        found[0].changed("mkdir", found[1])


def _rmdir(path: Any, *, dir_fd: int | None = None) -> None:
    found = _found(path)
    _real.rmdir(path, dir_fd=dir_fd)
    if found is not None:
        found[0].changed("rmdir", found[1])


def _unlink(path: Any, *, dir_fd: int | None = None) -> None:
    found = _found(path) if dir_fd is None else None
    if found is not None and os.path.lexists(path):
        _ask(found[0], "remove")
        found[0].removing(found[1])
    _real.unlink(path, dir_fd=dir_fd)
    if found is not None:
        found[0].removed(found[1])


def _rename(path: Any, target: Any, *, src_dir_fd: Any = None, dst_dir_fd: Any = None) -> None:
    found, goal = _found(path), _found(target)
    if found is not None and goal is not None:
        _ask(found[0], "rename")
        if os.path.isfile(target):
            goal[0].removing(goal[1])
    _real.replace(path, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
    if found is not None and goal is not None:
        found[0].moved(found[1], goal[1])
        _date(target)


def _link(path: Any, target: Any, **options: Any) -> None:
    found, goal = _found(path), _found(target)
    if found is not None and not os.path.lexists(target):
        _ask(found[0], "create")
    _real.link(path, target, **options)
    if found is not None and goal is not None:
        found[0].linked(found[1], goal[1])


def _urandom(size: int) -> bytes:
    """Randomness of simulated services follows from the seed."""
    if isinstance(getcurrent(), Task):
        return World.current.entropy.randbytes(size)
    found: bytes = _real.urandom(size)
    return found


def _disk_usage(path: Any) -> Any:
    return SimpleNamespace(total=1 << 40, used=0, free=1 << 40)


_WATCHED: dict[str, Callable[..., Any]] = {
    "open": _open,
    "close": _close,
    "write": _write,
    "fdopen": _fdopen,
    "fsync": _fsync,
    "mkdir": _mkdir,
    "rmdir": _rmdir,
    "unlink": _unlink,
    "remove": _unlink,
    "rename": _rename,
    "replace": _rename,
    "link": _link,
    "urandom": _urandom,
}

urandom = _urandom
"""What replaces `os.urandom` where it was taken before."""


@contextmanager
def watching() -> Iterator[None]:
    """While it lasts, disks hear what is done to them."""
    with (
        mock.patch.multiple(os, **_WATCHED),  # type: ignore[call-overload]
        mock.patch.object(randoms, "_urandom", _urandom),
        mock.patch.object(shutil, "_use_fd_functions", False),
        mock.patch.object(shutil, "disk_usage", _disk_usage),
    ):
        try:
            yield
        finally:
            detach()
