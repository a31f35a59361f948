"""An owner's conditions, signed: made where a data set is shared, believed by every party."""

from __future__ import annotations

import time
from collections.abc import Sequence

from masque.data.table import TableInfo, table_digest
from masque.errors import IdentityError
from masque.jobs.conditions import Conditions, Statement
from masque.jobs.fit import LARGEST_CONDITIONS
from masque.wire.ledgers import moment
from masque.wire.statements import Signed, read_signed, sign_statement
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
    return sign_statement(statement, _SIGNED, credentials)


def read_statement(text: str) -> Statement:
    """What conditions say; nothing of it is believed yet. Raises IdentityError if it is none."""
    return _read(text).said


def believe(text: str, trust: Trust, *, then: bool = False) -> Statement:
    """What conditions say, once certificate and signature are verified, or an IdentityError.

    The certificate must be valid now; `then`: at the time that the statement itself tells.
    """
    signed = _read(text)
    statement = signed.said
    what = f"The conditions for the data set {statement.dataset!r}"
    at = moment(statement.time) if then else None
    signed.verify(_SIGNED, trust, statement.owner, what, at)
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


def _read(text: str) -> Signed[Statement]:
    try:
        return read_signed(text, Statement, LARGEST_CONDITIONS)
    except ValueError:
        raise IdentityError(
            "These are no signed conditions of a data set.",
            hint="Share it again with --conditions, and the same version of Masque everywhere.",
        ) from None
