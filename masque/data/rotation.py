"""A new key for a party's store: everything is encrypted anew, and the old key opens nothing more.

The new key is an agent's, or waits at `<key>.next` while data sets and kept models change over,
each in one step, so that a crash leaves every one of them under one of the two keys; rotating again
completes it. At the end the new key's file takes the place of the old one's. The store must not be
in use. It needs as much free space as the largest data set.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from masque.data.checkpoints import change_key
from masque.data.dataset import Dataset, contents
from masque.data.disk import create, damaged, lock, replace, sync
from masque.data.kept import rekey
from masque.data.keys import StoreKey, ask_agent, load_key, next_key
from masque.data.pages import PageWriter
from masque.data.upload import Entry
from masque.errors import InputError, MasqueError


@dataclass(frozen=True)
class Rotation:
    """Which key (its name) has taken the place of which, and what was encrypted anew."""

    old: str
    new: str
    datasets: tuple[str, ...]
    kept_shares: int


def rotate(
    directory: Path,
    key_file: Path | None = None,
    *,
    key_command: Sequence[str] = (),
    next_key_command: Sequence[str] = (),
    begin: Callable[[], None] = lambda: None,
) -> Rotation:
    """Rotate the key of the store in `directory`, or complete a rotation that was broken off.

    `key_command` and `next_key_command`: agents that have the old key and the new one; a new key
    of an agent leaves the old one's file where it is. `begin` is called when the store is known to
    be in nobody's use, before anything changes. Errors: Conflict if the store is in use;
    InputError if no new key is to be had; MasqueError for a key that is missing, a data set that
    is damaged, or a disk that refuses.
    """
    path = key_file or directory / "key"
    if key_command and not next_key_command:
        raise InputError(
            "the new key of the store is not known: an agent has the old one.",
            hint="Name the command that prints the new key, as `next_key_command`.",
        )
    try:
        with closing(lock(directory / "lock")):
            begin()
            old, new = _keys(path, key_command, next_key_command)
            names = [
                entry.name
                for entry in _entries(directory / "datasets")
                if _encrypt_anew(directory, entry, old, new)
            ]
            kept = rekey(directory / "kept", [old], new)
            change_key(directory / "checkpoints", old, new)
            _seal_anew(directory / "deleted", old, new)
            if not next_key_command:
                os.replace(next_key(path), path)
                sync(path.parent)
    except OSError as error:
        raise MasqueError(
            f"the key {path} was not rotated: {error.strerror}.",
            hint="Free space, or mend permissions, then run it again: it goes on where it was.",
            file=str(path),
        ) from None
    return Rotation(old.name, new.name, tuple(names), kept)


def _keys(
    path: Path, key_command: Sequence[str], next_key_command: Sequence[str]
) -> tuple[StoreKey, StoreKey]:
    """The old key and the new one."""
    old = ask_agent(key_command) if key_command else load_key(path, create_if_missing=False)
    if not next_key_command:
        return old, load_key(next_key(path), create_if_missing=True)
    if not key_command and next_key(path).exists():
        raise InputError(
            f"a rotation to the key {next_key(path)} was broken off.",
            hint="Take `next_key_command` away and complete it first.",
        )
    new = ask_agent(next_key_command)
    if new.name == old.name:
        raise InputError(
            f"`next_key_command` prints the key that the store has already, {old.name}.",
            hint="Make a new key in the agent, and name the command that prints it.",
        )
    return old, new


def _entries(names: Path) -> list[Entry]:
    found = []
    for path in sorted(names.glob("*.json")):
        try:
            found.append(Entry.model_validate_json(path.read_bytes()))
        except ValidationError:
            raise damaged(path.stem) from None
    return found


def _seal_anew(gone: Path, old: StoreKey, new: StoreKey) -> None:
    """Descriptions of what was deleted and waits to be noted, if they are what was stored."""
    for path in gone.glob("*.json"):
        with suppress(ValueError):  # none, or one whose numbers have no spelling
            entry = Entry.model_validate_json(path.read_bytes())
            if entry.intact(old):
                replace(path, entry.sealed(new).model_dump_json().encode())


def _encrypt_anew(directory: Path, entry: Entry, old: StoreKey, new: StoreKey) -> bool:
    """Change one data set over; False if it was before. Errors: MasqueError, OSError."""
    if entry.key_name not in (old.name, new.name):
        raise MasqueError(
            f"the data set {entry.name!r} was stored under another key.",
            hint="Put the right key file there.",
            dataset=entry.name,
        )
    shares = directory / "shares"
    done = entry.key_name == new.name
    if not entry.intact(new if done else old):
        raise damaged(entry.name)
    if done:
        return False
    folder = shares / secrets.token_hex(16)
    folder.mkdir(mode=0o700)
    try:
        with Dataset(entry, shares / entry.folder, old) as dataset:
            if dataset.commitment() != entry.commitment:
                raise damaged(entry.name)
            for name in contents(entry):
                with create(folder / name) as file:
                    pages = PageWriter(file, new.cipher(folder.name, name))
                    for part in dataset.content(name):
                        pages.write(part)
                    pages.finish()
        sync(folder)
        sync(shares)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    after = entry.model_copy(update={"folder": folder.name, "key_name": new.name}).sealed(new)
    replace(directory / "datasets" / f"{entry.name}.json", after.model_dump_json().encode())
    shutil.rmtree(shares / entry.folder, ignore_errors=True)
    return True
