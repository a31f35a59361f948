"""Small files at rest, encrypted in one piece, each under a key of its own.

    "masque-sealed-file-1" | name of the store's key (16) | 16 random bytes | ciphertext | tag (16)

The key is derived from the store's key, the random bytes and the file's place, so no key encrypts
twice and the nonce is zero. A flipped bit, another place or another key is an error.

Source: NIST SP 800-38D (GCM).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag

from masque.data.keys import StoreKey
from masque.errors import MasqueError

_MAGIC = b"masque-sealed-file-1"
_NAME, _SALT = 16, 16
_NONCE = bytes(12)


def seal(content: bytes, key: StoreKey, place: str) -> bytes:
    """`content` for the file `place`."""
    salt = os.urandom(_SALT)
    header = _MAGIC + key.name.encode("ascii") + salt
    return header + key.cipher(salt.hex(), place).encrypt(_NONCE, content, header)


def key_of(stored: bytes) -> str | None:
    """The name of the key that a file is sealed with; None if it is not sealed."""
    if not stored.startswith(_MAGIC):
        return None
    return stored[len(_MAGIC) :][:_NAME].decode("ascii", "replace")


def unseal(stored: bytes, keys: Mapping[str, StoreKey], place: str) -> bytes:
    """The content of the file `place`; `keys` by name. Errors: MasqueError naming the file."""
    key = keys.get(key_of(stored) or "")
    if key is None:
        raise MasqueError(
            f"{place} was stored under another key than that of this store.",
            hint="Put the right key file there.",
            file=place,
        )
    size = len(_MAGIC) + _NAME + _SALT
    header = stored[:size]
    try:
        cipher = key.cipher(header[-_SALT:].hex(), place)
        return cipher.decrypt(_NONCE, stored[size:], header)
    except (InvalidTag, ValueError):
        raise MasqueError(
            f"{place} is damaged, or was moved there from elsewhere.",
            hint="Put back what was there, or delete it and run the job again.",
            file=place,
        ) from None
