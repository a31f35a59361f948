"""Models that a party keeps as shares, whole or not at all, encrypted with the store's key.

<directory>/<name>/job.json          the bound job that made it: public
<directory>/<name>/<output>.share    this party's share of one output, sealed to its place
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from masque.data.disk import BESIDE, create, flush, make_directory, replace, sync, tidy
from masque.data.keys import StoreKey
from masque.data.sealed import key_of, seal, unseal
from masque.errors import MasqueError, NotFound


class KeptModels:
    """The models kept in `directory`. MasqueError if one is sealed with another key than `key`."""

    def __init__(self, directory: Path, key: StoreKey) -> None:
        self._directory, self._key = directory, key
        make_directory(directory)
        rekey(directory, [key], key)

    def __contains__(self, name: str) -> bool:
        return (self._directory / name).exists()

    def keep(self, name: str, job: bytes, shares: Mapping[str, bytes]) -> None:
        """Store a model; `shares` by output. Errors: MasqueError if it cannot be.

        One that is kept under this name is replaced: ask `maker` before.
        """
        beside = self._directory / f"{BESIDE}{secrets.token_hex(8)}"
        try:
            beside.mkdir(mode=0o700)
            _write(beside / "job.json", job)
            for output, share in shares.items():
                file = _file(output)
                _write(beside / file, seal(share, self._key, place(self._directory, name, file)))
            sync(beside)
            if name in self:  # of an earlier attempt of the same job, which came to nothing
                gone = self._directory / f"{BESIDE}{secrets.token_hex(8)}"
                os.rename(self._directory / name, gone)
                shutil.rmtree(gone, ignore_errors=True)
            os.rename(beside, self._directory / name)
            sync(self._directory)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise MasqueError(
                f"the model {name!r} could not be kept: {error.strerror}.",
                hint="Choose another name for keep_shares, or free space at the party.",
            ) from None

    def maker(self, name: str) -> str | None:
        """The id of the job that made a model; None if none is kept under this name."""
        if name not in self:
            return None
        try:
            return str(json.loads((self._directory / name / "job.json").read_bytes())["job_id"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ""

    def share(self, name: str, output: str) -> bytes:
        """This party's share of an output. Errors: NotFound; MasqueError if it is damaged."""
        file = _file(output)
        try:
            stored = (self._directory / name / file).read_bytes()
        except OSError:
            raise NotFound(f"no {output!r} of a model {name!r} is kept here.", model=name) from None
        return unseal(stored, {self._key.name: self._key}, place(self._directory, name, file))


def rekey(directory: Path, known: list[StoreKey], key: StoreKey) -> int:
    """Encrypt every share with `key` that is sealed with one of `known`.

    Returns how many. A plain one is nobody's whom we know: it stays, and is not believed. What
    a crash left behind is removed first. Each file is replaced by itself, so a crash leaves a
    mixture that doing it again completes. Errors: MasqueError naming a file under an unknown key;
    OSError.
    """
    tidy(directory)
    keys, count = {each.name: each for each in known}, 0
    for path in sorted(directory.glob("*/*.share")):
        stored = path.read_bytes()
        if key_of(stored) in (key.name, None):
            continue
        at = place(directory, path.parent.name, path.name)
        replace(path, seal(unseal(stored, keys, at), key, at))
        count += 1
    return count


def _file(output: str) -> str:
    return f"{quote(output, safe='')}.share"


def place(directory: Path, name: str, file: str) -> str:
    """What a file is sealed to: nobody can put another in its stead."""
    return f"{directory.name}/{name}/{file}"


def _write(path: Path, content: bytes) -> None:
    with create(path) as file:
        file.write(content)
        flush(file)
