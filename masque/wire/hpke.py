"""Hybrid public-key encryption to an X25519 key: RFC 9180, base mode, single shot.

Suite DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Written out here because the
randomness is an argument, so that golden vectors can be replayed; the tests open what it writes
with the implementation in `cryptography` and the other way round. Names follow the RFC.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from masque.errors import ProtocolError

KEY_BYTES = 32
OVERHEAD = KEY_BYTES + 16
"""Bytes that encryption adds: the encapsulated key and the tag."""

_KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
_HPKE_SUITE = b"HPKE" + b"".join(part.to_bytes(2, "big") for part in (0x0020, 0x0001, 0x0002))
_BASE_MODE = b"\x00"


def encrypt(
    plaintext: bytes, recipient: X25519PublicKey, info: bytes, *, ephemeral: bytes | None = None
) -> bytes:
    """Encapsulated key (32 bytes) and ciphertext with tag; `info` is bound, not sent.

    `ephemeral` is the 32 bytes of the ephemeral private key, from the operating system if None;
    each value serves one message only.
    """
    secret = X25519PrivateKey.from_private_bytes(ephemeral or os.urandom(KEY_BYTES))
    encapsulated = secret.public_key().public_bytes_raw()
    shared = _shared_secret(secret.exchange(recipient), encapsulated, recipient)
    key, nonce = _key_schedule(shared, info)
    return encapsulated + AESGCM(key).encrypt(nonce, plaintext, b"")


def decrypt(sealed: bytes, recipient: X25519PrivateKey, info: bytes) -> bytes:
    """The plaintext; `ProtocolError` if key, `info` or a single bit differ."""
    try:
        encapsulated, ciphertext = sealed[:KEY_BYTES], sealed[KEY_BYTES:]
        exchanged = recipient.exchange(X25519PublicKey.from_public_bytes(encapsulated))
        shared = _shared_secret(exchanged, encapsulated, recipient.public_key())
        key, nonce = _key_schedule(shared, info)
        return AESGCM(key).decrypt(nonce, ciphertext, b"")
    except (InvalidTag, ValueError):
        raise ProtocolError(
            "The sealed bytes do not open with this key: they were changed, or sealed for "
            "something else.",
            hint="Fetch them again; if it stays, ask the sender.",
        ) from None


def _shared_secret(exchanged: bytes, encapsulated: bytes, recipient: X25519PublicKey) -> bytes:
    """ExtractAndExpand of the RFC's section 4.1."""
    context = encapsulated + recipient.public_bytes_raw()
    extracted = _extract(_KEM_SUITE, b"", b"eae_prk", exchanged)
    return _expand(_KEM_SUITE, extracted, b"shared_secret", context, KEY_BYTES)


def _key_schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and nonce of the first message, section 5.1, base mode without a pre-shared key."""
    context = (
        _BASE_MODE
        + _extract(_HPKE_SUITE, b"", b"psk_id_hash", b"")
        + _extract(_HPKE_SUITE, b"", b"info_hash", info)
    )
    secret = _extract(_HPKE_SUITE, shared, b"secret", b"")
    key = _expand(_HPKE_SUITE, secret, b"key", context, 32)
    return key, _expand(_HPKE_SUITE, secret, b"base_nonce", context, 12)


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    """LabeledExtract, section 4."""
    extract = hmac.HMAC(salt or bytes(32), hashes.SHA256())
    extract.update(b"HPKE-v1" + suite + label + material)
    return extract.finalize()


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand, section 4."""
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(hashes.SHA256(), length, labelled).derive(key)
