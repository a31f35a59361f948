"""What a party notes of its own store: data sets that have gone, and a rotated key."""

from __future__ import annotations

import time
from typing import Any

from masque.data.rotation import rotate
from masque.data.store import Store
from masque.data.table import table_digest
from masque.data.upload import Entry
from masque.jobs.chain import DELETED, ROTATED
from masque.jobs.ledger import Ledger
from masque.wire.identity import Role
from masque.wire.ledgers import signer_of
from masque.wire.settings import own_credentials
from masque.wire.tls import Credentials
from services.party.settings import PartySettings


def open_ledger(settings: PartySettings, credentials: Credentials) -> Ledger:
    """The party's ledger. Raises InputError if somebody has changed it."""
    return Ledger(settings.data / "ledger.jsonl", time.time, signer_of(credentials))


def note_deletions(store: Store, ledger: Ledger) -> None:
    """From now on, every data set that goes leaves a line in the ledger."""

    def note(entry: Entry, replaced: bool) -> None:
        changed = {} if entry.intact(store.key) else {"changed": True}  # by whom, nobody can tell
        ledger.note(
            DELETED,
            dataset=entry.name,
            upload=entry.upload_id,
            owner=entry.owner,
            by=entry.owner,
            replaced=replaced,
            rows=entry.info.rows,
            columns=entry.info.columns,
            table=table_digest(entry.info),
            share=entry.commitment,
            **changed,
        )

    store.on_deletion(note)


def rotate_key(settings: PartySettings) -> dict[str, Any]:
    """A new key for the store of a party that does not run; what was done.

    Raises Conflict if the party runs, MasqueError for what is missing, damaged or full.
    """
    ledgers: list[Ledger] = []

    def begin() -> None:
        ledgers.append(open_ledger(settings, own_credentials(settings, Role.PARTY)))

    done = rotate(
        settings.data,
        settings.key_file,
        key_command=settings.key_command,
        next_key_command=settings.next_key_command,
        begin=begin,
    )
    content = {
        "old": done.old,
        "new": done.new,
        "datasets": list(done.datasets),
        "kept_shares": done.kept_shares,
    }
    ledgers[0].note(ROTATED, **content)
    return content
