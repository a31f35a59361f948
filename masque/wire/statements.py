"""What somebody signs with the key of its certificate, as one line of text that others carry.

{"statement": what is signed, "certificate": DER, "signature": ECDSA}     (canonical JSON, base64)

The signature is over `domain`, which no two kinds of statements share, and the canonical JSON of
the statement.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from masque.data.table import canonical_json
from masque.jobs.section import Section
from masque.wire.certificates import read_der, verify
from masque.wire.identity import Identity, Role
from masque.wire.recipients import sign, verify_signature
from masque.wire.tls import Credentials
from masque.wire.trust import Trust

Said = TypeVar("Said", bound=Section)


@dataclass(frozen=True)
class Signed(Generic[Said]):
    """A statement as it was read; nothing of it is believed before `verify` has returned."""

    said: Said
    certificate: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def verify(
        self, domain: bytes, trust: Trust, name: str, what: str, at: dt.datetime | None
    ) -> tuple[Identity, x509.Certificate]:
        """The client that has signed it, which must be `name`; its certificate.

        `at`: the moment at which the certificate must be valid, by default now. `what` it is, for
        the error. Raises IdentityError.
        """
        seen = read_der(self.certificate)
        identity = verify(seen, trust, role=Role.CLIENT, name=name, at=at)
        verify_signature(seen, self.signature, domain + canonical_json(_content(self.said)), what)
        return identity, seen


def sign_statement(said: Section, domain: bytes, credentials: Credentials) -> str:
    """The statement, signed by the holder of `credentials`."""
    content = _content(said)
    certificate = credentials.certificate.public_bytes(serialization.Encoding.DER)
    signature = sign(credentials, domain + canonical_json(content))
    record = {
        "statement": content,
        "certificate": base64.b64encode(certificate).decode("ascii"),
        "signature": base64.b64encode(signature).decode("ascii"),
    }
    return canonical_json(record).decode("ascii")


def read_signed(text: str, kind: type[Said], largest: int) -> Signed[Said]:
    """A statement of this kind in at most `largest` characters. Raises ValueError if it is none."""
    try:
        if len(text) > largest:
            raise ValueError
        record = json.loads(text)
        if canonical_json(record).decode("ascii") != text or len(record) != 3:
            raise ValueError
        certificate = base64.b64decode(record["certificate"], validate=True)
        signature = base64.b64decode(record["signature"], validate=True)
        said = kind.model_validate_json(json.dumps(record["statement"]))
        if _content(said) != record["statement"]:
            raise ValueError
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise ValueError("not a signed statement of this kind") from None
    return Signed(said, certificate, signature)


def _content(said: Section) -> dict[str, Any]:
    """What is signed: only what was given, so that rules of later versions change nothing in it."""
    return said.model_dump(mode="json", exclude_none=True)
