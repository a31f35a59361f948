"""An owner's conditions, signed: made where a data set is shared, believed by every party.

{"statement": Statement, "certificate": DER, "signature": ECDSA}     (canonical JSON, base64)
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from masque.data.table import TableInfo, canonical_json, table_digest
from masque.errors import IdentityError
from masque.jobs.conditions import Conditions, Statement
from masque.jobs.fit import LARGEST_CONDITIONS
from masque.wire.certificates import read_der, verify
from masque.wire.identity import Role
from masque.wire.ledgers import moment
from masque.wire.recipients import sign, verify_signature
from masque.wire.tls import Credentials
from masque.wire.trust import Trust

_SIGNED = b"masque conditions 1\x00"


def attach(
    conditions: Conditions,
    credentials: Credentials,
    *,
    dataset: str,
    upload: str,
    info: TableInfo,
    parties: Sequence[str],
) -> str:
    """The conditions of the holder of `credentials` for one upload, signed with its key."""
    statement = Statement(
        owner=credentials.identity.name,
        dataset=dataset,
        upload=upload,
        table=table_digest(info),
        parties=tuple(parties),
        time=time.time(),
        conditions=conditions,
    )
    content = _content(statement)
    certificate = credentials.certificate.public_bytes(serialization.Encoding.DER)
    record = {
        "statement": content,
        "certificate": base64.b64encode(certificate).decode("ascii"),
        "signature": base64.b64encode(sign(credentials, _signed(content))).decode("ascii"),
    }
    return canonical_json(record).decode("ascii")


def read_statement(text: str) -> Statement:
    """What conditions say; nothing of it is believed yet. Raises IdentityError if it is none."""
    return _parts(text)[0]


def believe(text: str, trust: Trust, *, then: bool = False) -> Statement:
    """What conditions say, once certificate and signature are verified, or an IdentityError.

    The certificate must be valid now; `then`: at the time that the statement itself tells.
    """
    statement, certificate, signature = _parts(text)
    what = f"The conditions for the data set {statement.dataset!r}"
    seen = read_der(certificate)
    at = moment(statement.time) if then else None
    verify(seen, trust, role=Role.CLIENT, name=statement.owner, at=at)
    verify_signature(seen, signature, _signed(_content(statement)), what)
    return statement


def check_of_upload(
    statement: Statement, *, owner: str, dataset: str, upload: str, info: TableInfo, party: str
) -> None:
    """Are these the conditions of this very upload? Raises IdentityError naming what differs."""
    for what, said, due in (
        ("owner", statement.owner, owner),
        ("data set", statement.dataset, dataset),
        ("upload", statement.upload, upload),
        ("description", statement.table, table_digest(info)),
    ):
        if said != due:
            raise IdentityError(
                f"The conditions that came with the data set {dataset!r} are of another {what}.",
                hint="Share it again.",
                dataset=dataset,
                owner=owner,
            )
    if party not in statement.parties:
        raise IdentityError(
            f"The conditions of the data set {dataset!r} name {', '.join(statement.parties)}, and"
            f" not party {party!r}.",
            hint="Share it again with a profile that lists the parties by their names.",
            dataset=dataset,
            party=party,
        )


def _content(statement: Statement) -> dict[str, Any]:
    """What is signed: only what was given, so that rules of later versions change nothing in it."""
    return statement.model_dump(mode="json", exclude_none=True)


def _signed(content: object) -> bytes:
    return _SIGNED + canonical_json(content)


def _parts(text: str) -> tuple[Statement, bytes, bytes]:
    try:
        if len(text) > LARGEST_CONDITIONS:
            raise ValueError
        record = json.loads(text)
        if canonical_json(record).decode("ascii") != text or len(record) != 3:
            raise ValueError
        certificate = base64.b64decode(record["certificate"], validate=True)
        signature = base64.b64decode(record["signature"], validate=True)
        statement = Statement.model_validate_json(json.dumps(record["statement"]))
        if _content(statement) != record["statement"]:
            raise ValueError
    except (ValueError, KeyError, TypeError, ValidationError, binascii.Error, RecursionError):
        raise IdentityError(
            "These are no signed conditions of a data set.",
            hint="Share it again with --conditions, and the same version of Masque everywhere.",
        ) from None
    return statement, certificate, signature
