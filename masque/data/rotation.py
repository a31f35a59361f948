"""A new key for a party's store: everything is encrypted anew, and the old key opens nothing more.

The new key waits at `<key>.next` while data sets and kept models change over, each in one step, so
that a crash leaves every one of them under one of the two keys; rotating again completes it. At the
end the new key takes the place of the old one. The store must not be in use. It needs as much free
space as the largest data set.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from masque.data.dataset import Dataset, contents
from masque.data.disk import create, damaged, lock, replace, sync
from masque.data.kept import rekey
from masque.data.pages import PageWriter, StoreKey, load_key, next_key
from masque.data.upload import Entry
from masque.errors import MasqueError


@dataclass(frozen=True)
class Rotation:
    """Which key (its name) has taken the place of which, and what was encrypted anew."""

    old: str
    new: str
    datasets: tuple[str, ...]
    kept_shares: int


def rotate(directory: Path, key_file: Path | None = None) -> Rotation:
    """Rotate the key of the store in `directory`, or complete a rotation that was broken off.

    Errors: Conflict if the store is in use; MasqueError for a key that is missing, a data set that
    is damaged, or a disk that refuses.
    """
    path = key_file or directory / "key"
    try:
        with closing(lock(directory / "lock")):
            old = load_key(path, create_if_missing=False)
            new = load_key(next_key(path), create_if_missing=True)
            names = [
                entry.name
                for entry in _entries(directory / "datasets")
                if _encrypt_anew(directory, entry, old, new)
            ]
            kept = rekey(directory / "kept", [old], new)
            os.replace(next_key(path), path)
            sync(path.parent)
    except OSError as error:
        raise MasqueError(
            f"the key {path} was not rotated: {error.strerror}.",
            hint="Free space, or mend permissions, then run it again: it goes on where it was.",
            file=str(path),
        ) from None
    return Rotation(old.name, new.name, tuple(names), kept)


def _entries(names: Path) -> list[Entry]:
    found = []
    for path in sorted(names.glob("*.json")):
        try:
            found.append(Entry.model_validate_json(path.read_bytes()))
        except ValidationError:
            raise damaged(path.stem) from None
    return found


def _encrypt_anew(directory: Path, entry: Entry, old: StoreKey, new: StoreKey) -> bool:
    """Change one data set over; False if it was before. Errors: MasqueError, OSError."""
    if entry.key_name == new.name:
        return False
    if entry.key_name != old.name:
        raise MasqueError(
            f"the data set {entry.name!r} was stored under another key.",
            hint="Put the right key file there.",
            dataset=entry.name,
        )
    shares = directory / "shares"
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
    after = entry.model_copy(update={"folder": folder.name, "key_name": new.name})
    replace(directory / "datasets" / f"{entry.name}.json", after.model_dump_json().encode())
    shutil.rmtree(shares / entry.folder, ignore_errors=True)
    return True
