"""Sealing: a party's share of a result, for one recipient's eyes, in one place of one job.

A sealed share is encrypted to the recipient (`masque.wire.hpke`) and signed by the party's
certificate. So whoever relays it can read nothing, change nothing, swap two of them, present one
of an older attempt, or make one up. Layout, each field after its length (4 bytes, big endian):

    "masque-sealed-1" | SHA-256 of context | recipient's public key | certificate (DER)
                      | encapsulated key and ciphertext | signature of all before it
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from masque.errors import IdentityError, ProtocolError
from masque.wire import hpke
from masque.wire.certificates import read_der, verify
from masque.wire.identity import Identity
from masque.wire.recipients import (
    Recipient,
    RecipientKey,
    sign,
    verify_signature,
)
from masque.wire.tls import Credentials
from masque.wire.trust import Trust

MAGIC = b"masque-sealed-1"
_FIELDS = 5
_LENGTH = 4


def sealing_context(job: str, attempt: int, party: str, output: str, digest: bytes) -> bytes:
    """What a sealed share belongs to, in one spelling: job, attempt, party, output, program."""
    record = [job, attempt, party, output, digest.hex()]
    return json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode()


def seal(
    plaintext: bytes,
    recipient: Recipient,
    *,
    context: bytes,
    sender: Credentials,
    ephemeral: bytes | None = None,
) -> bytes:
    """Seal `plaintext` to `recipient` in the sender's name; `context` is bound but not sent.

    `ephemeral` is the 32 random bytes of the encryption, from the operating system if None.
    """
    context_digest = hashlib.sha256(context).digest()
    certificate = sender.certificate.public_bytes(serialization.Encoding.DER)
    encrypted = hpke.encrypt(plaintext, recipient.key, context, ephemeral=ephemeral)
    fields = (context_digest, recipient.key.public_bytes_raw(), certificate, encrypted)
    signed = MAGIC + b"".join(map(_framed, fields))
    return signed + _framed(sign(sender, signed))


def unseal(
    sealed: bytes,
    key: RecipientKey,
    *,
    context: bytes,
    sender: Identity,
    trust: Trust,
    at: dt.datetime | None = None,
) -> bytes:
    """Open what `sender` sealed to `key` in this `context`, and believe it.

    `at` (UTC) is the moment at which the sender's certificate must be valid, by default now; give
    the job's end for a result that has waited. Raises `ProtocolError` for damaged or misplaced
    bytes and `IdentityError` for the wrong key, a forged signature or another sender.
    """
    parts = _parse(sealed, sender)
    found = verify(parts.certificate, trust, at=at)
    if found != sender:
        raise IdentityError(
            f"The sealed share of {sender} was signed by {found}.",
            hint="Somebody mixed up or forged shares: do not use this result.",
            sender=found.uri,
        )
    verify_signature(parts.certificate, parts.signature, parts.signed, f"The share of {sender}")
    if parts.recipient != key.recipient.key.public_bytes_raw():
        raise IdentityError(
            f"The share of {sender} is sealed to another key than that of "
            f"{key.recipient.identity}.",
            hint="Use the .recipient.key that existed when the job was submitted.",
        )
    if parts.context_digest != hashlib.sha256(context).digest():
        raise ProtocolError(
            f"The share of {sender} belongs to another job, attempt or output.",
            hint="Fetch the result again; if it stays, do not use it.",
            sender=sender.uri,
        )
    return hpke.decrypt(parts.encrypted, key.key, context)


@dataclass(frozen=True)
class _Parts:
    context_digest: bytes
    recipient: bytes
    certificate: x509.Certificate
    encrypted: bytes
    signature: bytes
    signed: bytes


def _parse(sealed: bytes, sender: Identity) -> _Parts:
    fields: list[bytes] = []
    ends = [len(MAGIC)]
    while sealed.startswith(MAGIC) and len(fields) < _FIELDS and ends[-1] < len(sealed):
        start = ends[-1] + _LENGTH
        end = start + int.from_bytes(sealed[ends[-1] : start], "big")
        fields.append(sealed[start:end])
        ends.append(end)
    if len(fields) != _FIELDS or ends[-1] != len(sealed):
        raise ProtocolError(
            f"What came as the sealed share of {sender} is cut off or damaged.",
            hint="Fetch it again; if it stays, ask the sender.",
            sender=sender.uri,
        )
    signed = sealed[: ends[-2]]
    return _Parts(fields[0], fields[1], read_der(fields[2]), fields[3], fields[4], signed)


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH, "big") + part
