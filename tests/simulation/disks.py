"""Disks: what is there when the power comes back, and what a full or a bad one says.

A disk is a real directory. `watching` has `os` tell every disk what is done to it, so that it knows
which names and contents are durable: a content once its file was synced, a name once its directory
was. A power cut keeps what is durable, and of the rest a prefix in the order in which it was done,
contents perhaps torn. Killing a process alone loses nothing that was written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

Image = dict[str, bytes | None]
"""Files, and directories (None), by their path from the root of a disk."""


@dataclass(eq=False)
class Inode:
    """A file's content: `durable` as of its last sync, `last` once no name leads to it any more."""

    durable: bytes | None = None
    last: bytes | None = None


@dataclass(eq=False)
class Change:
    """A change of names in the directories `where`; durable once one of them was synced."""

    kind: str
    path: str
    where: tuple[str, ...]
    inode: Inode | None = None
    target: str = ""
    moved: dict[str, Inode] = field(default_factory=dict)
    durable: bool = False


class Disk:
    """The disk of one host in the directory `root`, which holds `image` at first.

    `steady`: what the names of files begin with that sync themselves (a database's), `certain`
    what a power cut leaves of them while they do not. `fault` is asked before every change, with
    its kind; what it returns is called and raises.
    """

    def __init__(
        self,
        root: Path,
        random: Random,
        fault: Callable[[str], Callable[[], None] | None],
        image: Image | None = None,
        steady: str = "",
    ) -> None:
        self.root, self.random, self.fault, self.steady = root, random, fault, steady
        self.retired = False
        self.certain: Image | None = None
        self.changes: list[Change] = []
        self.inodes: dict[str, Inode] = {}
        self._start: dict[str, Inode | None] = {}
        root.mkdir(parents=True)
        for path, content in sorted((image or {}).items()):
            whole, inode = root / path, None
            if content is None:
                whole.mkdir()
            else:
                whole.write_bytes(content)
                whole.chmod(0o600)
                inode = self.inodes[path] = Inode(content)
            self._start[path] = inode

    def durable(self, path: str) -> bytes:
        """What is certain to be in a file after a power cut, if its name is."""
        inode = self.inodes.get(path)
        return (inode.durable or b"") if inode is not None else b""

    # -- what `watching` tells -------------------------------------------------------------------

    def created(self, path: str) -> None:
        inode = self.inodes[path] = Inode()
        self.changes.append(Change("create", path, (os.path.dirname(path),), inode))

    def changed(self, kind: str, path: str) -> None:
        self.changes.append(Change(kind, path, (os.path.dirname(path),)))

    def removing(self, path: str) -> None:
        """A name is about to go, perhaps by being given to another file."""
        inode = self.inodes.get(path)
        if inode is not None and sum(each is inode for each in self.inodes.values()) == 1:
            inode.last = self._read(path)

    def removed(self, path: str) -> None:
        self.inodes.pop(path, None)
        self.changed("unlink", path)

    def moved(self, path: str, target: str) -> None:
        where = (os.path.dirname(path), os.path.dirname(target))
        moved = {n: self.inodes.pop(n) for n in list(self.inodes) if _below(n, path)}
        moved = {target + name[len(path) :]: inode for name, inode in moved.items()}
        self.inodes |= moved
        self.changes.append(Change("rename", path, where, target=target, moved=moved))

    def linked(self, path: str, target: str) -> None:
        self.changes.append(Change("link", path, (os.path.dirname(target),), target=target))
        if path in self.inodes:
            self.inodes[target] = self.inodes[path]

    def synced(self, path: str) -> None:
        """A file's content, or the names in a directory, are durable from now on."""
        inode = self.inodes.get(path)
        if inode is not None:
            inode.durable = self._read(path)
            return
        for change in self.changes:
            if path in change.where:
                change.durable = True

    # -- what is left ----------------------------------------------------------------------------

    def now(self) -> Image:
        """What is there for a process that comes after one that was killed."""
        found: Image = {}
        for folder, folders, files in os.walk(self.root):
            place = os.path.relpath(folder, self.root)
            for name in (*folders, *files):
                path = os.path.normpath(os.path.join(place, name))
                found[path] = self._read(path) if name in files else None
        return found

    def after_power_cut(self) -> Image:
        """What is there when the power comes back."""
        random, loose = self.random, [c for c in self.changes if not c.durable]
        fate = random.random()
        kept = 0 if fate < 0.3 else len(loose) if fate < 0.6 else int(random.random() * len(loose))
        lost = set(loose[kept:])
        names = dict(self._start)
        for change in self.changes:
            if change not in lost:
                _replay(names, change)
        live = {inode: path for path, inode in self.inodes.items()}
        found: Image = {}
        for path, inode in names.items():
            if inode is None:
                found[path] = None
            else:
                new = self._read(live[inode]) if inode in live else inode.last or b""
                old = inode.durable
                found[path] = new if new == old else _torn(old, new, random)
        found = {path: found[path] for path in found if not self._steady(path)}
        return found | (self.database() if self.certain is None else self.certain)

    def database(self) -> Image:
        """The files that sync themselves."""
        return {path: raw for path, raw in self.now().items() if self._steady(path)}

    def _steady(self, path: str) -> bool:
        return bool(self.steady) and os.path.basename(path).startswith(self.steady)

    def _read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _replay(names: dict[str, Inode | None], change: Change) -> None:
    """Do a change again, if what came before it was not lost."""
    path, target = change.path, change.target
    goal = target or path
    folder = os.path.dirname(goal)
    if folder and folder not in names:
        return
    match change.kind:
        case "create" | "mkdir":
            names[path] = change.inode
        case "unlink":
            names.pop(path, None)
        case "rmdir":  # where a folder is gone, so is what was in it
            for name in [n for n in names if _below(n, path)]:
                del names[name]
        case "link" if path in names:
            names[target] = names[path]
        case "rename":  # what is renamed durably is there durably
            for name in [n for n in names if _below(n, path)]:
                names[target + name[len(path) :]] = names.pop(name)
            names |= change.moved


def _torn(old: bytes | None, new: bytes, random: Random) -> bytes:
    """A content of which only `old` was synced: that, all of the new one, or part of it."""
    fate = random.random()
    if fate < 0.25:
        return old or b""
    if fate < 0.5:
        return new
    start = len(old) if old is not None and new.startswith(old) else 0
    cut = start + int(random.random() * (len(new) - start + 1))
    return new[:cut] + (bytes(len(new) - cut) if fate > 0.85 else b"")
