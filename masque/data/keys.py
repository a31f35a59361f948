"""The key of a party's store: from a file, or from an agent that keeps it elsewhere.

An agent is a command, run once when the party starts, that prints the key: whatever speaks to a
vault, a hardware module or a person. The key is then in this process's memory and on no disk of it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from masque.data.disk import replace, unwritable
from masque.errors import MasqueError
from masque.mpc import prg

KEY_BYTES = 32

PATIENCE = 60.0
"""Seconds within which an agent has to answer."""


class StoreKey:
    """The key of one store. Its repr never shows it; `name` is public and tells keys apart."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 random bytes."""
        self._secret = secret
        self.name = prg.derive(secret, "store key name")[:8].hex()

    def __repr__(self) -> str:
        return f"StoreKey({self.name})"

    def seal(self, folder: str, content: bytes) -> str:
        """What nobody without the key can make of this content: HMAC-SHA256, 64 hex digits."""
        return hmac.new(
            prg.derive(self._secret, "store entry", folder), content, "sha256"
        ).hexdigest()

    def cipher(self, folder: str, file: str) -> AESGCM:
        """The cipher of one file; `folder` is random and never used again."""
        return AESGCM(prg.derive(self._secret, "store file", folder, file))


def store_key(path: Path, command: Sequence[str], *, create_if_missing: bool) -> StoreKey:
    """The key of a store that is opened: of the agent if there is one, otherwise of the file.

    Errors: MasqueError, also for a file whose rotation was broken off.
    """
    if command:
        return ask_agent(command)
    check_not_rotating(path)
    return load_key(path, create_if_missing=create_if_missing)


def load_key(path: Path, *, create_if_missing: bool) -> StoreKey:
    """The key in the file `path`, a new one if allowed. Errors: MasqueError."""
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        if not create_if_missing:
            raise MasqueError(
                f"the key of the store, {path}, is missing, and its data sets need it.",
                hint="Put the key file back; without it the data must be shared again.",
            ) from None
        secret = os.urandom(KEY_BYTES)
        _keep(path, secret)
    except OSError as error:
        raise MasqueError(
            f"the key of the store, {path}, cannot be read: {error.strerror}.",
            hint="Mend its permissions, or name the right file.",
            file=str(path),
        ) from None
    if len(secret) != KEY_BYTES:
        raise MasqueError(
            f"{path} is not the key of a store: it has not {KEY_BYTES} bytes.",
            hint="Put the right key file there.",
        )
    return StoreKey(secret)


def ask_agent(command: Sequence[str], *, seconds: float = PATIENCE) -> StoreKey:
    """The key that a command prints: 32 bytes as base64 or as hexadecimal digits.

    It runs without a shell, with nothing on its input; what it says on standard error goes where
    this process's does. Errors: MasqueError, which never shows what was printed.
    """
    program = command[0]
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise _no_key(program, f"cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise _no_key(program, f"has not answered within {seconds:g} s") from None
    if done.returncode != 0:
        raise _no_key(program, f"has failed with exit code {done.returncode}")
    secret = _decoded(done.stdout.strip())
    if secret is None:
        raise _no_key(program, f"printed no key: {KEY_BYTES} bytes as base64 or hexadecimal digits")
    return StoreKey(secret)


def _decoded(text: bytes) -> bytes | None:
    try:
        if len(text) == 2 * KEY_BYTES:
            return binascii.unhexlify(text)
        secret = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return secret if len(secret) == KEY_BYTES else None


def _no_key(program: str, what: str) -> MasqueError:
    return MasqueError(
        f"the agent that has the key of the store, {program}, {what}.",
        hint="Run the command of `key_command` by hand, as the user this party runs as.",
    )


def _keep(path: Path, secret: bytes) -> None:
    """Write a new key, whole or not at all."""
    try:
        replace(path, secret)
    except OSError as error:
        raise unwritable(path, error) from None


def next_key(path: Path) -> Path:
    """Where the key is that replaces the one at `path`, while it is being rotated."""
    return path.with_name(f"{path.name}.next")


def check_not_rotating(key: Path) -> None:
    """MasqueError if a rotation of this key was broken off."""
    if os.path.exists(next_key(key)):  # False where we may not look
        raise MasqueError(
            f"the rotation of the key {key} was broken off.",
            hint="Complete it: `masque party rotate-key` with this party's configuration file.",
            file=str(key),
        )
